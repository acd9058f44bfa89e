//! Arguments that are lists of types.

use formats::block::DType;
use ggufkit::scheme;

/// Types, each once.
#[derive(Debug, Clone)]
pub struct Types(pub Vec<DType>);

/// Names between commas.
pub fn types(text: &str) -> Result<Types, String> {
    scheme::types(text).map(Types)
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
        let price = number.ok_or_else(|| format!("{price:?} must be a number above 0"))?;
        for dtype in types(name)?.0 {
            if all.iter().any(|a| a.0 == dtype) {
                return Err(format!("{} has two prices", dtype.name()));
            }
            all.push((dtype, price));
        }
    }
    if all.is_empty() { Err("no prices".into()) } else { Ok(Prices(all)) }
}
