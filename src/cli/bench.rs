//! `ggufkit bench`: the speed of prompt processing and generation.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Input, Running};
use super::json::print_json;
use super::{print, shown};
use ggufkit::Result;
use ggufkit::runner::bench::{Plan, Spread, measure};
use ggufkit::runner::{Network, Options};
use ggufkit::text::bytes as human_bytes;

/// Measures prompt processing, generation, and plain reading of the weights in turn.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(flatten)]
    input: Input,
    /// Prompt length in tokens; 0 skips prompt processing
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    prompt: u32,
    /// Number of tokens to generate; 0 skips generation
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    generate: u32,
    /// Number of measurements; the median, minimum and maximum are shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    repeats: u32,
    #[command(flatten)]
    running: Running,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let source = self.input.open_to_run()?;
        self.running.pool()?.install(|| {
            let network = Network::new(&source, Options { exact: self.running.exact, isa: None })?;
            let plan = Plan {
                prompt: self.prompt as usize,
                generate: self.generate as usize,
                repeats: self.repeats.max(1) as usize,
                batch: self.running.batch(),
                kv: self.running.kv(),
            };
            let bar = ProgressBar::new(2 * plan.repeats as u64);
            let style = "{bar:30} {pos}/{len}  {eta} left";
            bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
            let found = measure(&network, plan, &|| bar.inc(1));
            bar.finish_and_clear();
            self.input.run.unchanged()?;
            let found = found?;
            if self.json {
                return print_json(&found);
            }
            let mut text = format!(
                "{}\n{} of weights, {} threads, {}\n\n",
                shown(&source.path),
                human_bytes(found.weight_bytes),
                rayon::current_num_threads(),
                network.isa.name(),
            );
            let mut line = |name: &str, s: Option<Spread>, unit: &str, scale: f64| {
                let Some(s) = s else { return };
                let (median, min, max) = (s.median * scale, s.min * scale, s.max * scale);
                text += &format!("  {name:<30} {median:>9.2} {unit:<10} {min:.2} to {max:.2}\n");
            };
            line(
                &format!("prompt processing, {} tokens", self.prompt),
                found.prompt_tokens_per_second,
                "tokens/s",
                1.0,
            );
            line("time to first token", found.seconds_to_first_token, "s", 1.0);
            line(
                &format!("generation, {} tokens", self.generate),
                found.generate_tokens_per_second,
                "tokens/s",
                1.0,
            );
            line("weights read meanwhile", found.weight_bytes_per_second, "GB/s", 1e-9);
            line("plain reading", Some(found.read_bytes_per_second), "GB/s", 1e-9);
            if let Some(w) = found.weight_bytes_per_second {
                let share = 100.0 * w.median / found.read_bytes_per_second.median;
                text += &format!("  {:<30} {share:>9.1} %\n", "share of plain reading");
            }
            if let (Some(own), Some(all)) = (found.peak_own_bytes, found.peak_resident_bytes) {
                text += &format!(
                    "  {:<30} {} allocated, {} with mapped files\n",
                    "memory",
                    human_bytes(own),
                    human_bytes(all)
                );
            }
            print(&text)
        })
    }
}
