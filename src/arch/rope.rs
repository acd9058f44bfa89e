//! RoPE scaling: how the rotary position embeddings of a model are scaled for longer contexts than it was first trained
//! on.

use formats::metadata::{Metadata, Value, WrongValue};
use serde_json::{Value as Json, json};

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

/// The longest context that is accepted as the original one, in tokens.
const MOST_ORIGINAL: f64 = (1u64 << 31) as f64;

impl Scaling {
    /// Reads `rope_scaling` or `rope_parameters`; `context` is the model's.
    ///
    /// # Errors
    /// Kinds that are not supported, and numbers that are missing or out of range.
    pub fn from_hub(json: &Json, context: u64) -> Result<Self, String> {
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        // GGUF stores f32, in which a larger number would be infinite and a smaller one zero.
        let number = |key: &str| json.get(key).and_then(Json::as_f64).filter(|&x| (x as f32).is_finite());
        let positive = |key: &str| {
            number(key)
                .filter(|&x| x as f32 > 0.0)
                .ok_or(format!("RoPE scaling: {key} is missing or not a positive number"))
        };
        let original =
            number("original_max_position_embeddings").filter(|n| (1.0..=MOST_ORIGINAL).contains(n));
        let original = original.map(|n| n as u64);
        if let Some(odd) =
            ["rope_type", "type"].iter().find_map(|k| json.get(k).filter(|v| !v.is_string() && !v.is_null()))
        {
            return Err(format!("RoPE scaling: type {odd} is not supported"));
        }
        let kind = text("rope_type").or(text("type")).unwrap_or("default").to_ascii_lowercase();
        Ok(match kind.as_str() {
            "default" | "none" => Self::None,
            "linear" => Self::Linear { factor: positive("factor")? },
            "llama3" => {
                let (low, high) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
                if high <= low {
                    return Err(format!(
                        "RoPE scaling: high_freq_factor {high} must be greater than low_freq_factor {low}"
                    ));
                }
                let original =
                    original.ok_or("RoPE scaling: original_max_position_embeddings is missing or invalid")?;
                Self::Llama3 { factor: positive("factor")?, low, high, original }
            }
            "yarn" => Self::Yarn {
                factor: positive("factor")?,
                original: original.unwrap_or(context),
                rest: YARN.map(|(names, _)| names.iter().find_map(|name| number(name))),
            },
            other => return Err(format!("RoPE scaling: type {other:?} is not supported")),
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

    /// From GGUF's keys and, for Llama 3's kind, the divisors of `rope_freqs.weight`. As in llama.cpp
    /// (`load_hparams` in `llama-model.cpp`), a factor without a type is a linear one, the key of 2023 counts where the
    /// newer one is missing, and a factor of 0 scales nothing.
    ///
    /// # Errors
    /// Kinds that are not supported, values of a wrong type or out of range, missing keys, and divisors that are not those
    /// of known Llama 3 settings.
    pub fn from_gguf(
        metadata: &Metadata,
        arch: &str,
        theta: f64,
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
        let scaling = match (kind.unwrap_or("linear"), factor) {
            ("none", _) | ("linear", None | Some(1.0)) => Self::None,
            ("linear", Some(factor)) => Self::Linear { factor },
            ("yarn", factor) => {
                let factor = factor.ok_or("RoPE scaling: rope.scaling.factor is missing")?;
                let original = metadata
                    .read(&key("original_context_length"), "a positive integer", |v| {
                        v.as_u64().filter(|&n| n > 0)
                    })
                    .map_err(text)?
                    .ok_or("RoPE scaling: rope.scaling.original_context_length is missing")?;
                let mut rest = [None; 4];
                for (value, (_, name)) in rest.iter_mut().zip(YARN) {
                    *value = float(name)?;
                }
                // What llama.cpp multiplies YaRN's default factor by.
                if let (None, Some(attention)) = (rest[1], float("attn_factor")?) {
                    rest[1] = Some(attention * usual_attention(factor)).filter(|_| attention != 1.0);
                }
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
    pub fn angles(self, theta: f64, head: usize, divisors: Option<&[f32]>) -> (Vec<f64>, f64) {
        let plain = |i: usize| theta.powf(-((2 * i) as f64) / head as f64);
        let all = 0..head / 2;
        match (divisors, self) {
            (Some(d), Self::Linear { factor }) => {
                (all.map(|i| plain(i) / f64::from(d[i]) / factor).collect(), 1.0)
            }
            (Some(d), _) => (all.map(|i| plain(i) / f64::from(d[i])).collect(), 1.0),
            (None, Self::Linear { factor }) => (all.map(|i| plain(i) / factor).collect(), 1.0),
            (None, Self::Yarn { factor, original, rest }) => {
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
            (None, _) => (all.map(plain).collect(), 1.0),
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
mod tests {
    use super::*;

    #[test]
    fn llama_3_1_divisors() {
        let json = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"});
        let scaling = Scaling::from_hub(&json, 131_072).unwrap();
        let freqs = scaling.freqs(500_000.0, 128).unwrap();
        assert_eq!(freqs.len(), 64);
        assert_eq!((freqs[0], freqs[28], freqs[63]), (1.0, 1.0, 8.0));
        assert!(freqs.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(Scaling::from_freqs(&freqs, 500_000.0), Some(scaling));
        assert_eq!(scaling.to_hub(), serde_json::from_value::<Json>(json).unwrap());
    }

    #[test]
    fn the_attention_factor_is_written_as_llama_cpp_reads_it() {
        let json = json!({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5});
        let mut metadata = Metadata::new();
        Scaling::from_hub(&json, 4096).unwrap().metadata("qwen2", &mut metadata);
        let factor = metadata.get("qwen2.rope.scaling.attn_factor").and_then(Value::as_f64).unwrap();
        assert!((factor * (1.0 + 0.1 * 4f64.ln()) - 1.5).abs() < 1e-6, "{factor}");
    }

    #[test]
    fn the_keys_of_a_gguf_mean_what_they_mean_in_llama_cpp() {
        let read = |keys: &[(&str, Value)]| {
            let mut m = Metadata::new();
            keys.iter().for_each(|(k, v)| m.set(&format!("x.rope.{k}"), v.clone()));
            Scaling::from_gguf(&m, "x", 10000.0, None)
        };
        let (f, text) = (Value::F32, Value::text);
        let linear = Ok(Scaling::Linear { factor: 4.0 });
        let old = ("scale_linear", f(4.0));
        for keys in [
            &[("scaling.factor", f(4.0))][..],
            std::slice::from_ref(&old),
            &[("scaling.type", text("linear")), ("scaling.factor", f(4.0)), ("scale_linear", f(2.0))],
            &[("scaling.type", text("linear")), old.clone()],
        ] {
            assert_eq!(read(keys), linear, "{keys:?}");
        }
        for keys in [
            &[][..],
            &[("scaling.type", text("none")), ("scaling.factor", f(4.0))],
            &[("scaling.type", text("linear"))],
            &[("scaling.factor", f(0.0))],
            &[("scale_linear", f(1.0))],
        ] {
            assert_eq!(read(keys), Ok(Scaling::None), "{keys:?}");
        }
        for keys in [
            &[("scaling.type", Value::U32(1))][..],
            &[("scaling.factor", text("4"))],
            &[("scaling.factor", f(-4.0))],
            &[("scaling.factor", f(f32::NAN))],
            &[("scale_linear", Value::U32(4))],
            &[
                ("scaling.type", text("yarn")),
                ("scaling.factor", f(4.0)),
                ("scaling.original_context_length", f(8.0)),
            ],
        ] {
            let why = read(keys).unwrap_err();
            assert!(why.contains("metadata key x.rope.") && why.contains(" must be "), "{why}");
        }
        let yarn = [
            ("scaling.type", text("yarn")),
            ("scaling.factor", f(4.0)),
            ("scaling.original_context_length", Value::U32(8)),
            ("scaling.attn_factor", f(0.5)),
        ];
        let Ok(Scaling::Yarn { rest: [None, Some(attention), None, None], .. }) = read(&yarn) else {
            panic!()
        };
        assert!((attention - 0.5 * (1.0 + 0.1 * 4f64.ln())).abs() < 1e-9);
        // The two ways to scale do not exclude each other.
        let (angles, _) = Scaling::Linear { factor: 2.0 }.angles(10000.0, 4, Some(&[1.0, 8.0]));
        let (plain, _) = Scaling::None.angles(10000.0, 4, None);
        assert_eq!(angles, [plain[0] / 2.0, plain[1] / 16.0]);
    }

    #[test]
    fn both_dialects_round_trip() {
        for (json, wanted) in [
            (json!({"rope_type": "default"}), Scaling::None),
            (json!({"type": "linear", "rope_type": null, "factor": 4.0}), Scaling::Linear { factor: 4.0 }),
            (
                json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "beta_fast": 32.0}),
                Scaling::Yarn { factor: 4.0, original: 32768, rest: [None, None, Some(32.0), None] },
            ),
        ] {
            let scaling = Scaling::from_hub(&json, 4096).unwrap();
            assert_eq!(scaling, wanted);
            let mut metadata = Metadata::new();
            scaling.metadata("llama", &mut metadata);
            assert_eq!(Scaling::from_gguf(&metadata, "llama", 10000.0, None), Ok(wanted));
            assert_eq!(Scaling::from_hub(&wanted.to_hub(), 4096), Ok(wanted));
        }
        for bad in [
            json!({"type": "longrope"}),
            json!({"rope_type": "linear"}),
            json!({"rope_type": "llama3"}),
            json!({"rope_type": 7}),
            json!({"rope_type": "linear", "factor": 1e300}),
            json!({"rope_type": "yarn", "factor": 1e-300}),
        ] {
            assert!(Scaling::from_hub(&bad, 4096).is_err(), "{bad}");
        }
    }
}
