//! Threads, memory, and how a model is run.

use clap::{Args, ValueEnum};
use ggufkit::Result;
use ggufkit::resources::Limits;
use ggufkit::runner::KvType;
use ggufkit::text::parse_bytes;

/// What a run may use.
#[derive(Debug, Args)]
pub struct Resources {
    /// Threads; one per core if not given
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Most memory for weights in flight, besides mapped files; at least some 128K for each thread. With --calibration, also
    /// for the text's vectors, of which more go to the disk
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_bytes)]
    pub memory: u64,
}

impl Resources {
    pub fn limits(&self) -> Limits {
        Limits { threads: self.threads.unwrap_or(0), memory: self.memory }
    }
}

fn threads(text: &str) -> std::result::Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=1024).contains(n))
        .ok_or_else(|| format!("{text:?} is not a number from 1 to 1024"))
}

/// How a model is run.
#[derive(Debug, Args)]
pub struct Running {
    /// Threads; one per core if not given
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Multiply weights with activations as floats, rather than as the 8-bit codes that llama.cpp uses
    #[arg(long)]
    pub exact: bool,
    /// How keys and values are kept: f16 if not given, f32 with --exact
    #[arg(long, value_name = "TYPE")]
    kv: Option<KvTypeName>,
    /// Tokens that are computed together
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
}

/// The type of the KV cache.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(non_camel_case_types)]
pub enum KvTypeName {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<KvTypeName> for KvType {
    fn from(name: KvTypeName) -> Self {
        match name {
            KvTypeName::F32 => Self::F32,
            KvTypeName::F16 => Self::F16,
            KvTypeName::Q8_0 => Self::Q8_0,
        }
    }
}

impl Running {
    /// How keys and values are kept.
    pub fn kv(&self) -> KvType {
        match self.kv {
            Some(cache) => cache.into(),
            None if self.exact => KvType::F32,
            None => KvType::F16,
        }
    }

    /// Tokens that are computed together.
    pub fn batch(&self) -> usize {
        self.batch as usize
    }

    /// The threads.
    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        Limits { threads: self.threads.unwrap_or(0), ..Limits::default() }.pool()
    }
}
