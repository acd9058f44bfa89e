//! The third stage: weights are read from the source, encoded, and written to the plan's files, in bands of whole rows (of
//! whole blocks, where a row is longer than a band). Reading, encoding and writing overlap. What is written where depends on
//! the plan alone, so the number of threads does not change the result.

mod ternary;
mod weights;

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;

use formats::block::{DType, Encode};
use formats::model::{ByteOrder, Encoding, Format};

use crate::arch;
use crate::calibrate::sequential::Sequential;
use crate::calibrate::state::{State, fingerprint};
use crate::calibrate::{self, Scratch};
use crate::disk::NewFile;
use crate::error::{Error, Result};
use crate::order;
use crate::outcome::{Outcome, QuantizedTensor, measure_error};
use crate::plan::{Plan, bias, scales};
use crate::resources::{Watcher, no_threads};
use crate::runner::{Network, Options};
use crate::source::{Source, Stored};
use kernels::parallel;
use weights::Weights;

/// The largest and the smallest target size of a band in bytes: source, f32 and result together.
const MAX_BAND: u64 = 8 << 20;
const MIN_BAND: u64 = 64 << 10;

/// A band of work: weights to encode, or bytes to copy.
#[derive(Debug, Clone)]
enum Job {
    /// Encode weights `range` of tensor `tensor`.
    Encode { tensor: usize, range: Range<u64> },
    /// Copy the stored bytes `range` of tensor `tensor`, which are numbers of `dtype`.
    Copy { tensor: usize, range: Range<u64>, dtype: DType },
    /// Write a whole scale tensor, all elements of which are `factor`.
    Scale { tensor: usize, factor: f32 },
}

impl Job {
    /// The index in the layout of the tensor that it writes a part of.
    fn tensor(&self) -> usize {
        let (Self::Encode { tensor, .. } | Self::Copy { tensor, .. } | Self::Scale { tensor, .. }) = self;
        *tensor
    }
}

/// The result of a job.
struct Band {
    /// The job's index.
    job: usize,
    /// The tensor's index in the layout.
    tensor: usize,
    writes: Writes,
    outcome: Outcome,
    /// For I2_S, the magnitude of the nonzero weights; 0 if all are zero, and for other encodings.
    magnitude: f32,
}

impl Band {
    fn new(job: usize, tensor: usize, writes: Writes, outcome: Outcome) -> Self {
        Self { job, tensor, writes, outcome, magnitude: 0.0 }
    }
}

/// Encodes and writes the plan's weights: first those that `layer_by_layer` quantizes, then all others. `memory` bounds the
/// bytes in flight. Gives the outcome of every tensor of the layout.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read or written; [`Error::NotFinite`] for weights that are NaN or infinite;
/// [`Error::OutOfRange`] for weights that a type cannot hold; those of [`calibrate::sequential::run`].
pub fn quantize(
    source: &Source,
    plan: &Plan,
    layer_by_layer: Option<&Sequential>,
    files: &[NewFile],
    pool: &rayon::ThreadPool,
    memory: u64,
    watcher: &dyn Watcher,
) -> Result<Vec<Outcome>> {
    let threads = pool.current_num_threads() as u64;
    // In flight: a band in each thread, as many waiting to be written, one being read and one being written.
    let target = (memory / (2 * threads + 2)).clamp(MIN_BAND, MAX_BAND);
    let finished = pool.install(|| sequential(source, plan, layer_by_layer, files, memory, watcher))?;
    let factors = pool.install(|| factors(source, plan, target))?;
    let mut jobs = jobs(source, plan, &factors, target);
    jobs.retain(|job| finished[job.tensor()].is_none());
    if let Some(job) = jobs.iter().find(|job| plan.decisions[job.tensor()].rule == bias::RULE) {
        let name = &plan.layout.tensors[job.tensor()].name;
        return Err(Error::Failed(format!("tensor {name}: bias correction did not compute this bias")));
    }
    let spare = Mutex::new(Vec::new());

    let (results, bands) = sync_channel::<Band>(threads as usize);
    let (written, encoded) = std::thread::scope(|scope| {
        let writer = std::thread::Builder::new().spawn_scoped(scope, || -> Result<Vec<(Outcome, f32)>> {
            let bands = bands; // dropped with this thread, so that a failed write stops the encoders
            let mut outcomes = vec![(Outcome::default(), 0.0); jobs.len()];
            for band in bands {
                let location = plan.layout.tensors[band.tensor].location;
                for (offset, bytes) in band.writes {
                    files[location.file].write(location.offset + offset, &bytes)?;
                    watcher.advance(bytes.len() as u64);
                    let mut spare = spare.lock().expect("nobody panics with the lock");
                    if spare.len() < threads as usize + 2 {
                        spare.push(bytes);
                    }
                }
                outcomes[band.job] = (band.outcome, band.magnitude);
            }
            Ok(outcomes)
        });
        let writer = match writer {
            Ok(writer) => writer,
            Err(e) => return (Err(no_threads(&e)), Ok(())),
        };
        let encoded = pool.install(|| {
            // Sources are read by one thread at a time, in the order of the files.
            let mut fetched = jobs.iter().enumerate().map(|(i, job)| {
                if let Some(next) = jobs.get(i + 1 + threads as usize) {
                    advise(source, plan, next);
                }
                (i, job, fetch(source, plan, job))
            });
            parallel::stream(&mut fetched, &|(i, job, fetched)| {
                let buffer = spare.lock().expect("nobody panics with the lock").pop().unwrap_or_default();
                let factor = factors[job.tensor()];
                let band = run(source, plan, factor, i, job, fetched?, buffer)?;
                // If the writer has stopped, it reports the error itself.
                results.send(band).map_err(|_| Error::Failed("writing failed".into()))
            })
        });
        drop(results);
        (writer.join().expect("the writer does not panic"), encoded)
    });
    let bands = written?;
    encoded?;
    let magnitudes = jobs.iter().zip(&bands).map(|(job, band)| (job.tensor(), band.1));
    watcher.advance(ternary::write_scales(plan, files, magnitudes)?);

    // Summed in the order of the bands, whichever thread encoded them.
    let mut outcomes: Vec<Outcome> = finished.into_iter().map(Option::unwrap_or_default).collect();
    for (job, (outcome, _)) in jobs.iter().zip(bands) {
        outcomes[job.tensor()].add(outcome);
    }
    Ok(outcomes)
}

