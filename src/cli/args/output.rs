//! What may be done to files that are there already.

use clap::Args;

/// What may be done to files that are there already.
#[derive(Debug, Args)]
pub struct Output {
    /// Replace the checkpoint in a folder: its weights, settings and whatever else has the name of a new file. A single file is
    /// always replaced
    #[arg(long)]
    pub overwrite: bool,
}
