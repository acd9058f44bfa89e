//! Options of `quantize` for sizes: what the result is to fit into.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use formats::block::DType;
use ggufkit::allocate::{Budget, Request};
use ggufkit::memory::Runtime;
use ggufkit::text::parse_bytes;
use ggufkit::{Error, Result};

use super::KvTypeName;
use super::types::{Prices, Types, prices, types};

/// What the result is to fit into.
#[derive(Debug, Args)]
pub struct Fitting {
    /// Choose every tensor's type so that the model runs in a machine with so much memory, 8G for one, and loses least
    #[arg(long, value_name = "RAM", value_parser = parse_bytes, conflicts_with_all = ["size", "bits_per_weight"])]
    pub fit: Option<u64>,
    /// The same for a file of at most so many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "bits_per_weight")]
    pub size: Option<u64>,
    /// The same for so many bits of tensor data for each weight
    #[arg(long, value_name = "X", value_parser = bits)]
    pub bits_per_weight: Option<f64>,
    /// Tokens of the context that is to fit; 4096 if not given, or the model's own if that is shorter
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub context: Option<u64>,
    /// How keys and values are kept; whichever of f16 and q8_0 loses least if not given
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<KvTypeName>,
    /// What is left to the system; half a GiB and a sixteenth of the memory if not given
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub reserve: Option<u64>,
    /// What is to run the model; both if not given
    #[arg(long, value_enum)]
    pub runtime: Option<Runner>,
    /// Types to choose from
    #[arg(long, value_name = "TYPES", value_parser = types)]
    pub types: Option<Types>,
    /// What types' losses are multiplied by before the choice, iq2_s=1.5,iq3_s=1.5 for a machine that is slow with these
    #[arg(long, value_name = "TYPE=X", value_parser = prices)]
    pub price: Option<Prices>,
    /// What errors in each matrix cost, as `sensitivity` measured it; with --calibration it is measured and kept there, if
    /// there is no such file. Guessed if not given
    #[arg(long, value_name = "FILE")]
    pub sensitivity: Option<PathBuf>,
    /// Keep the choice as a recipe
    #[arg(long, value_name = "FILE")]
    pub write_recipe: Option<PathBuf>,
}

/// What runs models.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Runner {
    /// llama.cpp, Ollama and what else is built on it
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// ggufkit
    Ggufkit,
    /// Either
    Both,
}

impl Runner {
    fn runtimes(self) -> &'static [Runtime] {
        match self {
            Self::LlamaCpp => &[Runtime::LlamaCpp],
            Self::Ggufkit => &[Runtime::Ggufkit],
            Self::Both => &[Runtime::LlamaCpp, Runtime::Ggufkit],
        }
    }
}

fn bits(text: &str) -> std::result::Result<f64, String> {
    let bits = text.parse().ok().filter(|b: &f64| b.is_finite() && *b > 0.0 && *b <= 32.0);
    bits.ok_or_else(|| format!("{text:?} is not a number of bits"))
}

impl Fitting {
    /// Whether anything is to be fitted.
    fn is_asked(&self) -> bool {
        self.fit.is_some() || self.size.is_some() || self.bits_per_weight.is_some()
    }

    /// Options that mean nothing alone.
    ///
    /// # Errors
    /// One of them.
    fn check(&self) -> Result<()> {
        let alone = [
            ("--types", self.types.is_some()),
            ("--price", self.price.is_some()),
            ("--sensitivity", self.sensitivity.is_some()),
            ("--write-recipe", self.write_recipe.is_some()),
        ];
        let of_memory = [
            ("--context", self.context.is_some()),
            ("--kv", self.kv.is_some()),
            ("--reserve", self.reserve.is_some()),
            ("--runtime", self.runtime.is_some()),
        ];
        if let Some((option, _)) = of_memory.iter().find(|o| o.1 && self.fit.is_none()) {
            return Err(Error::usage(format!("{option} is for fitting into memory")).or("--fit RAM"));
        }
        if let Some((option, _)) = alone.iter().find(|a| a.1 && !self.is_asked()) {
            return Err(Error::usage(format!("{option} is for fitting"))
                .or("say what to fit into: --fit RAM, --size BYTES or --bits-per-weight X"));
        }
        if self.types.as_ref().is_some_and(|Types(all)| all.contains(&DType::NVFP4)) {
            return Err(Error::usage("nvfp4 brings tensors of its own, and is not for fitting")
                .or("leave it out of --types; --type nvfp4 makes a model of it"));
        }
        Ok(())
    }

    /// The request, if anything is to be fitted.
    ///
    /// # Errors
    /// Options that mean nothing without it.
    pub fn request(&self) -> Result<Option<Request>> {
        self.check()?;
        let budget = match (self.fit, self.size, self.bits_per_weight) {
            (Some(ram), ..) => Budget::Ram(ram),
            (_, Some(size), _) => Budget::Size(size),
            (.., Some(bits)) => Budget::Bits(bits),
            (None, None, None) => return Ok(None),
        };
        Ok(Some(Request {
            context: self.context,
            kv: self.kv.map(Into::into),
            reserve: self.reserve,
            runtimes: self.runtime.unwrap_or(Runner::Both).runtimes().to_vec(),
            types: self.types.as_ref().map(|t| t.0.clone()),
            prices: self.price.as_ref().map_or_else(Vec::new, |p| p.0.clone()),
            sensitivity: self.sensitivity.clone(),
            write_recipe: self.write_recipe.clone(),
            ..Request::new(budget)
        }))
    }
}
