//! The saved state of a layer-by-layer run, so that it can be resumed.
//!
//! The folder holds `state.json` (a fingerprint of the run, and the number of finished layers), `layer-N` for each finished
//! layer (its tensors) and `vectors-N-M` (the hidden states of model M after N layers). Files are written atomically: an
//! interrupted run loses at most the work on one layer.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::activations::Activations;
use super::sequential::Sequential;
use crate::disk::{self, InFile};
use crate::error::{Error, Result};
use crate::outcome::{ChosenMethod, Outcome, QuantizedTensor};
use crate::plan::Plan;
use crate::source::Source;

/// A folder with the state of a run.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    index: Index,
}

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// The run's [`fingerprint`].
    run: String,
    /// Finished layers.
    layers: usize,
}

/// A finished tensor, without its bytes.
#[derive(Serialize, Deserialize)]
struct TensorRecord {
    tensor: usize,
    bytes: usize,
    error: f64,
    energy: f64,
    won: Option<(String, f64, f64)>,
}

/// Every name that [`ChosenMethod::method`] may have.
const METHODS: [&str; 4] = ["search", "awq", "gptq", "awq+gptq"];

/// Bytes of each place at which a large file is looked at.
const BLOCK: u64 = 64 << 10;

/// Places at which a large file is looked at. Smaller files are looked at as a whole.
const PLACES: u64 = 256;

/// Hashes what tells whether a model's file is still what it was: its length, the time of its last change, and bytes
/// from all over it, since tools that copy files often set the time to what it was elsewhere. Who owns it and where it
/// lies may change between two runs.
fn look_at(file: &InFile, hash: &mut DefaultHasher) -> Result<()> {
    (file.path.canonicalize().ok(), file.len, file.stamp.modified()).hash(hash);
    if file.len <= BLOCK * PLACES {
        file.read(0, file.len)?.hash(hash);
        return Ok(());
    }
    for place in 0..PLACES {
        let start = u128::from(file.len - BLOCK) * u128::from(place) / u128::from(PLACES - 1);
        file.read(start as u64, BLOCK)?.hash(hash);
    }
    Ok(())
}

/// Identifies a run: a hash of the model's path and of what tells every file of it from another one, the plan, the
/// calibration set and the method.
///
/// # Errors
/// [`Error::Io`] if a file of the model cannot be read.
pub fn fingerprint(source: &Source, plan: &Plan, sequential: &Sequential) -> Result<String> {
    let mut hash = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hash);
    source.path.canonicalize().ok().hash(&mut hash);
    // A folder's own time, or that of an index, says nothing of files that are rewritten in place.
    source.files.iter().try_for_each(|file| look_at(file, &mut hash))?;
    source.beside.iter().try_for_each(|path| look_at(&InFile::open(path, false)?, &mut hash))?;
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
    Ok(format!("{:016x}", hash.finish()))
}

impl State {
    /// Opens the folder for a run, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::OtherState`] if it holds the state of a different run; [`Error::Refused`] if it has other files or its
    /// `state.json` cannot be parsed; [`Error::Io`] if it cannot be created or read.
    pub fn open(folder: &Path, run: String) -> Result<Self> {
        let path = folder.join("state.json");
        const OTHER: &str = "name an empty or new folder, which keeps the finished layers: --state DIR";
        if folder.exists() && !folder.is_dir() {
            return Err(Error::refused(format!(
                "{}: is a file, not a state folder: the finished layers of a run are kept in a folder of their own",
                folder.display()
            ))
            .or(OTHER));
        }
        let bytes = match whole(&path, MOST_INDEX) {
            Ok(bytes) => bytes,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
                let mut others = fs::read_dir(folder).map_err(|e| Error::io(folder, "read", e))?;
                // A run that was interrupted in its first layer may have left these.
                let own = |name: &str| {
                    ["vectors-", "layer-", "state.", ".ggufkit-"].iter().any(|start| name.starts_with(start))
                };
                if let Some(Ok(other)) =
                    others.find(|f| f.as_ref().is_ok_and(|f| !own(&f.file_name().to_string_lossy())))
                {
                    let why = format!(
                        "{}: is a folder of other files (such as {}), not a state folder: the finished layers of a run are kept \
                         in one of their own",
                        folder.display(),
                        other.file_name().to_string_lossy()
                    );
                    return Err(Error::refused(why).or(OTHER));
                }
                return Ok(Self { folder: folder.to_path_buf(), index: Index { run, layers: 0 } });
            }
            Err(e) => return Err(e),
        };
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| {
            Error::refused(format!("{}: not the state of a run: {e}", path.display()))
                .or(format!("{OTHER}; or, if the folder is of an earlier run, remove it and start again"))
        })?;
        if index.run != run {
            return Err(Error::OtherState { folder: folder.to_path_buf() });
        }
        Ok(Self { folder: folder.to_path_buf(), index })
    }

    /// Passes the tensors of finished layers to `done` and restores the hidden states. Gives the number of finished layers.
    ///
    /// # Errors
    /// [`Error::DamagedState`] if a file's checksum does not match, or what it holds are no tensors of the plan; [`Error::Io`]
    /// if one cannot be read; those of `done`.
    pub fn resume(
        &self,
        plan: &Plan,
        activations: &mut Activations,
        done: &mut impl FnMut(QuantizedTensor) -> Result<()>,
    ) -> Result<usize> {
        let layers = self.index.layers;
        for layer in 0..layers {
            let path = self.folder.join(format!("layer-{layer}"));
            let tensors = read_layer(&path)?;
            // A checksum can be computed for everything.
            let fits = |q: &QuantizedTensor| {
                let planned = plan.layout.tensors.get(q.tensor);
                planned.is_some_and(|t| t.location.len == q.bytes.len() as u64)
            };
            if !tensors.iter().all(fits) {
                return Err(damaged(&path));
            }
            tensors.into_iter().try_for_each(&mut *done)?;
        }
        if layers > 0 {
            for model in 0..activations.models() {
                let path = self.hidden_states(layers, model);
                if !path.is_file() {
                    return Err(damaged(&path));
                }
                let file = File::open(&path).map_err(|e| Error::io(&path, "open", e))?;
                let mut file = BufReader::new(file);
                let mut hash = DefaultHasher::new();
                let mut take = |bytes: &mut [u8]| match file.read_exact(bytes) {
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(damaged(&path)),
                    found => found.map_err(|e| Error::io(&path, "read", e)),
                };
                activations.restore(model, |bytes| {
                    take(bytes)?;
                    hash.write(bytes);
                    Ok(())
                })?;
                let mut end = [0u8; 8];
                take(&mut end)?;
                if hash.finish() != u64::from_le_bytes(end) {
                    return Err(damaged(&path));
                }
            }
        }
        Ok(layers)
    }

    /// Saves a finished layer and the hidden states after it.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn save_layer(
        &mut self,
        layer: usize,
        tensors: &[QuantizedTensor],
        activations: &Activations,
    ) -> Result<()> {
        disk::replace(&self.folder.join(format!("layer-{layer}")), |file| write_layer(file, tensors))?;
        for model in 0..activations.models() {
            disk::replace(&self.hidden_states(layer + 1, model), |file| {
                let mut hash = DefaultHasher::new();
                let saved = activations.save(model, |bytes| {
                    hash.write(bytes);
                    file.write_all(bytes)
                })?;
                Ok(saved.and_then(|()| file.write_all(&hash.finish().to_le_bytes())))
            })?;
        }
        self.index.layers = layer + 1;
        let text = serde_json::to_vec(&self.index).expect("numbers and a text");
        disk::replace(&self.folder.join("state.json"), |file| Ok(file.write_all(&text)))?;
        for model in 0..activations.models() {
            let _ = fs::remove_file(self.hidden_states(layer, model));
        }
        Ok(())
    }

    fn hidden_states(&self, layer: usize, model: usize) -> PathBuf {
        self.folder.join(format!("vectors-{layer}-{model}"))
    }
}

