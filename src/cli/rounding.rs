//! How weights are rounded, as the command line says it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use formats::block::{Effort, Objective};

use crate::disk::InFile;
use crate::error::Result;
use crate::plan::rounding;

/// How weights are rounded.
#[derive(Debug, Args)]
pub struct Rounding {
    /// What makes the model's inputs large, as llama-imatrix measured it (a .gguf or .dat): errors count more in the
    /// columns that it says
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// How hard to look for the best scales of a block
    #[arg(long, value_name = "EFFORT", value_parser = effort, default_value = "normal")]
    effort: Effort,
    /// What scales make least; each type's own choice if not given
    #[arg(long, value_enum)]
    objective: Option<Least>,
}

/// What is made least.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Least {
    /// The squared error
    Error,
    /// The squared error, with larger weights counting more
    Prior,
}

fn effort(name: &str) -> std::result::Result<Effort, String> {
    Effort::ALL.iter().find(|e| e.1 == name).map(|e| e.0).ok_or_else(|| {
        let names: Vec<_> = Effort::ALL.iter().map(|e| e.1).collect();
        format!("{name:?} is not one of {}", names.join(", "))
    })
}

impl Rounding {
    /// With the statistics read. `no_mmap` reads them in one piece instead of mapping.
    pub fn wishes(&self, no_mmap: bool) -> Result<rounding::Rounding> {
        let importance = match &self.imatrix {
            Some(path) => {
                let file = InFile::open(path, !no_mmap)?;
                Some(calibration::imatrix::read(file.name(), &file.read(0, file.len)?)?)
            }
            None => None,
        };
        let objective = self.objective.map(|least| match least {
            Least::Error => Objective::Error,
            Least::Prior => Objective::Prior,
        });
        Ok(rounding::Rounding { importance, objective, effort: self.effort })
    }
}
