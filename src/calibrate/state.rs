//! What is done of a long run, layer by layer, so that it can be taken up again.
//!
//! A folder holds `state.json` (which run it is of, and how many layers are done), `layer-N` for each of them (the
//! finished tensors) and `vectors-N-M` (the text's vectors behind N layers of model M). Files appear whole: a run that
//! is cut off leaves at most one layer's work undone.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sequential::Sequential;
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, QuantizedTensor, Winner};
use crate::plan::Plan;
use crate::source::Source;

/// A folder that remembers a run.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    index: Index,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// What distinguishes the run from others.
    run: String,
    /// Finished layers.
    layers: usize,
}

/// A finished tensor, without its bytes.
#[derive(Serialize, Deserialize)]
struct Head {
    tensor: usize,
    bytes: usize,
    error: f64,
    energy: f64,
    won: Option<(String, f64, f64)>,
}

/// Every name that [`Winner::method`] may have.
const METHODS: [&str; 4] = ["search", "awq", "gptq", "awq+gptq"];

/// What distinguishes a run: the model's files and settings, the plan, the text and the method.
pub fn fingerprint(source: &Source, plan: &Plan, sequential: &Sequential) -> String {
    let mut hash = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hash);
    (source.path.canonicalize().ok(), source.bytes()).hash(&mut hash);
    if let Ok(modified) = fs::metadata(&source.path).and_then(|m| m.modified()) {
        modified.hash(&mut hash);
    }
    for (i, (step, t)) in plan.decisions.iter().zip(&plan.layout.tensors).enumerate() {
        (&t.name, t.encoding.name(), step.from.name(), &t.shape).hash(&mut hash);
        let cols = t.cols();
        if let Some(mut columns) = plan.search.columns(i) {
            columns.of(0..cols).iter().for_each(|x| x.to_bits().hash(&mut hash));
        }
    }
    format!("{:?} {:?}", plan.search.objective, plan.search.effort).hash(&mut hash);
    format!("{:?}", sequential.method).hash(&mut hash);
    sequential.chunks.tokens.hash(&mut hash);
    format!("{:016x}", hash.finish())
}

impl State {
    /// Opens a folder, which is made if it is not there, for a run.
    ///
    /// # Errors
    /// The system's; a folder with the state of another run, or with other files.
    pub fn open(folder: &Path, run: String) -> Result<Self> {
        let path = folder.join("state.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
                let mut others = fs::read_dir(folder).map_err(|e| Error::io(folder, "read", e))?;
                // A run that was cut off in its first layer has left some of it.
                let own = |name: &str| {
                    name.starts_with("vectors-") || name.starts_with("layer-") || name == "state.part"
                };
                if let Some(Ok(other)) =
                    others.find(|f| f.as_ref().is_ok_and(|f| !own(&f.file_name().to_string_lossy())))
                {
                    let why =
                        format!("{}: is no state of a run: it has {:?}", folder.display(), other.file_name());
                    return Err(Error::refused(why).or("name a folder of its own: --state DIR"));
                }
                return Ok(Self { folder: folder.to_path_buf(), index: Index { run, layers: 0 } });
            }
            Err(e) => return Err(Error::io(&path, "read", e)),
        };
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| {
            Error::refused(format!("{}: is no state of a run: {e}", path.display()))
                .or("remove the folder, and begin again")
        })?;
        if index.run != run {
            let why = format!("{}: is the state of another run", folder.display());
            return Err(Error::refused(why).or(
                "the model, the plan, the text or the method has changed: name another folder, or remove it",
            ));
        }
        Ok(Self { folder: folder.to_path_buf(), index })
    }

    /// Gives the tensors of finished layers and puts the vectors back; the number of those layers.
    ///
    /// # Errors
    /// The system's; what is not as it was written; what `done` gives.
    pub fn resume(
        &self,
        walk: &mut Walk,
        done: &mut impl FnMut(QuantizedTensor) -> Result<()>,
    ) -> Result<usize> {
        let layers = self.index.layers;
        for layer in 0..layers {
            let path = self.folder.join(format!("layer-{layer}"));
            read_layer(&path)?.into_iter().try_for_each(&mut *done)?;
        }
        if layers > 0 {
            for model in 0..walk.models() {
                let path = self.vectors(layers, model);
                let file = File::open(&path).map_err(|e| Error::io(&path, "open", e))?;
                let mut file = BufReader::new(file);
                let mut hash = DefaultHasher::new();
                let mut take = |bytes: &mut [u8]| match file.read_exact(bytes) {
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(broken(&path)),
                    found => found.map_err(|e| Error::io(&path, "read", e)),
                };
                walk.restore(model, |bytes| {
                    take(bytes)?;
                    hash.write(bytes);
                    Ok(())
                })?;
                let mut end = [0u8; 8];
                take(&mut end)?;
                if hash.finish() != u64::from_le_bytes(end) {
                    return Err(broken(&path));
                }
            }
        }
        Ok(layers)
    }

    /// Keeps a finished layer and the vectors behind it.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&mut self, layer: usize, made: &[QuantizedTensor], walk: &Walk) -> Result<()> {
        whole(&self.folder.join(format!("layer-{layer}")), |file| write_layer(file, made))?;
        for model in 0..walk.models() {
            whole(&self.vectors(layer + 1, model), |file| {
                let mut hash = DefaultHasher::new();
                let saved = walk.save(model, |bytes| {
                    hash.write(bytes);
                    file.write_all(bytes)
                })?;
                Ok(saved.and_then(|()| file.write_all(&hash.finish().to_le_bytes())))
            })?;
        }
        self.index.layers = layer + 1;
        let text = serde_json::to_vec(&self.index).expect("numbers and a text");
        whole(&self.folder.join("state.json"), |file| Ok(file.write_all(&text)))?;
        for model in 0..walk.models() {
            let _ = fs::remove_file(self.vectors(layer, model));
        }
        Ok(())
    }

    fn vectors(&self, layer: usize, model: usize) -> PathBuf {
        self.folder.join(format!("vectors-{layer}-{model}"))
    }
}