/// Quantizes layer by layer and writes the finished tensors; gives their outcomes, by index in the layout.
fn sequential(
    source: &Source,
    plan: &Plan,
    sequential: Option<&Sequential>,
    files: &[NewFile],
    memory: u64,
    watcher: &dyn Watcher,
) -> Result<Vec<Option<Outcome>>> {
    let mut outcomes = vec![None; plan.layout.tensors.len()];
    let Some(sequential) = sequential else { return Ok(outcomes) };
    let network = Network::new(source, Options { exact: true, isa: None })?;
    let folder = plan.paths.first().and_then(|p| p.parent()).filter(|p| !p.as_os_str().is_empty());
    let scratch = Scratch { memory, folder: folder.unwrap_or(Path::new(".")).to_path_buf() };
    let mut state = match &sequential.state {
        Some(folder) => {
            let state = State::open(folder, fingerprint(source, plan, sequential)?)?;
            source.run.refuse_input_in(folder)?;
            Some(state)
        }
        None => None,
    };
    let done = |mut quantized: QuantizedTensor| {
        let t = &plan.layout.tensors[quantized.tensor];
        assert_eq!(quantized.bytes.len() as u64, t.location.len, "{}", t.name);
        if let (Encoding::Blocks(dtype), ByteOrder::Big) = (t.encoding, plan.order) {
            dtype.swap(&mut quantized.bytes);
        }
        files[t.location.file].write(t.location.offset, &quantized.bytes)?;
        watcher.advance(quantized.bytes.len() as u64);
        outcomes[quantized.tensor] = Some(quantized.outcome);
        Ok(())
    };
    let depth = network.depth();
    let on_layer = |finished| watcher.layers(finished, depth);
    calibrate::sequential::run(&network, plan, sequential, &scratch, state.as_mut(), done, on_layer)?;
    Ok(outcomes)
}

/// The ranges of weights of a tensor of the layout that are encoded together. A band holds the source, two f32 copies and
/// the result: about ten bytes per weight.
fn ranges(
    source: &Source,
    plan: &Plan,
    tensor: usize,
    target: u64,
) -> impl Iterator<Item = Range<u64>> + use<> {
    let t = &plan.layout.tensors[tensor];
    let from = &source.model.tensors[plan.decisions[tensor].source];
    let weights = (target / 10).max(1);
    let whole = from.encoding.unit().max(1) * t.encoding.unit().max(1);
    let unit = if t.cols() <= weights { t.cols().max(1) } else { whole };
    let (step, end) = ((weights / unit).max(1) * unit, t.elements());
    (0..end).step_by(step as usize).map(move |a| a..(a + step).min(end))
}

