//! RoPE scaling: how the rotary position embeddings of a model are scaled for longer contexts than it was first trained
//! on.

use formats::metadata::{Metadata, Value, WrongValue};
use serde_json::{Value as Json, json};

use super::settings::{Reader, wrong};

/// The kinds of RoPE scaling that GGUF runtimes compute for the architectures here.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Scaling {
    /// No scaling ("default").
    None,
    /// Positions divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Positions divided by a factor (1 where they are not), and cosines and sines multiplied by another. GGUF alone can say
    /// so; of the kinds in config.json, YaRN alone has such a factor.
    Attention {
        /// The divisor of positions.
        factor: f64,
        /// The factor of cosines and sines.
        attention: f64,
    },
    /// Llama 3.1's: low frequencies are divided by a factor, high ones are kept, and those between are interpolated.
    /// GGUF has no keys for it, but a tensor of divisors, `rope_freqs.weight`.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Original context / this: wavelengths above are low frequencies.
        low: f64,
        /// Original context / this: wavelengths below are high frequencies.
        high: f64,
        /// The context that the model was first trained on, in tokens.
        original: u64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// The factor.
        factor: f64,
        /// The context that the model was first trained on, in tokens.
        original: u64,
        /// The optional settings, in this order: extrapolation factor, attention factor, beta fast, beta slow.
        rest: [Option<f64>; 4],
    },
}

/// YaRN's optional settings: names in config.json, and in GGUF behind `rope.scaling.`.
const YARN: [(&[&str], &str); 4] = [
    (&["extrapolation_factor"], "yarn_ext_factor"),
    (&["attention_factor", "attn_factor"], "yarn_attn_factor"),
    (&["beta_fast"], "yarn_beta_fast"),
    (&["beta_slow"], "yarn_beta_slow"),
];

/// The kind that config.json names: `rope_type`, or `type` in older files. With a note for the user where a file has both,
/// and they are two.
///
/// # Errors
/// One that is no text.
pub fn named(json: &Json) -> Result<(Option<String>, Option<String>), String> {
    let read = Reader(json);
    let (newer, older) = (read.text("rope_type")?, read.text("type")?);
    let note = newer.zip(older).filter(|(newer, older)| !newer.eq_ignore_ascii_case(older)).map(|(newer, older)| {
        format!(
            "RoPE scaling: config.json says \"rope_type\": \"{newer}\" and \"type\": \"{older}\": the first counts here, and \
             versions of transformers take either; remove the wrong one"
        )
    });
    Ok((newer.or(older).map(str::to_ascii_lowercase), note))
}

/// The longest context that is accepted as the original one, in tokens.
const MOST_ORIGINAL: f64 = (1u64 << 31) as f64;

impl Scaling {
    /// Reads `rope_scaling` or `rope_parameters`; `context` is the model's.
    ///
    /// # Errors
    /// Kinds that are not supported, a factor without a kind, and numbers that are missing, of a wrong type or out of range.
    pub fn from_hub(json: &Json, context: u64) -> Result<Self, String> {
        Self::read_hub(json, context).map_err(|why| format!("RoPE scaling: {why}"))
    }

