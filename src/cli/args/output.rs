//! What may be done to files that are there already.

use clap::Args;

/// What may be done to files that are there already.
#[derive(Debug, Args)]
pub struct Output {
    /// Replace the checkpoint in a folder with all that belongs to it: weights, settings, tokenizer, chat templates. A
    /// single file is always replaced
    #[arg(long)]
    pub overwrite: bool,
}
