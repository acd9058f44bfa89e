//! The third stage: weights go from the source to the files of the plan in bands of whole rows (of whole blocks,
//! where a row is longer than a band). Reading, encoding
//! and writing overlap; what is written where depends on the plan alone, so the number of threads changes nothing.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;

use formats::block::DType;
use formats::model::{ByteOrder, Encoding, Tensor};
use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::disk::NewFile;
use crate::error::{Error, Result};
use crate::kernels;
use crate::plan::Plan;
use crate::source::{Source, Stored};

/// Who is told how far the work is. Called from the writing thread.
pub trait Watcher: Sync {
    /// So many more bytes of tensor data have been written.
    fn advance(&self, bytes: u64);
}

/// Nobody.
impl Watcher for () {
    fn advance(&self, _: u64) {}
}

/// What quantizing did to a tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outcome {
    /// Sum of squared differences between the source's weights and the stored ones, over all elements.
    pub error: f64,
    /// Sum of the source's squared weights.
    pub energy: f64,
}

impl Outcome {
    /// Root mean square of the error relative to that of the weights; not a number where theirs are not.
    pub fn relative(self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.energy).sqrt() }
    }

    /// Takes another's sums in.
    pub fn add(&mut self, other: Self) {
        self.error += other.error;
        self.energy += other.energy;
    }
}

/// Bytes of source, f32 and result that a band aims at together, and what it has at least.
const BAND: u64 = 8 << 20;
const LEAST_BAND: u64 = 64 << 10;

/// A piece of work: elements that are converted, or bytes that are copied.
#[derive(Debug, Clone)]
enum Job {
    /// Elements `range` of tensor `tensor`.
    Encode { tensor: usize, range: Range<u64> },
    /// Stored bytes `range` of tensor `tensor`, in numbers of `dtype`.
    Copy { tensor: usize, range: Range<u64>, dtype: DType },
}

/// What a job gives: bytes for places in a file, and the sums of its error.
struct Band {
    job: usize,
    tensor: usize,
    writes: Vec<(u64, Vec<u8>)>,
    outcome: Outcome,
}

/// Writes the plan's weights. `memory` bounds the bytes in flight; gives the outcome
/// of every tensor of the layout.
///
/// # Errors
/// The system's; weights that are not finite, or that the type cannot hold.
pub fn quantize(
    source: &Source,
    plan: &Plan,
    files: &[NewFile],
    pool: &rayon::ThreadPool,
    memory: u64,
    watcher: &dyn Watcher,
) -> Result<Vec<Outcome>> {
    let threads = pool.current_num_threads() as u64;
    // In flight: a band in each thread, as many waiting to be written, one being read and one being written.
    let target = (memory / (2 * threads + 2)).clamp(LEAST_BAND, BAND);
    let jobs = jobs(source, plan, target);
    let spare = Mutex::new(Vec::new());

    let (results, bands) = sync_channel::<Band>(threads as usize);
    let (written, encoded) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<Vec<Outcome>> {
            let bands = bands; // dropped with this thread, so that a failed write stops the encoders
            let mut outcomes = vec![Outcome::default(); jobs.len()];
            for band in bands {
                let place = plan.layout.tensors[band.tensor].place;
                for (offset, bytes) in band.writes {
                    files[place.file].write(place.offset + offset, &bytes)?;
                    watcher.advance(bytes.len() as u64);
                    let mut spare = spare.lock().expect("nobody panics with the lock");
                    if spare.len() < threads as usize + 2 {
                        spare.push(bytes);
                    }
                }
                outcomes[band.job] = band.outcome;
            }
            Ok(outcomes)
        });
        let encoded = pool.install(|| {
            jobs.iter()
                .enumerate()
                .map(|(i, job)| {
                    if let Some(next) = jobs.get(i + 1 + threads as usize) {
                        advise(source, plan, next);
                    }
                    (i, job, fetch(source, plan, job))
                })
                .par_bridge()
                .try_for_each(|(i, job, fetched)| {
                    let buffer = spare.lock().expect("nobody panics with the lock").pop().unwrap_or_default();
                    let band = run(source, plan, i, job, fetched?, buffer)?;
                    // The writer has gone: it has the error.
                    results.send(band).map_err(|_| Error::Failed("writing failed".into()))
                })
        });
        drop(results);
        (writer.join().expect("the writer does not panic"), encoded)
    });
    let bands = written?;
    encoded?;

    // Summed in the order of the bands, whoever made them.
    let mut outcomes = vec![Outcome::default(); plan.layout.tensors.len()];
    for (job, outcome) in jobs.iter().zip(bands) {
        let (Job::Encode { tensor, .. } | Job::Copy { tensor, .. }) = job;
        outcomes[*tensor].add(outcome);
    }
    Ok(outcomes)
}

/// Cuts the work into bands, in the order of the files.
fn jobs(source: &Source, plan: &Plan, target: u64) -> Vec<Job> {
    let mut order: Vec<usize> = (0..plan.steps.len()).collect();
    order.sort_by_key(|&i| (plan.layout.tensors[i].place.file, plan.layout.tensors[i].place.offset));
    let mut jobs = Vec::new();
    for tensor in order {
        let t = &plan.layout.tensors[tensor];
        let from = &source.model.tensors[plan.steps[tensor].source];
        if from.encoding == t.encoding {
            for (part, dtype) in t.parts() {
                let unit = dtype.info().bytes as u64;
                let step = (target / 2).max(1).next_multiple_of(unit);
                let ranges = part.clone().step_by(step as usize).map(|a| a..(a + step).min(part.end));
                jobs.extend(ranges.map(|range| Job::Copy { tensor, range, dtype }));
            }
        } else {
            // A band holds the source, the f32s twice, and the result: ten bytes a weight, more or less.
            let most = (target / 10).max(1);
            let whole = from.encoding.unit().max(1) * t.encoding.unit().max(1);
            let unit = if t.cols() <= most { t.cols().max(1) } else { whole };
            let step = (most / unit).max(1) * unit;
            let ranges = (0..t.elements()).step_by(step as usize);
            jobs.extend(ranges.map(|a| Job::Encode { tensor, range: a..(a + step).min(t.elements()) }));
        }
    }
    jobs
}