    fn read_hub(json: &Json, context: u64) -> Result<Self, String> {
        let read = Reader(json);
        let positive = |key: &str| read.float(key)?.ok_or_else(|| format!("{key} is missing"));
        let original = "original_max_position_embeddings";
        let original = match read.float(original)? {
            Some(n) if !(1.0..=MOST_ORIGINAL).contains(&n) => {
                return Err(wrong(original, "a number of tokens", &json[original]));
            }
            given => given.map(|n| n as u64),
        };
        let kind = match named(json)?.0 {
            Some(kind) => kind,
            None => match read.float("factor")? {
                Some(factor) if factor != 1.0 => {
                    return Err(format!(
                        "there is a factor ({factor}) without a \"rope_type\"; add the type that the model was trained with, \
                         such as \"linear\", or remove the factor, without which nothing is scaled"
                    ));
                }
                _ => "default".into(),
            },
        };
        Ok(match kind.as_str() {
            "default" | "none" => Self::None,
            "linear" => Self::Linear { factor: positive("factor")? },
            "llama3" => {
                let (low, high) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
                if high <= low {
                    return Err(format!(
                        "high_freq_factor {high} must be greater than low_freq_factor {low}"
                    ));
                }
                let original = original.ok_or("original_max_position_embeddings is missing")?;
                Self::Llama3 { factor: positive("factor")?, low, high, original }
            }
            "yarn" => {
                let factor = positive("factor")?;
                let mut rest = [None; 4];
                for (value, (names, _)) in rest.iter_mut().zip(YARN) {
                    for name in names {
                        *value = value.or(read.number(name)?);
                    }
                }
                // DeepSeek's way to say the attention factor.
                let magnitudes = (read.float("mscale")?, read.float("mscale_all_dim")?);
                if let (None, (Some(one), Some(all))) = (rest[1], magnitudes) {
                    let magnitude = |scale: f64| 1.0 + 0.1 * scale * factor.max(1.0).ln();
                    rest[1] = Some(magnitude(one) / magnitude(all));
                }
                if read.flag("truncate")? == Some(false) {
                    return Err(
                        "\"truncate\": false is not supported: GGUF runtimes round the ends of YaRN's ramp"
                            .into(),
                    );
                }
                Self::Yarn { factor, original: original.unwrap_or(context), rest }
            }
            other => return Err(format!("type {other:?} is not supported")),
        })
    }

    /// What programs that run a GGUF compute otherwise, for the user: llama.cpp reads the ends of YaRN's ramp and its
    /// extrapolation factor for a few other architectures only.
    pub fn note(self) -> Option<String> {
        let Self::Yarn { rest: [extrapolation, _, fast, slow], .. } = self else { return None };
        let usual = [
            ("extrapolation_factor", extrapolation, 1.0),
            ("beta_fast", fast, 32.0),
            ("beta_slow", slow, 1.0),
        ];
        let other = usual.into_iter().find(|(_, given, usual)| given.is_some_and(|x| x != *usual));
        other.map(|(key, given, usual)| {
            let given = given.unwrap_or(usual);
            format!(
                "YaRN's {key} is {given}, and ggufkit computes with it; llama.cpp computes with {usual} for this architecture"
            )
        })
    }

    /// GGUF's keys for it.
    pub fn metadata(self, arch: &str, metadata: &mut Metadata) {
        let mut set = |key: &str, value| metadata.set(&format!("{arch}.rope.scaling.{key}"), value);
        match self {
            Self::None | Self::Llama3 { .. } => {}
            Self::Linear { factor } => {
                set("type", Value::text("linear"));
                set("factor", Value::F32(factor as f32));
            }
            Self::Attention { factor, attention } => {
                set("type", Value::text(if factor == 1.0 { "none" } else { "linear" }));
                set("factor", Value::F32(factor as f32));
                set("attn_factor", Value::F32(attention as f32));
            }
            Self::Yarn { factor, original, rest } => {
                set("type", Value::text("yarn"));
                set("factor", Value::F32(factor as f32));
                set("original_context_length", Value::U32(u32::try_from(original).unwrap_or(u32::MAX)));
                for ((_, key), value) in YARN.iter().zip(rest) {
                    if let Some(value) = value {
                        set(key, Value::F32(value as f32));
                    }
                }
                if let [_, Some(attention), ..] = rest {
                    // llama.cpp reads yarn_attn_factor for Grok only. For all others it multiplies YaRN's default
                    // factor by this one.
                    set("attn_factor", Value::F32((attention / usual_attention(factor)) as f32));
                }
            }
        }
    }

