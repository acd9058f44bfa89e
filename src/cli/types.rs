//! Lists of types.

use formats::block::DType;

use crate::plan::Choice;
use crate::plan::scheme::choice;

/// What llama.cpp and all that is built on it have had for long, and what pays somewhere.
pub const USUAL: &str = "iq1_s,iq1_m,iq2_xxs,iq2_xs,iq2_s,q2_k,iq3_xxs,iq3_s,q3_k,iq4_xs,iq4_nl,q4_0,q4_1,q4_k,q5_0,q5_1,\
                         q5_k,q6_k,q8_0,f16";

/// Types, each once.
#[derive(Debug, Clone)]
pub struct Types(pub Vec<DType>);

/// Names between commas.
pub fn types(text: &str) -> Result<Types, String> {
    let mut all = Vec::new();
    for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let Choice::To(dtype) = choice(name)? else { return Err(format!("{name:?} is no type")) };
        if !all.contains(&dtype) {
            all.push(dtype);
        }
    }
    if all.is_empty() { Err("no types".into()) } else { Ok(Types(all)) }
}

/// [`USUAL`], as types.
pub fn usual() -> Types {
    types(USUAL).expect("these are types")
}
