//! `ggufkit logits`: writes the logits after given tokens, for comparing them with another program's.

use std::path::PathBuf;

use clap::Args;

use super::args::{Input, Running};
use super::{claim, print, shown};
use ggufkit::disk::Output;
use ggufkit::runner::{Network, Options, Run, State, forward};
use ggufkit::{Error, Result};

/// Writes the logits that a model computes after each of the given tokens, as a safetensors file with `ids` (i64,
/// `[tokens]`) and `logits` (f32, `[tokens, vocabulary]`).
#[derive(Debug, Args)]
pub struct Logits {
    #[command(flatten)]
    input: Input,
    /// Token ids, separated by commas (e.g. 1,15043,3186)
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// The safetensors file to write
    #[arg(value_name = "OUT.safetensors")]
    output: PathBuf,
    #[command(flatten)]
    running: Running,
}

/// The result.
const OUT: Output = Output::result("OUT", "a file of logits", "logits.safetensors");

impl Logits {
    pub fn run(self) -> Result<()> {
        let (source, run) = (self.input.open_to_run()?, &self.input.run);
        claim(run, &self.output, OUT)?;
        let (logits, vocab) = self.running.pool()?.install(|| -> Result<_> {
            let network = Network::new(&source, Options { exact: self.running.exact, isa: None })?;
            let mut state = State::new(&network, self.running.kv(), 1, self.ids.len())?;
            let mut logits = Vec::new();
            for tokens in self.ids.chunks(self.running.batch()) {
                let positions: Vec<usize> = (0..tokens.len()).collect();
                logits.extend(forward(&network, &mut state, &[Run { sequence: 0, tokens }], &positions)?);
            }
            Ok((logits, network.vocab()))
        })?;
        if logits.iter().any(|x| !x.is_finite()) {
            return Err(Error::refused("some logits are infinite or NaN")
                .or("the model's file may be damaged: check it with `ggufkit verify MODEL`"));
        }
        let (n, size) = (self.ids.len(), 4 * logits.len());
        let header = serde_json::json!({
            "ids": {"dtype": "I64", "shape": [n], "data_offsets": [0, 8 * n]},
            "logits": {"dtype": "F32", "shape": [n, vocab], "data_offsets": [8 * n, 8 * n + size]},
        });
        let mut header = header.to_string();
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(self.ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()));
        bytes.extend(logits.iter().flat_map(|x| x.to_le_bytes()));
        run.write_whole(&self.output, &bytes, OUT)?;
        print(&format!("{}: logits of {n} tokens over a vocabulary of {vocab}\n", shown(&self.output)))
    }
}