/// Writes a file beside its name, then gives it the name.
fn whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<std::io::Result<()>>) -> Result<()> {
    let bad = |e| Error::io(path, "write", e);
    let part = path.with_extension("part");
    let mut file = BufWriter::new(File::create(&part).map_err(bad)?);
    write(&mut file)?.map_err(bad)?;
    let file = file.into_inner().map_err(|e| bad(e.into_error()))?;
    file.sync_all().map_err(bad)?;
    fs::rename(&part, path).map_err(bad)
}

/// What ends a file of numbers, to see that it is as it was written.
fn sum(bytes: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    hash.write(bytes);
    hash.finish()
}

fn broken(path: &Path) -> Error {
    Error::refused(format!("{}: is not as it was written", path.display()))
        .or("remove the folder, and begin again")
}

fn write_layer(file: &mut BufWriter<File>, made: &[QuantizedTensor]) -> Result<std::io::Result<()>> {
    let heads: Vec<Head> = made
        .iter()
        .map(|m| Head {
            tensor: m.tensor,
            bytes: m.bytes.len(),
            error: m.outcome.error,
            energy: m.outcome.energy,
            won: m.outcome.won.map(|w| (w.method.to_string(), w.ratio, w.share)),
        })
        .collect();
    let text = serde_json::to_vec(&heads).expect("numbers and texts");
    let mut hash = DefaultHasher::new();
    let mut put = |bytes: &[u8]| {
        hash.write(bytes);
        file.write_all(bytes)
    };
    let mut all = || {
        put(&(text.len() as u64).to_le_bytes())?;
        put(&text)?;
        made.iter().try_for_each(|m| put(&m.bytes))
    };
    Ok(all().and_then(|()| file.write_all(&hash.finish().to_le_bytes())))
}

fn read_layer(path: &Path) -> Result<Vec<QuantizedTensor>> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    parse_layer(&bytes).ok_or_else(|| broken(path))
}

fn parse_layer(bytes: &[u8]) -> Option<Vec<QuantizedTensor>> {
    let (bytes, end) = bytes.split_last_chunk::<8>()?;
    if sum(bytes) != u64::from_le_bytes(*end) {
        return None;
    }
    let (len, bytes) = bytes.split_first_chunk::<8>()?;
    let (text, mut bytes) = bytes.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let heads: Vec<Head> = serde_json::from_slice(text).ok()?;
    let mut all = Vec::new();
    for h in heads {
        let (own, rest) = bytes.split_at_checked(h.bytes)?;
        bytes = rest;
        let won = match h.won {
            None => None,
            Some((name, ratio, share)) => {
                let method = METHODS.into_iter().find(|m| *m == name)?;
                Some(Winner { method, ratio, share })
            }
        };
        let outcome = Outcome { error: h.error, energy: h.energy, won };
        all.push(QuantizedTensor { tensor: h.tensor, bytes: own.to_vec(), outcome });
    }
    bytes.is_empty().then_some(all)
}
