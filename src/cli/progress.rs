//! Progress bars on standard error, if that is a terminal.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ggufkit::resources::Watcher;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

const BYTES: &str = "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
const LAYERS: &str = "{bar:30} layer {pos} of {len}  {elapsed}{msg}";
const CHUNKS: &str = "{bar:30} {pos}/{len} chunks  {eta} left";

/// A progress bar for the work at hand, in bytes, layers or chunks.
#[derive(Default)]
pub struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    bar: Option<(ProgressBar, &'static str)>,
    /// Bytes written so far.
    bytes: u64,
    total: u64,
    /// When the first layer of this run began, and its number: earlier layers may come from a resumed run.
    start: Option<(Instant, usize)>,
}

impl State {
    /// The bar in this style; a bar in another style is replaced.
    fn bar(&mut self, style: &'static str, of: u64) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|b| b.1 != style) {
            self.clear();
            let bar = ProgressBar::new(of);
            bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
            // A thread moves the bar; where there may be no more threads, it moves when there is progress.
            if !bar.is_hidden() && std::thread::Builder::new().spawn(|| {}).is_ok() {
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            self.bar = Some((bar, style));
        }
        &self.bar.as_ref().expect("it was just made").0
    }

    fn clear(&mut self) {
        if let Some((bar, _)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress {
    /// A progress display that shows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with the lock")
    }
}

impl Watcher for Progress {
    fn total(&self, bytes: u64) {
        self.state().total = bytes;
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.state();
        state.bytes += bytes;
        // A bar of layers is more informative than one of bytes, so it stays.
        if state.bar.as_ref().is_none_or(|b| b.1 != LAYERS) {
            let (done, total) = (state.bytes, state.total);
            state.bar(BYTES, total).set_position(done);
        }
    }

    fn layers(&self, done: usize, of: usize) {
        let mut state = self.state();
        let (start, first) = *state.start.get_or_insert_with(|| (Instant::now(), done));
        let left = match done.saturating_sub(first) {
            0 => String::new(),
            n => {
                let left = start.elapsed().mul_f64(of.saturating_sub(done) as f64 / n as f64);
                format!(", {} left", HumanDuration(left))
            }
        };
        let bar = state.bar(LAYERS, of as u64);
        bar.set_position(done as u64);
        bar.set_message(left);
        if done == of {
            state.start = None;
            state.clear();
        }
    }

    fn chunks(&self, done: usize, of: usize) {
        self.state().bar(CHUNKS, of as u64).set_position(done as u64);
    }

    fn finished(&self) {
        let mut state = self.state();
        state.clear();
        (state.start, state.bytes) = (None, 0);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finished();
    }
}
