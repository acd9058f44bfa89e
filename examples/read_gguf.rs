//! Prints what a model's files say: `cargo run --example read_gguf -- MODEL.gguf`. Any other format that ggufkit reads
//! works as well.

use ggufkit::{Options, Result, open};

fn main() -> Result<()> {
    let path = std::env::args().nth(1).expect("usage: read_gguf MODEL");
    let source = open(path.as_ref(), &Options::default())?;
    for (key, value) in source.model.metadata.iter().filter(|(_, v)| v.as_array().is_none()) {
        println!("{key} = {value:?}");
    }
    for t in &source.model.tensors {
        println!("{:40} {:8} {:?}", t.name, t.encoding.name(), t.shape);
    }
    Ok(())
}