    /// From GGUF's keys and, for Llama 3's kind, the divisors of `rope_freqs.weight`; `context` is the model's. As in
    /// llama.cpp (`load_hparams` in `llama-model.cpp`), a factor without a type is a linear one, the key of 2023 counts where
    /// the newer one is missing, a factor of 0 scales nothing, YaRN's original context is the model's unless there is
    /// another, and `attn_factor` multiplies cosines and sines whatever the type (`llama-context.cpp`).
    ///
    /// # Errors
    /// Kinds that are not supported, values of a wrong type or out of range, missing keys, and divisors that are not those
    /// of known Llama 3 settings.
    pub fn from_gguf(
        metadata: &Metadata,
        arch: &str,
        theta: f64,
        context: u64,
        freqs: Option<&[f32]>,
    ) -> Result<Self, String> {
        let key = |key: &str| format!("{arch}.rope.scaling.{key}");
        let text = |e: WrongValue| e.to_string();
        let float =
            |name: &str| Ok::<_, String>(metadata.read_float(&key(name)).map_err(text)?.map(shortest));
        let kind = metadata.read_text(&key("type")).map_err(text)?;
        let factor = |key: &str| {
            metadata.read(key, "a float that is not negative", |v| {
                v.as_f64().filter(|&x| x >= 0.0 && (x as f32).is_finite())
            })
        };
        let newer = factor(&key("factor")).map_err(text)?;
        let older = factor(&format!("{arch}.rope.scale_linear")).map_err(text)?;
        let factor = newer.or(older).map(shortest).filter(|&x| x != 0.0);
        let kind = kind.unwrap_or("linear");
        let attention = float("attn_factor")?.filter(|&attention| attention != 1.0);
        let divisor = factor.filter(|_| kind != "none").unwrap_or(1.0);
        let scaling = match (kind, attention) {
            ("none" | "linear", Some(attention)) => Self::Attention { factor: divisor, attention },
            ("none" | "linear", None) if divisor == 1.0 => Self::None,
            ("none" | "linear", None) => Self::Linear { factor: divisor },
            ("yarn", attention) => {
                let factor = factor.ok_or("RoPE scaling: rope.scaling.factor is missing")?;
                let original = metadata
                    .read(&key("original_context_length"), "an integer that is not negative", Value::as_u64)
                    .map_err(text)?
                    .filter(|&n| n > 0)
                    .unwrap_or(context);
                let mut rest = [None; 4];
                for (value, (_, name)) in rest.iter_mut().zip(YARN) {
                    *value = float(name)?;
                }
                // What llama.cpp multiplies YaRN's default factor by.
                rest[1] = rest[1].or(attention.map(|attention| attention * usual_attention(factor)));
                Self::Yarn { factor, original, rest }
            }
            (other, _) => return Err(format!("RoPE scaling: type {other:?} is not supported")),
        };
        match (freqs, scaling) {
            (None, scaling) => Ok(scaling),
            (Some(freqs), Self::None) => Self::from_freqs(freqs, theta).ok_or_else(|| {
                "rope_freqs.weight does not match Llama 3's RoPE scaling with any of the known settings"
                    .into()
            }),
            (Some(_), _) => Err(format!(
                "rope_freqs.weight and the scaling in {} are both there, which no checkpoint can say",
                key("type")
            )),
        }
    }

    /// The settings whose divisors these are. There is no formula for that, so the settings of published models are
    /// tried: the factor is the largest divisor, and all else is the same in most of them.
    fn from_freqs(freqs: &[f32], theta: f64) -> Option<Self> {
        let factor = freqs.iter().copied().fold(1.0, f32::max);
        let same = |s: &Self| s.freqs(theta, freqs.len() * 2).is_some_and(|f| f == freqs);
        let originals = (3..=20).map(|bits| 1u64 << bits);
        originals
            .flat_map(|original| {
                [(1.0, 4.0), (1.0, 2.0), (1.0, 8.0), (2.0, 4.0), (1.0, 32.0)]
                    .map(|(low, high)| Self::Llama3 { factor: shortest(factor.into()), low, high, original })
            })
            .filter(same)
            // Several fit if all wavelengths of a small head are long: prefer 8192, which most models have.
            .max_by_key(|s| matches!(s, Self::Llama3 { original: 8192, .. }))
    }

