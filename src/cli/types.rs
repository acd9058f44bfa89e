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
        let Choice::To(dtype) = choice(name)? else {
            return Err(format!("{name:?} is no type to choose among"));
        };
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

/// Numbers for types, each once.
#[derive(Debug, Clone)]
pub struct Prices(pub Vec<(DType, f64)>);

/// `TYPE=X` between commas, X above 0.
pub fn prices(text: &str) -> Result<Prices, String> {
    let mut all: Vec<(DType, f64)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, price) = part.split_once('=').ok_or_else(|| format!("{part:?} is not TYPE=X"))?;
        let number = price.trim().parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
        let price = number.ok_or_else(|| format!("{price:?} is no number above 0"))?;
        for dtype in types(name)?.0 {
            if all.iter().any(|a| a.0 == dtype) {
                return Err(format!("{} has two prices", dtype.name()));
            }
            all.push((dtype, price));
        }
    }
    if all.is_empty() { Err("no prices".into()) } else { Ok(Prices(all)) }
}
