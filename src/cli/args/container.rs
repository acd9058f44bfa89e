//! Options for the output format, its byte order and the program that will read it.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, ValueEnum};
use formats::model::ByteOrder;
use ggufkit::machine::{MACHINES, Machine};
use ggufkit::plan::Container;
use ggufkit::text::{Table, visible};

/// A byte order.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Endian {
    /// Little-endian: x86, ARM, and nearly every published file
    Little,
    /// Big-endian: PowerPC, s390x, SPARC
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

/// An output format, for when the file name's extension does not determine it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FormatName {
    /// GGUF, the format of llama.cpp
    Gguf,
    /// safetensors, the format of Hugging Face
    Safetensors,
    /// The .bin format of karpathy/llama2.c
    Llama2c,
}

impl From<FormatName> for Container {
    fn from(f: FormatName) -> Self {
        match f {
            FormatName::Gguf => Self::Gguf,
            FormatName::Safetensors => Self::Safetensors,
            FormatName::Llama2c => Self::Llama2c,
        }
    }
}

/// A parser for the names of target machines; the help lists each with its description.
pub fn machines() -> impl TypedValueParser<Value = &'static Machine> {
    Machines
}

#[derive(Clone)]
struct Machines;

impl TypedValueParser for Machines {
    type Value = &'static Machine;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<&'static Machine, clap::Error> {
        let name = value.to_string_lossy();
        Machine::find(&name)
            .ok_or_else(|| clap::Error::raw(ErrorKind::InvalidValue, unknown(&name)).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue>>> {
        Some(Box::new(MACHINES.iter().map(|m| PossibleValue::new(m.name).help(m.description))))
    }
}

/// What a user is told who names a target machine that is not in the list: those that are near, and all of them.
fn unknown(name: &str) -> String {
    let name = visible(name);
    let near = Machine::near(&name);
    let mut text = match name.eq_ignore_ascii_case("list") {
        true => "--for takes the name of a program on a target machine\n".to_string(),
        false => format!("--for {name}: no target machine has this name\n"),
    };
    if !near.is_empty() {
        let near: Vec<_> = near.iter().map(|m| format!("{} ({})", m.name, m.description)).collect();
        text += &format!("\n  near: {}\n", near.join("; "));
    }
    let mut table = Table::new(&["target", "machine and program"]);
    MACHINES.iter().for_each(|m| table.row([m.name.to_string(), m.description.to_string()]));
    text + &format!("\n{table}")
}
