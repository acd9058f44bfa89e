//! Options for threads, memory and how a model is run.

use clap::{Args, ValueEnum};
use ggufkit::Result;
use ggufkit::resources::Limits;
use ggufkit::runner::KvType;
use ggufkit::text::parse_bytes;

/// The threads and memory that a command may use.
#[derive(Debug, Args)]
pub struct Resources {
    /// Number of threads [default: one per CPU core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Memory for weights in conversion and for activations during calibration, in addition to mapped files; at least
    /// about 128K per thread. Activations beyond this limit go to temporary files
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_bytes)]
    pub memory: u64,
}

impl Resources {
    /// These limits, as the library takes them.
    pub fn limits(&self) -> Limits {
        Limits { threads: self.threads.unwrap_or(0), memory: self.memory }
    }
}

fn threads(text: &str) -> std::result::Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=1024).contains(n))
        .ok_or_else(|| format!("{text:?} must be an integer from 1 to 1024"))
}

/// How a model is run.
#[derive(Debug, Args)]
pub struct Running {
    /// Number of threads [default: one per CPU core]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Compute with activations as f32 instead of rounding them to 8 bits as llama.cpp does
    #[arg(long)]
    pub exact: bool,
    /// Type of the KV cache [default: f16, or f32 with --exact]
    #[arg(long, value_name = "TYPE")]
    kv: Option<KvTypeName>,
    /// Batch size: tokens processed together
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
    /// The type of the KV cache.
    pub fn kv(&self) -> KvType {
        match self.kv {
            Some(cache) => cache.into(),
            None if self.exact => KvType::F32,
            None => KvType::F16,
        }
    }

    /// The batch size in tokens.
    pub fn batch(&self) -> usize {
        self.batch as usize
    }

    /// A thread pool of the size asked for.
    ///
    /// # Errors
    /// [`Error::Refused`](ggufkit::Error::Refused) if the threads cannot be started.
    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        Limits { threads: self.threads.unwrap_or(0), ..Limits::default() }.pool()
    }
}