/// The checksum that ends a file.
fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = DefaultHasher::new();
    hash.write(bytes);
    hash.finish()
}

fn damaged(path: &Path) -> Error {
    Error::DamagedState { path: path.to_path_buf() }
}

/// The layout of a `layer-N` file: the length of the JSON, the JSON of [`TensorRecord`]s, the tensors' bytes, the checksum.
fn write_layer(file: &mut impl Write, tensors: &[QuantizedTensor]) -> Result<std::io::Result<()>> {
    let records: Vec<TensorRecord> = tensors
        .iter()
        .map(|m| TensorRecord {
            tensor: m.tensor,
            bytes: m.bytes.len(),
            error: m.outcome.error,
            energy: m.outcome.energy,
            won: m.outcome.chosen.map(|w| (w.method.to_string(), w.ratio, w.share)),
        })
        .collect();
    let text = serde_json::to_vec(&records).expect("numbers and texts");
    let mut hash = DefaultHasher::new();
    let mut put = |bytes: &[u8]| {
        hash.write(bytes);
        file.write_all(bytes)
    };
    let mut all = || {
        put(&(text.len() as u64).to_le_bytes())?;
        put(&text)?;
        tensors.iter().try_for_each(|m| put(&m.bytes))
    };
    Ok(all().and_then(|()| file.write_all(&hash.finish().to_le_bytes())))
}

/// More bytes than `state.json` takes, which has a fingerprint and a number.
const MOST_INDEX: u64 = 64 << 10;

/// A file's bytes, at most so many. What is no file, a pipe or a device, need not have an end.
fn whole(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = InFile::open(path, false).map_err(|e| match e {
        Error::NotAFile { .. } => damaged(path),
        other => other,
    })?;
    if file.len > most {
        return Err(damaged(path));
    }
    Ok(file.read(0, file.len)?.into_owned())
}

fn read_layer(path: &Path) -> Result<Vec<QuantizedTensor>> {
    let bytes = whole(path, u64::MAX)?;
    parse_layer(&bytes).ok_or_else(|| damaged(path))
}

fn parse_layer(bytes: &[u8]) -> Option<Vec<QuantizedTensor>> {
    let (bytes, end) = bytes.split_last_chunk::<8>()?;
    if checksum(bytes) != u64::from_le_bytes(*end) {
        return None;
    }
    let (len, bytes) = bytes.split_first_chunk::<8>()?;
    let (text, mut bytes) = bytes.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let records: Vec<TensorRecord> = serde_json::from_slice(text).ok()?;
    let mut all = Vec::new();
    for h in records {
        let (own, rest) = bytes.split_at_checked(h.bytes)?;
        bytes = rest;
        let chosen = match h.won {
            None => None,
            Some((name, ratio, share)) => {
                let method = METHODS.into_iter().find(|m| *m == name)?;
                Some(ChosenMethod { method, ratio, share })
            }
        };
        let outcome = Outcome { error: h.error, energy: h.energy, chosen };
        all.push(QuantizedTensor { tensor: h.tensor, bytes: own.to_vec(), outcome });
    }
    bytes.is_empty().then_some(all)
}
