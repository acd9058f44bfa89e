//! Sensitivity files (JSON).

use std::fmt;
use std::path::Path;

use formats::block::DType;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::{Matrix, Origin, Probe, Sensitivity};
use crate::disk::{RunFiles, instead};
use crate::error::Error;
use crate::kind::Wanted;
use crate::order;
use crate::runner::KvType;
use crate::source::sample::{Measured, Sample};
use crate::text_file;

/// The `format` field.
const FORMAT: &str = "ggufkit sensitivity 1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    origin: From,
    /// KL divergence in nats per token, by KV cache type.
    cache: Figures,
    matrices: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    texts: Vec<String>,
    hash: String,
    context: usize,
    chunks: usize,
    /// Not in files of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model>,
}

/// The model that was measured.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: String,
    /// Some of its weights: [`Sample::text`].
    weights: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    shape: Vec<u64>,
    probes: Vec<Probed>,
    errors: Figures,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Probed {
    r#type: String,
    error: f64,
    kld: f64,
}

/// Figures by the names of types, of which there are few: longer lists are refused before they take memory.
#[derive(Default)]
struct Figures(Vec<(String, f64)>);

/// The most types that a list of figures has.
const MOST_TYPES: usize = 256;

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, x)| (name, x)))
    }
}

impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Figures;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of types and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Figures, A::Error> {
                let mut list = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if list.len() == MOST_TYPES {
                        return Err(A::Error::custom(format!("there are more than {MOST_TYPES} types")));
                    }
                    let figure = map.next_value();
                    let wrong = |_| A::Error::custom(format!("the figure of {name:?} is not a number"));
                    let figure = figure.map_err(wrong)?;
                    if list.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("{name:?} is there twice")));
                    }
                    list.push((name, figure));
                }
                Ok(Figures(list))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The text of a sensitivity file.
pub fn print(s: &Sensitivity) -> String {
    let Origin { texts, hash, context, chunks, model } = s.origin.clone();
    let model = model.map(|model| Model { name: model.name, weights: model.sample.text() });
    let file = File {
        format: FORMAT.into(),
        origin: From { texts, hash, context, chunks, model },
        cache: Figures(s.cache.iter().map(|(kv, kld)| (kv.name().to_string(), *kld)).collect()),
        matrices: s.matrices.iter().map(entry).collect(),
    };
    let text = serde_json::to_string_pretty(&file).expect("numbers and texts can be written");
    text + "\n"
}

fn entry(m: &Matrix) -> Entry {
    let probe = |p: &Probe| Probed { r#type: p.dtype.name().into(), error: p.error, kld: p.kld };
    Entry {
        name: m.name.clone(),
        shape: m.shape.clone(),
        probes: m.probes.iter().map(probe).collect(),
        errors: Figures(m.errors.iter().map(|(t, e)| (t.name().to_string(), *e)).collect()),
    }
}

/// Parses the text of a sensitivity file.
///
/// # Errors
/// What is wrong, with the field or the line: JSON of another form, another format version, unknown types, numbers that
/// are not errors or divergences.
pub fn parse(text: &str) -> Result<Sensitivity, String> {
    let file: File = serde_json::from_str(text).map_err(|e| format!("not a sensitivity file: {e}"))?;
    if file.format != FORMAT {
        return Err(format!("unsupported format: expected {FORMAT:?}, found {:?}", file.format));
    }
    let mut cache = Vec::new();
    for (name, kld) in file.cache.0 {
        let kv = KvType::from_name(&name).ok_or_else(|| format!("cache: {name:?} is not a KV cache type"))?;
        cache.push((kv, number(kld, &name)?));
    }
    let From { texts, hash, context, chunks, model } = file.origin;
    let measured = |model: Model| {
        let sample =
            Sample::parse(&model.weights).ok_or("origin: model: `weights` is no sample of weights")?;
        Ok::<_, String>(Measured { name: model.name, sample })
    };
    let model = model.map(measured).transpose()?;
    let matrices = file.matrices.into_iter().map(matrix).collect::<Result<Vec<_>, _>>()?;
    Ok(Sensitivity { origin: Origin { texts, hash, context, chunks, model }, matrices, cache })
}

/// Checks an error or a KL divergence; very small and negative ones become 0.
fn number(x: f64, of: &str) -> Result<f64, String> {
    /// Smaller numbers count as 0; larger ones are not plausible.
    const RANGE: [f64; 2] = [1e-30, 1e6];
    // Rounding can make a divergence of almost 0 negative.
    match x {
        x if x.is_nan() || x > RANGE[1] => Err(format!("{of}: {x} is not a KL divergence or error")),
        x if x < RANGE[0] => Ok(0.0),
        x => Ok(x),
    }
}

fn dtype(name: &str, of: &str) -> Result<DType, String> {
    DType::from_name(name).ok_or_else(|| format!("{of}: {name:?} is not a tensor type"))
}

fn matrix(e: Entry) -> Result<Matrix, String> {
    let name = e.name;
    let mut probes = Vec::new();
    for p in e.probes {
        let dtype = dtype(&p.r#type, &name)?;
        probes.push(Probe { dtype, error: number(p.error, &name)?, kld: number(p.kld, &name)? });
    }
    if probes.is_empty() {
        return Err(format!("{name}: `probes` is empty"));
    }
    order::by(&mut probes, |a, b| a.error.total_cmp(&b.error));
    let mut errors = Vec::new();
    for (t, x) in e.errors.0 {
        errors.push((dtype(&t, &name)?, number(x, &name)?));
    }
    Ok(Matrix { name, shape: e.shape, probes, errors })
}

/// Reads a sensitivity file.
///
/// # Errors
/// Those of [`RunFiles::read`] and [`text_file::strict`]; [`Error::Refused`] if [`parse`] fails.
pub fn read(run: &RunFiles, path: &Path) -> Result<Sensitivity, Error> {
    /// In bytes: some 30,000 matrices, each with an error for every type.
    const MAX_LEN: u64 = 1 << 25;
    let read = || {
        let text = text_file::strict(&path.display().to_string(), run.read(path, MAX_LEN)?)?.text;
        parse(&text).map_err(|why| {
            Error::refused(format!("{}: {why}", path.display())).or(Wanted::SENSITIVITIES.hint)
        })
    };
    read().map_err(|e| instead(path, Wanted::SENSITIVITIES, e))
}
