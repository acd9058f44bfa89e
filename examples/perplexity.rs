//! The perplexity of a model on a text, by llama.cpp's protocol: `cargo run --release --example perplexity -- MODEL
//! TEXT`.

use ggufkit::evaluate::{Cut, CutNames, Evaluation, Reference, cut};
use ggufkit::runner::{KvType, Network, Options as RunOptions};
use ggufkit::tokenizer::{Text, tokenizer_of};
use ggufkit::{Options, Result, open};

fn main() -> Result<()> {
    let [model, text] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("usage: perplexity MODEL TEXT");
    let source = open(model.as_ref(), &Options::default())?;
    let names = CutNames::usual(&text);
    let text = Text::read(&source.run, text.as_ref(), &tokenizer_of(&source)?)?;
    let chunks = cut(&text.tokens, text.first, Cut { context: 256, chunks: None, stride: None }, names)?;
    let network = Network::new(&source, RunOptions::default())?;
    let kv = KvType::F16;
    let evaluation =
        Evaluation { models: vec![(&network, kv)], reference: Reference::None, kv, batch: 512, record: None };
    let found = evaluation.run(&chunks, &mut |_| ())?;
    let summary = found.models[0].summary().expect("a text of several chunks");
    println!("perplexity {:.4}", summary.perplexity.value);
    Ok(())
}
