//! Options that several commands share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use formats::model::ByteOrder;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use regex::Regex;

use crate::error::{Error, Result};
use crate::machine::{MACHINES, Machine};
use crate::pipeline::Limits;
use crate::plan::edit::{Edit, key_value};
use crate::plan::scheme::{self, Scheme};
use crate::plan::{self, Choice, Target};
use crate::quantize::Watcher;
use crate::report::parse_bytes;
use crate::runner::CacheKind;
use crate::source;

/// Where a model comes from.
#[derive(Debug, Args)]
pub struct Input {
    /// A folder as it comes from a hub, a .gguf (any part of a split), a .safetensors, or a llama2.c .bin
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The tokenizer.bin that belongs to a llama2.c checkpoint
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// The name in GGUF of a checkpoint's pre-tokenizer, where ggufkit does not recognise it
    #[arg(long, value_name = "NAME")]
    pub pre_tokenizer: Option<String>,
    /// Read in pieces instead of mapping: for network drives and files that may change
    #[arg(long)]
    pub no_mmap: bool,
}

impl Input {
    /// The model, under GGUF's names.
    pub fn open(&self) -> Result<source::Source> {
        source::Source::open(&self.input, &self.options(false))
    }

    /// Another model, opened in the same way.
    pub fn open_other(&self, path: &Path) -> Result<source::Source> {
        source::Source::open(path, &self.options(false))
    }

    /// The model with the names and the order that its files have.
    pub fn open_as_filed(&self) -> Result<source::Source> {
        source::Source::open(&self.input, &self.options(true))
    }

    /// The model for a result that is to have the same tensors: under GGUF's names if it is a GGUF or a llama2.c
    /// checkpoint, which nothing runs under others; else as its files have them.
    pub fn open_for(&self, out: &Path) -> Result<source::Source> {
        let ending = out.extension().unwrap_or_default();
        let as_filed = plan::is_folder(out) || ending.eq_ignore_ascii_case("safetensors");
        source::Source::open(&self.input, &self.options(as_filed))
    }

    fn options(&self, as_filed: bool) -> source::Options {
        source::Options {
            no_mmap: self.no_mmap,
            tokenizer: self.tokenizer.clone(),
            pre_tokenizer: self.pre_tokenizer.clone(),
            as_filed,
        }
    }
}

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
    kv: Option<Cache>,
    /// Tokens that are computed together
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
}

/// A kind of cache.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(non_camel_case_types)]
pub enum Cache {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<Cache> for CacheKind {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::F32 => Self::F32,
            Cache::F16 => Self::F16,
            Cache::Q8_0 => Self::Q8_0,
        }
    }
}

