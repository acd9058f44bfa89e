//! What blocks of lattice points cost.

use formats::block::{DType, Effort, Encode, Objective};

use crate::{decode, encode_with};

/// Uniform numbers from -1 to 1.
fn noise(n: usize) -> Vec<f32> {
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The squared error relative to the energy, at each effort, without importances and with them.
fn losses(dtype: DType, x: &[[f32; 256]]) -> [[f64; 3]; 2] {
    let mut w = [0.0; 256];
    w.iter_mut().zip(noise(256)).for_each(|(w, n)| *w = (2.0 * n).exp());
    [None, Some(&w)].map(|w| {
        Effort::ALL.map(|(effort, _)| {
            let (mut lost, mut energy) = (0.0, 0.0);
            for x in x {
                let how = Encode { importance: w.map(|w| &w[..]), objective: Some(Objective::Error), effort };
                let y = decode(dtype, &encode_with(dtype, x, &how).unwrap());
                for j in 0..256 {
                    let w = w.map_or(1.0, |w| f64::from(w[j]));
                    lost += w * (f64::from(x[j]) - f64::from(y[j])).powi(2);
                    energy += w * f64::from(x[j]).powi(2);
                }
            }
            lost / energy
        })
    })
}

/// `most` is the largest loss that is accepted at normal effort for sums of uniform numbers: three percent above the measured
/// one.
fn check_losses(dtype: DType, most: f64) {
    let name = dtype.name();
    let noise = noise(4 * 256 * 16);
    let sums: Vec<f32> = noise.chunks(4).map(|n| 0.02 * n.iter().sum::<f32>()).collect();
    for losses in losses(dtype, sums.as_chunks::<256>().0) {
        println!("{name} {losses:.4?}");
        let [fast, normal, thorough] = losses;
        assert!(thorough <= normal && normal <= fast && fast <= 1.15 * thorough, "{name} {losses:?}");
        assert!(normal <= most, "{name} {losses:?}");
    }
}

#[test]
fn more_effort_loses_less() {
    check_losses(DType::IQ2_XXS, 0.1075);
    check_losses(DType::IQ2_XS, 0.0845);
    check_losses(DType::IQ2_S, 0.0575);
    check_losses(DType::IQ3_XXS, 0.0315);
    check_losses(DType::IQ3_S, 0.0167);
    check_losses(DType::IQ1_S, 0.194);
    check_losses(DType::IQ1_M, 0.171);
}
