//! The parts of a Hugging Face checkpoint besides its weights: of one that was read, or is to be written.

use std::path::PathBuf;

use formats::block::DType;
use serde_json::{Value as Json, json};

use crate::arch::Config;

/// What is known of the checkpoint that a source was read from.
#[derive(Debug)]
pub struct Hub {
    /// The settings.
    pub config: Config,
    /// config.json.
    pub json: Json,
    /// Small files that are copied along with the weights: tokenizer, model card, license.
    pub companions: Vec<PathBuf>,
    /// Those of the model's notes that are about its vocabulary as a GGUF has it. They do not hold for a checkpoint, into
    /// which the tokenizer's files are copied.
    pub of_vocabulary: Vec<String>,
}

/// The files of a checkpoint besides its weights.
#[derive(Debug)]
pub struct Export {
    /// config.json without the type of the weights, which the plan decides.
    pub config: Json,
    /// Names and contents of the other files.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Export {
    /// The text of config.json for weights that are mostly of this type.
    pub fn config_json(&self, dtype: DType) -> Vec<u8> {
        let mut config = self.config.clone();
        let name = match dtype {
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::F64 => "float64",
            _ => "float32",
        };
        config["torch_dtype"] = json!(name);
        config["dtype"] = json!(name);
        format!("{config:#}\n").into_bytes()
    }
}