fn advise(source: &Source, plan: &Plan, job: &Job) {
    match job {
        Job::Encode { tensor, range } => source.will_fetch(plan.steps[*tensor].source, range.clone()),
        Job::Copy { tensor, range, .. } => source.will_read(plan.steps[*tensor].source, range.clone()),
    }
}

/// Reads a job's source: nothing but a slice where the file is mapped.
fn fetch<'a>(source: &'a Source, plan: &Plan, job: &Job) -> Result<Stored<'a>> {
    match job {
        Job::Encode { tensor, range } => source.fetch(plan.steps[*tensor].source, range.clone()),
        Job::Copy { tensor, range, dtype } => {
            Ok(Stored::Blocks(*dtype, source.read(plan.steps[*tensor].source, range.clone())?))
        }
    }
}

fn run(
    source: &Source,
    plan: &Plan,
    index: usize,
    job: &Job,
    fetched: Stored<'_>,
    mut buffer: Vec<u8>,
) -> Result<Band> {
    let order = (source.model.order, plan.order);
    match job {
        Job::Copy { tensor, range, dtype } => {
            let Stored::Blocks(_, bytes) = fetched else { unreachable!("copies are fetched as blocks") };
            buffer.clear();
            buffer.extend_from_slice(&bytes);
            if order.0 != order.1 {
                dtype.swap(&mut buffer);
            }
            let writes = vec![(range.start, buffer)];
            Ok(Band { job: index, tensor: *tensor, writes, outcome: Outcome::default() })
        }
        Job::Encode { tensor, range } => {
            let t = &plan.layout.tensors[*tensor];
            let mut x = vec![0f32; (range.end - range.start) as usize];
            fetched.decode(&t.name, order.0, &mut x)?;
            let (writes, outcome) = encode(t, range.start, &x, order.1, buffer)?;
            Ok(Band { job: index, tensor: *tensor, writes, outcome })
        }
    }
}

type Writes = Vec<(u64, Vec<u8>)>;

/// Encodes elements from `first` on, and looks at what became of them.
fn encode(
    t: &Tensor,
    first: u64,
    x: &[f32],
    order: ByteOrder,
    mut buffer: Vec<u8>,
) -> Result<(Writes, Outcome)> {
    if let Some(at) = x.iter().position(|x| !x.is_finite()) {
        let n = first + at as u64;
        return Err(Error::refused(format!(
            "tensor {}: weight {n} (row {}) is {}, which has no place in a model",
            t.name,
            n / t.cols(),
            x[at]
        ))
        .or("ask whoever made the checkpoint; ggufkit verify lists every such tensor"));
    }
    let mut back = vec![0f32; x.len()];
    let writes = match t.encoding {
        Encoding::Blocks(dtype) => {
            let codec = kernels::codec(dtype).expect("plans encode into types that have a codec");
            let bytes = |n: u64| dtype.bytes_for(n).expect("bands are whole rows");
            buffer.resize(bytes(x.len() as u64) as usize, 0);
            codec.encode(x, None, &mut buffer);
            codec.decode(&buffer, &mut back);
            if order == ByteOrder::Big {
                dtype.swap(&mut buffer);
            }
            vec![(bytes(first), buffer)]
        }
        Encoding::Int8Groups { size } => {
            let mut scales = Vec::new();
            buffer.clear();
            let mut codes = vec![0i8; size as usize];
            for (x, back) in x.chunks(size as usize).zip(back.chunks_mut(size as usize)) {
                let scale = formats::container::llama2c::quantize_group(x, &mut codes);
                back.iter_mut().zip(&codes).for_each(|(b, &q)| *b = f32::from(q) * scale);
                buffer.extend(codes.iter().map(|&q| q as u8));
                scales.extend(order.le(scale.to_le_bytes()));
            }
            vec![(first, buffer), (t.elements() + first / u64::from(size) * 4, scales)]
        }
    };
    // Scales are halves at most: beyond their reach a weight is not rounded but cut off.
    let lost = |(x, y): (&f32, &f32)| !y.is_finite() || x.abs() > 65504.0 && (x - y).abs() > 0.5 * x.abs();
    if let Some(at) = x.iter().zip(&back).position(lost) {
        return Err(Error::refused(format!(
            "tensor {}: weight {} is {}, which {} cannot hold",
            t.name,
            first + at as u64,
            x[at],
            t.encoding.name(),
        ))
        .or(format!("use bf16 or f32 for it: --tensor '^{}$=bf16'", regex::escape(&t.name))));
    }
    Ok((writes, sums(x, &back)))
}

/// Sums of squared error and of squares, in lanes that are added up in a fixed order.
pub(crate) fn sums(x: &[f32], y: &[f32]) -> Outcome {
    const LANES: usize = 8;
    let (mut error, mut energy) = ([0f64; LANES], [0f64; LANES]);
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            let e = f64::from(x[i]) - f64::from(y[i]);
            error[i] += e * e;
            energy[i] += f64::from(x[i]) * f64::from(x[i]);
        }
    }
    let mut all = Outcome { error: error.iter().sum(), energy: energy.iter().sum() };
    for (&x, &y) in x_rest.iter().zip(y_rest) {
        let e = f64::from(x) - f64::from(y);
        all.add(Outcome { error: e * e, energy: f64::from(x) * f64::from(x) });
    }
    all
}
