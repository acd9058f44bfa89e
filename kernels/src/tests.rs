#[path = "../tests/common/mod.rs"]
mod common;

use super::*;
use common::numbers;

#[test]
fn every_instruction_set_gives_the_same_sums() {
    let (x, y) = (numbers(1000, 1), numbers(1000, 2));
    let portable = sums_on(Isa::PORTABLE, &x, &y);
    let error: f64 = x.iter().zip(&y).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    let energy: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    assert!((portable.0 / error - 1.0).abs() < 1e-12 && (portable.1 / energy - 1.0).abs() < 1e-12);
    for isa in Isa::all() {
        assert_eq!(sums_on(isa, &x, &y), portable, "{}", isa.name());
        for at in [0, 7, 500, 999] {
            for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let mut z = y.clone();
                z[at] = odd;
                assert!(!sums_on(isa, &x, &z).0.is_finite());
                assert!(!sums_on(isa, &z, &x).1.is_finite());
            }
            let mut z = y.clone();
            z[at] = f32::MAX;
            assert!(sums_on(isa, &x, &z).0.is_finite());
        }
    }
}