impl Running {
    /// How keys and values are kept.
    pub fn kv(&self) -> CacheKind {
        match self.kv {
            Some(cache) => cache.into(),
            None if self.exact => CacheKind::F32,
            None => CacheKind::F16,
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

/// Changes of metadata.
#[derive(Debug, Args)]
pub struct Edits {
    /// Set a metadata value: KEY=7, KEY=f32:1e-5, KEY=str:text, KEY='[str]:["a","b"]'. Types: u8 i8 u16 i16 u32 i32
    /// u64 i64 f32 f64 bool str, and arrays of them in brackets with a JSON array; without one, the type that the key
    /// has already
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

impl Edits {
    pub fn list(&self) -> Vec<Edit> {
        self.set.iter().map(|(k, v)| Edit::Set(k.clone(), v.clone())).collect()
    }
}

/// A byte order.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Endian {
    /// x86, ARM, nearly every published file
    Little,
    /// PowerPC, s390x, SPARC
    Big,
}

impl From<Endian> for ByteOrder {
    fn from(e: Endian) -> Self {
        match e {
            Endian::Little => Self::Little,
            Endian::Big => Self::Big,
        }
    }
}

/// A container, where the ending of the name does not tell.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatName {
    /// llama.cpp's
    Gguf,
    /// Hugging Face's
    Safetensors,
    /// karpathy/llama2.c's .bin
    Llama2c,
}

impl From<FormatName> for Target {
    fn from(f: FormatName) -> Self {
        match f {
            FormatName::Gguf => Self::Gguf,
            FormatName::Safetensors => Self::Safetensors,
            FormatName::Llama2c => Self::Llama2c,
        }
    }
}

/// The names of machines, with what they are.
pub fn machines() -> impl TypedValueParser<Value = &'static Machine> {
    let value = |m: &'static Machine| PossibleValue::new(m.name).help(m.what);
    PossibleValuesParser::new(MACHINES.iter().map(value))
        .map(|name| Machine::find(&name).expect("the parser lets names of machines through"))
}

/// A scheme's name, or `keep`.
pub fn scheme_or_keep(name: &str) -> std::result::Result<Option<Arc<Scheme>>, String> {
    if name.eq_ignore_ascii_case("keep") { Ok(None) } else { find_scheme(name).map(Some) }
}

/// A scheme's name.
pub fn find_scheme(name: &str) -> std::result::Result<Arc<Scheme>, String> {
    scheme::find(name).ok_or_else(|| {
        if let Some(why) = scheme::for_activations(name) {
            return why;
        }
        let names = scheme::all().iter().flat_map(|s| s.aliases.iter().chain([&s.name]));
        let names: Vec<_> = names.map(String::as_str).collect();
        format!("there is no scheme {name:?}; there are {}", names.join(", "))
    })
}

/// "REGEX=TYPE".
pub fn tensor_rule(text: &str) -> std::result::Result<(Regex, Choice), String> {
    let (pattern, name) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} is not REGEX=TYPE"))?;
    Ok((Regex::new(pattern).map_err(|e| e.to_string())?, scheme::choice(name)?))
}

/// A bar on stderr, if that is a terminal.
pub struct Progress {
    bar: ProgressBar,
    /// When the first layer that was not there already began, and which it was.
    start: OnceLock<(Instant, usize)>,
}

impl Progress {
    pub fn new(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let style = "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, start: OnceLock::new() }
    }

    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watcher for Progress {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn layers(&self, done: usize, of: usize) {
        let (start, first) = *self.start.get_or_init(|| (Instant::now(), done));
        let left = match done - first {
            0 => String::new(),
            n => {
                let left = start.elapsed().mul_f64((of - done) as f64 / n as f64);
                format!(", {} left", HumanDuration(left))
            }
        };
        if done == of {
            let style = "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}";
            self.bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
            return;
        }
        let style = "{bar:30} {binary_bytes}/{binary_total_bytes}  {msg}";
        self.bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
        self.bar.set_message(format!("layer {} of {of}{left}", done + 1));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}

/// A bar on stderr that counts layers; `rest` is what stands behind the count.
pub fn layers_bar(layers: usize, rest: &str) -> ProgressBar {
    let bar = ProgressBar::new(layers as u64);
    let style = format!("{{bar:30}} {{pos}}/{{len}} layers  {rest}");
    bar.set_style(ProgressStyle::with_template(&style).expect("the template is valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Refuses to write over something that is read in the same run.
///
/// # Errors
/// It is one of them.
pub fn apart<'a>(out: &Path, read: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let real = |p: &Path| std::fs::canonicalize(p).ok();
    let own = real(out);
    match read.into_iter().find(|p| own.is_some() && real(p) == own || *p == out) {
        Some(path) => {
            Err(Error::usage(format!("{} is read in this run", path.display())).or("write to another file"))
        }
        None => Ok(()),
    }
}

/// The files of a model.
pub fn files(source: &source::Source) -> impl Iterator<Item = &Path> {
    source.files.iter().map(|f| &*f.path).chain(source.beside.iter().map(|p| &**p))
}

/// Two options that exclude each other where clap does not see it.
pub fn usage(why: impl Into<String>) -> Error {
    Error::usage(why.into())
}
