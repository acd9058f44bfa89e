//! Options of `quantize` that choose tensor types for a size budget.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use formats::block::DType;
use ggufkit::allocate::{Budget, Request, default_types};
use ggufkit::memory::Runtime;
use ggufkit::text::{listed, parse_bytes, parse_bytes_or_none};
use ggufkit::{Error, Result};

use super::KvTypeName;
use super::types::{Prices, Types, prices, types};

/// The size budget and what may be chosen to meet it.
#[derive(Debug, Args)]
pub struct SizeBudget {
    /// Choose tensor types so that the model fits in this much RAM (e.g. 8G) with the lowest predicted KL divergence
    #[arg(long, value_name = "RAM", value_parser = parse_bytes, conflicts_with_all = ["size", "bits_per_weight"])]
    pub fit: Option<u64>,
    /// Choose tensor types so that the file is at most this large (e.g. 4G)
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "bits_per_weight")]
    pub size: Option<u64>,
    /// Choose tensor types so that tensor data has at most this many bits per weight (e.g. 4.5)
    #[arg(long, value_name = "X", value_parser = bits)]
    pub bits_per_weight: Option<f64>,
    /// Context length in tokens that must fit with --fit [default: 4096, or the model's maximum if that is shorter]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub context: Option<u64>,
    /// Type of the KV cache with --fit [default: f16 or q8_0, whichever gives the lower predicted KL divergence]
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<KvTypeName>,
    /// RAM left for the operating system with --fit (e.g. 1G, or 0) [default: 0.5 GiB plus 1/16 of the RAM, at
    /// most half of it]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes_or_none)]
    pub reserve: Option<u64>,
    /// Program whose memory use must fit with --fit [default: both]
    #[arg(long, value_enum)]
    pub runtime: Option<Runner>,
    /// Quantization types to choose from, separated by commas (e.g. q4_k,q5_k,q6_k)
    #[arg(long, value_name = "TYPES", value_parser = types)]
    pub types: Option<Types>,
    /// Multiply the predicted loss of these types, so that they are chosen less often (e.g. iq2_s=1.5,iq3_s=1.5 where
    /// these types run slowly)
    #[arg(long, value_name = "TYPE=X", value_parser = prices)]
    pub price: Option<Prices>,
    /// Sensitivity of each matrix, as written by `ggufkit sensitivity`. With --calibration, a missing file is measured
    /// and written first. Without this option, sensitivities are estimated from those of typical models
    #[arg(long, value_name = "FILE")]
    pub sensitivity: Option<PathBuf>,
    /// Write the chosen types to this file as a recipe for --recipe
    #[arg(long, value_name = "FILE")]
    pub write_recipe: Option<PathBuf>,
}

/// The program that will run the model.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Runner {
    /// llama.cpp, Ollama and other programs built on llama.cpp
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// ggufkit's own runner (`ggufkit run`)
    Ggufkit,
    /// Both: the larger of the two memory uses must fit
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
    bits.ok_or_else(|| format!("{text:?} must be a number of bits above 0 and at most 32"))
}

impl SizeBudget {
    /// The size budget that was given, by its option.
    fn asked(&self) -> Option<&'static str> {
        match (self.fit, self.size, self.bits_per_weight) {
            (Some(_), ..) => Some("--fit"),
            (_, Some(_), _) => Some("--size"),
            (.., Some(_)) => Some("--bits-per-weight"),
            (None, None, None) => None,
        }
    }

    /// Checks that options that need a size budget have one, and that nothing else chooses the types. `chosen` are the
    /// options that do.
    ///
    /// # Errors
    /// [`Error::Usage`] with the options that have no effect or contradict each other.
    fn check(&self, chosen: &[&'static str]) -> Result<()> {
        let given = |options: &[(&'static str, bool)]| -> Vec<&'static str> {
            options.iter().filter(|o| o.1).map(|o| o.0).collect()
        };
        let (asked, need) = (self.asked(), |n: usize| if n > 1 { "need" } else { "needs" });
        let alone = given(&[
            ("--types", self.types.is_some()),
            ("--price", self.price.is_some()),
            ("--sensitivity", self.sensitivity.is_some()),
            ("--write-recipe", self.write_recipe.is_some()),
        ]);
        let of_memory = given(&[
            ("--context", self.context.is_some()),
            ("--kv", self.kv.is_some()),
            ("--reserve", self.reserve.is_some()),
            ("--runtime", self.runtime.is_some()),
        ]);
        if let (Some(asked), false) = (asked, chosen.is_empty()) {
            let mut own = vec![asked];
            own.extend(alone.iter().chain(&of_memory));
            // Options of memory mean nothing beside another budget than that.
            let mut other = chosen.to_vec();
            if self.fit.is_none() {
                other.extend(&of_memory);
            }
            let why =
                format!("{asked} chooses the types itself and cannot be combined with {}", listed(chosen));
            return Err(Error::usage(why).or(format!(
                "leave out {} (--tensor still sets single tensors); or leave out {}",
                listed(&other),
                listed(&own)
            )));
        }
        // What takes the place of the budget has to go if there is to be one.
        let instead = |of: &[&str]| match of {
            [] => String::new(),
            of => format!("leave out {} and ", listed(of)),
        };
        if self.fit.is_none() && !of_memory.is_empty() {
            let (options, needs) = (listed(&of_memory), need(of_memory.len()));
            let other: Vec<&str> = chosen.iter().copied().chain(asked).collect();
            let mut all = of_memory;
            if asked.is_none() {
                all.extend(alone);
            }
            return Err(Error::usage(format!(
                "{options} {needs} --fit, the memory that the model has to fit into"
            ))
            .or(format!(
                "{}add --fit RAM (e.g. --fit 8G); or leave out {}",
                instead(&other),
                listed(&all)
            )));
        }
        if asked.is_none() && !alone.is_empty() {
            let (options, needs) = (listed(&alone), need(alone.len()));
            return Err(Error::usage(format!("{options} {needs} a size budget")).or(format!(
                "{}add --fit RAM, --size BYTES or --bits-per-weight X; or leave out {options}",
                instead(chosen)
            )));
        }
        if self.types.as_ref().is_some_and(|Types(all)| all.contains(&DType::NVFP4)) {
            return Err(Error::usage(
                "--types cannot contain nvfp4, because it adds scale tensors whose size is not planned",
            )
            .or("leave nvfp4 out of --types, or use --type nvfp4 for the whole model"));
        }
        let types = self.types.as_ref().map_or_else(default_types, |t| t.0.clone());
        let prices = self.price.iter().flat_map(|price| &price.0);
        if let Some((idle, _)) = prices.into_iter().find(|(dtype, _)| !types.contains(dtype)) {
            let name = idle.name();
            return Err(Error::usage(format!(
                "--price {name}: has no effect, as {name} is not among the types to choose from"
            ))
            .or(format!("leave {name} out of --price, or name it in --types")));
        }
        Ok(())
    }

    /// The request, if a size budget was given. `chosen` are the options given that choose the types otherwise.
    ///
    /// # Errors
    /// [`Error::Usage`] for options that need a size budget and have none, and for a budget beside `chosen`.
    pub fn request(&self, chosen: &[&'static str]) -> Result<Option<Request>> {
        self.check(chosen)?;
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