/// The factor that the weights of each tensor of the layout are divided by before they are encoded (NVFP4's scale of the
/// whole tensor); 1 for the others. Reads the tensors that have such a scale.
fn factors(source: &Source, plan: &Plan, target: u64) -> Result<Vec<f32>> {
    let mut factors = vec![1.0; plan.layout.tensors.len()];
    for scale in &plan.scales {
        let (i, t) = (plan.decisions[scale.weight].source, &plan.layout.tensors[scale.weight]);
        let peak = |_, range: Range<u64>| -> Result<u32> {
            let mut x = vec![0.0; (range.end - range.start) as usize];
            source.fetch(i, range)?.decode(&t.name, source.model.order, &mut x)?;
            // The bits of magnitudes sort like the magnitudes, with NaN above all.
            Ok(x.iter().map(|x: &f32| x.abs().to_bits()).max().unwrap_or(0))
        };
        let ranges = ranges(source, plan, scale.weight, target).collect();
        let found = parallel::try_map_items(ranges, &peak)?;
        let factor = scales::factor(f32::from_bits(found.into_iter().max().unwrap_or(0)));
        (factors[scale.weight], factors[scale.scale]) = (factor, factor);
    }
    Ok(factors)
}

/// All bands, in the order of the files.
fn jobs(source: &Source, plan: &Plan, factors: &[f32], target: u64) -> Vec<Job> {
    let mut order: Vec<usize> = (0..plan.decisions.len()).collect();
    order::by_key(&mut order, |&i| {
        (plan.layout.tensors[i].location.file, plan.layout.tensors[i].location.offset)
    });
    let mut jobs = Vec::new();
    for tensor in order {
        let t = &plan.layout.tensors[tensor];
        let from = &source.model.tensors[plan.decisions[tensor].source];
        if plan.scales.iter().any(|s| s.scale == tensor) {
            jobs.push(Job::Scale { tensor, factor: factors[tensor] });
        } else if from.encoding == t.encoding {
            for (part, dtype) in t.parts() {
                let unit = dtype.info().bytes as u64;
                let step = (target / 2).max(1).next_multiple_of(unit);
                let ranges = part.clone().step_by(step as usize).map(|a| a..(a + step).min(part.end));
                jobs.extend(ranges.map(|range| Job::Copy { tensor, range, dtype }));
            }
        } else {
            jobs.extend(ranges(source, plan, tensor, target).map(|range| Job::Encode { tensor, range }));
        }
    }
    jobs
}

/// Lets the system read a job's source ahead.
fn advise(source: &Source, plan: &Plan, job: &Job) {
    match job {
        Job::Encode { tensor, range } => source.will_fetch(plan.decisions[*tensor].source, range.clone()),
        Job::Copy { tensor, range, .. } => source.will_read(plan.decisions[*tensor].source, range.clone()),
        Job::Scale { .. } => {}
    }
}

/// Reads a job's source; where the file is mapped, that is only a slice.
fn fetch<'a>(source: &'a Source, plan: &Plan, job: &Job) -> Result<Stored<'a>> {
    match job {
        Job::Encode { tensor, range } => source.fetch(plan.decisions[*tensor].source, range.clone()),
        Job::Copy { tensor, range, dtype } => {
            Ok(Stored::Blocks(*dtype, source.read(plan.decisions[*tensor].source, range.clone())?))
        }
        Job::Scale { tensor, factor } => {
            Ok(Stored::Computed(vec![*factor; plan.layout.tensors[*tensor].elements() as usize]))
        }
    }
}

/// Whether a model is a GGUF of an architecture that is not computed here.
fn is_unknown(source: &Source) -> bool {
    let name = source.model.metadata.text("general.architecture");
    matches!(source.model.format, Format::Gguf { .. })
        && name.is_some_and(|name| arch::by_name(name).is_none())
}

/// Does a job: the bytes that are to be written, and the error.
fn run(
    source: &Source,
    plan: &Plan,
    factor: f32,
    index: usize,
    job: &Job,
    fetched: Stored<'_>,
    mut buffer: Vec<u8>,
) -> Result<Band> {
    let order = (source.model.order, plan.order);
    match job {
        Job::Copy { tensor, range, dtype } => {
            let Stored::Blocks(_, bytes) = fetched else { unreachable!("copies are fetched as blocks") };
            let t = &plan.layout.tensors[*tensor];
            // Weights that are decoded are checked there. In architectures that are not known here, a mask may be infinite.
            if !plan.copy
                && !is_unknown(source)
                && let Some(block) = first_not_finite(*dtype, &bytes, order.0)
            {
                let info = dtype.info();
                // Other encodings have their scales behind all codes.
                let at = (range.start / info.bytes as u64 + block as u64) * info.weights as u64;
                let at = matches!(t.encoding, Encoding::Blocks(_)).then_some(at);
                return Err(Error::NotFinite {
                    tensor: t.name.clone(),
                    weight: at,
                    row: at.map(|at| at / t.cols()),
                    value: None,
                });
            }
            buffer.clear();
            buffer.extend_from_slice(&bytes);
            if order.0 != order.1 {
                dtype.swap(&mut buffer);
            }
            let writes = vec![(range.start, buffer)];
            Ok(Band::new(index, *tensor, writes, Outcome::default()))
        }
        Job::Encode { tensor, range } => {
            let t = &plan.layout.tensors[*tensor];
            let weights = Weights::new(&fetched, &t.name, order.0, range.end - range.start)?;
            if t.encoding == Encoding::I2S {
                let (codes, outcome, magnitude) = ternary::encode(t, range.start, &weights, buffer)?;
                return Ok(Band { magnitude, ..Band::new(index, *tensor, vec![codes], outcome) });
            }
            let (writes, outcome) = encode(plan, *tensor, factor, range.start, &weights, buffer)?;
            Ok(Band::new(index, *tensor, writes, outcome))
        }
        Job::Scale { tensor, .. } => {
            // These bytes are little-endian, whatever the source's byte order is.
            let mut bytes = fetched.little_endian(ByteOrder::Little).into_owned();
            if order.1 == ByteOrder::Big {
                DType::F32.swap(&mut bytes);
            }
            Ok(Band::new(index, *tensor, vec![(0, bytes)], Outcome::default()))
        }
    }
}