    /// The `rope_scaling` or `rope_parameters` of config.json, without the base.
    pub fn to_hub(self) -> Json {
        match self {
            Self::None => json!({ "rope_type": "default" }),
            Self::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            // No reader of checkpoints computes it: writing a checkpoint refuses it before.
            Self::Attention { factor, attention } => {
                json!({ "rope_type": "linear", "factor": factor, "attention_factor": attention })
            }
            Self::Llama3 { factor, low, high, original } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }),
            Self::Yarn { factor, original, rest } => {
                let mut json = json!({
                    "rope_type": "yarn",
                    "factor": factor,
                    "original_max_position_embeddings": original,
                });
                for ((names, _), value) in YARN.iter().zip(rest) {
                    if let Some(value) = value {
                        json[names[0]] = json!(value);
                    }
                }
                json
            }
        }
    }

    /// The divisors of a head's `head / 2` frequencies, for Llama 3's kind. They are computed in the arithmetic of
    /// convert_hf_to_gguf.py (frequencies and interpolation in f32, with constants divided in f64), so that they have
    /// the same bits.
    pub fn freqs(self, theta: f64, head: usize) -> Option<Vec<f32>> {
        let Self::Llama3 { factor, low, high, original } = self else { return None };
        let original = original as f64;
        let (longest, shortest) = (original / low, original / high);
        let divisor = |i: usize| -> f32 {
            let exponent = (2 * i) as f32 / head as f32;
            let frequency = 1.0f32 / (theta as f32).powf(exponent);
            let wavelength = (2.0 * std::f64::consts::PI) as f32 / frequency;
            if f64::from(wavelength) < shortest {
                1.0
            } else if f64::from(wavelength) > longest {
                factor as f32
            } else {
                let smooth = (original as f32 / wavelength - low as f32) / (high - low) as f32;
                1.0 / ((1.0 - smooth) / factor as f32 + smooth)
            }
        };
        Some((0..head / 2).map(divisor).collect())
    }
}

impl Scaling {
    /// The angle in radians by which each position rotates each of the `head / 2` pairs of a head, and the factor of
    /// cosines and sines (YaRN's attention factor). `divisors` are those of `rope_freqs.weight`, where there are any.
    ///
    /// Divisors and the scaling of the settings are computed one after the other, as in ggml's `rope_yarn`: the divided
    /// angle is what is scaled.
    pub fn angles(self, theta: f64, head: usize, divisors: Option<&[f32]>) -> (Vec<f64>, f64) {
        let own = self.freqs(theta, head).filter(|_| divisors.is_none());
        let divisors = divisors.or(own.as_deref());
        let plain = |i: usize| {
            let angle = theta.powf(-((2 * i) as f64) / head as f64);
            divisors.map_or(angle, |d| angle / f64::from(d[i]))
        };
        let all = 0..head / 2;
        match self {
            Self::None | Self::Llama3 { .. } => (all.map(plain).collect(), 1.0),
            Self::Linear { factor } => (all.map(|i| plain(i) / factor).collect(), 1.0),
            Self::Attention { factor, attention } => (all.map(|i| plain(i) / factor).collect(), attention),
            Self::Yarn { factor, original, rest } => {
                let [extrapolation, attention, fast, slow] = rest;
                // The dimension that makes so many full turns in the original context.
                let dimension = |turns: f64| {
                    let length = original as f64 / (turns * 2.0 * std::f64::consts::PI);
                    head as f64 * length.ln() / (2.0 * theta.ln())
                };
                let low = dimension(fast.unwrap_or(32.0)).floor().max(0.0);
                let high = dimension(slow.unwrap_or(1.0)).ceil().min(head as f64 - 1.0);
                let angle = |i: usize| {
                    let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    let keep = (1.0 - ramp) * extrapolation.unwrap_or(1.0);
                    plain(i) / factor * (1.0 - keep) + plain(i) * keep
                };
                (all.map(angle).collect(), attention.unwrap_or(usual_attention(factor)))
            }
        }
    }
}

/// YaRN's default factor of cosines and sines.
fn usual_attention(factor: f64) -> f64 {
    1.0 + 0.1 * factor.max(1.0).ln()
}

/// The f64 with the shortest decimal that is the same f32, so that 1e-5 is written as it was in config.json.
pub(crate) fn shortest(x: f64) -> f64 {
    let short = x as f32;
    if f64::from(short) == x { short.to_string().parse().unwrap_or(x) } else { x }
}

#[cfg(test)]
mod tests;
