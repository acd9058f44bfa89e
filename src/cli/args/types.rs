//! Options that are lists of quantization types.

use formats::block::DType;
use ggufkit::scheme;

/// Quantization types without duplicates.
#[derive(Debug, Clone)]
pub struct Types(pub Vec<DType>);

/// Parses type names separated by commas.
pub fn types(text: &str) -> Result<Types, String> {
    scheme::types(text).map(Types)
}

/// A factor for each type, without duplicate types.
#[derive(Debug, Clone)]
pub struct Prices(pub Vec<(DType, f64)>);

/// Parses `TYPE=X` pairs separated by commas; X must be above 0.
pub fn prices(text: &str) -> Result<Prices, String> {
    let mut all: Vec<(DType, f64)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, price) =
            part.split_once('=').ok_or_else(|| format!("{part:?} must have the form TYPE=X"))?;
        let number = price.trim().parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
        let price = number
            .ok_or_else(|| format!("the factor in TYPE=X must be a number above 0 (found {price:?})"))?;
        for dtype in types(name)?.0 {
            if all.iter().any(|a| a.0 == dtype) {
                return Err(format!("{} appears twice", dtype.name()));
            }
            all.push((dtype, price));
        }
    }
    if all.is_empty() { Err("the list is empty".into()) } else { Ok(Prices(all)) }
}
