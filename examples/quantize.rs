//! Quantizes a model, as the command line does: `cargo run --release --example quantize -- IN OUT.gguf q4_k_m`.

use ggufkit::pipeline::{Order, run};
use ggufkit::plan::PlanOptions;
use ggufkit::{Result, scheme};

fn main() -> Result<()> {
    let [input, out, name] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().expect("usage: quantize IN OUT SCHEME");
    let scheme = Some(scheme::find(&name).expect("the name of a scheme, such as q4_k_m"));
    let plan = PlanOptions { out: out.into(), scheme, ..PlanOptions::default() };
    let report = run(&Order { input: input.into(), plan, ..Order::default() }, &())?;
    println!("{} tensors in {:.1} s", report.outcomes.len(), report.elapsed.as_secs_f64());
    Ok(())
}