/// The index of the first block of stored weights with an infinity or a NaN.
fn first_not_finite(dtype: DType, bytes: &[u8], order: ByteOrder) -> Option<usize> {
    if order == ByteOrder::Little {
        return dtype.first_not_finite(bytes);
    }
    let mut bytes = bytes.to_vec();
    dtype.swap(&mut bytes);
    dtype.first_not_finite(&bytes)
}

/// Bytes to write, each with its offset from the beginning of the tensor.
type Writes = Vec<(u64, Vec<u8>)>;

/// Weights that are decoded, encoded and measured together, so that they stay in the L1 cache.
const PIECE: usize = 4096;

/// Encodes the weights from `first` on of a tensor of the layout, divided by `factor` (a power of two), and measures their
/// error.
fn encode(
    plan: &Plan,
    tensor: usize,
    factor: f32,
    first: u64,
    weights: &Weights<'_>,
    mut buffer: Vec<u8>,
) -> Result<(Writes, Outcome)> {
    let (t, order) = (&plan.layout.tensors[tensor], plan.order);
    let count = weights.len();
    let (from, to) = (weights.unit(), t.encoding.unit().max(1) as usize);
    let unit = if from.is_multiple_of(to) { from } else { from * to };
    let piece = (PIECE / unit).max(1) * unit;
    let (mut x, mut y) = (vec![0f32; piece.min(count)], vec![0f32; piece.min(count)]);
    let mut outcome = Outcome::default();
    let pieces = (0..count).step_by(piece).map(|a| a..(a + piece).min(count));
    match t.encoding {
        Encoding::Blocks(dtype) => {
            let codec = kernels::codec(dtype).expect("plans encode into types that have a codec");
            let bytes = |n: u64| dtype.bytes_for(n).expect("bands are whole rows");
            buffer.resize(bytes(count as u64) as usize, 0);
            let mut columns = plan.search.columns(tensor);
            for at in pieces {
                let (x, y) = (&mut x[..at.len()], &mut y[..at.len()]);
                let out = &mut buffer[bytes(at.start as u64) as usize..bytes(at.end as u64) as usize];
                weights.decode(at.clone(), x);
                if factor != 1.0 {
                    x.iter_mut().for_each(|x| *x /= factor);
                }
                let whole = first + at.start as u64..first + at.end as u64;
                let how = Encode {
                    importance: columns.as_mut().map(|c| c.of(whole)),
                    objective: plan.search.objective,
                    effort: plan.search.effort,
                };
                codec.encode(x, &how, out);
                codec.decode(out, y);
                outcome.add(measure_error(t, first + at.start as u64, x, y)?.scaled(factor));
            }
            if order == ByteOrder::Big {
                dtype.swap(&mut buffer);
            }
            Ok((vec![(bytes(first), buffer)], outcome))
        }
        Encoding::Int8Groups { size } => {
            let (mut scales, mut codes) = (Vec::new(), vec![0i8; size as usize]);
            buffer.clear();
            for at in pieces {
                let (x, y) = (&mut x[..at.len()], &mut y[..at.len()]);
                weights.decode(at.clone(), x);
                for (x, y) in x.chunks(size as usize).zip(y.chunks_mut(size as usize)) {
                    let scale = formats::container::llama2c::quantize_group(x, &mut codes);
                    y.iter_mut().zip(&codes).for_each(|(y, &q)| *y = f32::from(q) * scale);
                    buffer.extend(codes.iter().map(|&q| q as u8));
                    scales.extend(order.le(scale.to_le_bytes()));
                }
                outcome.add(measure_error(t, first + at.start as u64, x, y)?);
            }
            let after = t.elements() + first / u64::from(size) * 4;
            Ok((vec![(first, buffer), (after, scales)], outcome))
        }
        Encoding::I2S => unreachable!("ternary::encode packs these"),
        Encoding::Foreign(_) => unreachable!("no container holds these"),
    }
}
