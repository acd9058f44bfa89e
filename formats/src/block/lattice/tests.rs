//! The nearest points against a search through all of them, and what blocks of points cost.

use super::grid::{self, QuadList};
use super::nearest::{HalfCosts, LANES};
use super::*;
use crate::block::{DType, Effort, Encode, Objective, tests as shared};

/// Uniform numbers from -1 to 1.
fn noise(n: usize) -> Vec<f32> {
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn check_nearest<const D: usize, const L: usize>(walk: &QuadList, points: &[[u8; D]], levels: [u8; L]) {
    let mut seen = vec![false; points.len()];
    walk.points.iter().flatten().for_each(|p| seen[usize::from(*p)] = true);
    assert!(seen.iter().all(|s| *s));

    let noise = noise(200 * D * LANES * 2);
    let mut halves = HalfCosts::NEW;
    for sample in noise.chunks(D * LANES * 2) {
        let (mut x, mut w) = ([[0.0; LANES]; D], [[0.0; LANES]; D]);
        for j in 0..D {
            for l in 0..LANES {
                x[j][l] = sample[j * LANES + l] * (f32::from(levels[L - 1]) + 2.0);
                w[j][l] = sample[(D + j) * LANES + l].abs();
            }
        }
        let mut values = [[0.0; LANES]; L];
        for i in 0..L {
            values[i] = std::array::from_fn(|l| f32::from(levels[i]) * (0.6 + 0.1 * l as f32));
        }
        halves.fill(&x, &w, &values);
        let least = halves.least(walk);
        let (costs, found) = halves.nearest(walk);
        for l in 0..LANES {
            let cost = |p: &[u8; D]| -> f32 {
                let value = |j: usize| f32::from(p[j]) * (0.6 + 0.1 * l as f32);
                (0..D).map(|j| w[j][l] * (x[j][l] - value(j)).powi(2)).sum()
            };
            let all = points.iter().map(cost).fold(f32::INFINITY, f32::min);
            let near = |a: f32, tolerance: f32| (a - all).abs() <= tolerance * all;
            assert!(near(least[l], 1e-5) && near(costs[l], 2e-4), "{} {} {all}", least[l], costs[l]);
            assert!(near(cost(&points[usize::from(found[l])]), 2e-4));
        }
    }
}

#[test]
fn the_nearest_point_is_found() {
    check_nearest(&grid::IQ1_WALK, &grid::IQ1, [0, 1, 2]);
    check_nearest(&grid::IQ2_XXS_WALK, &grid::IQ2_XXS, grid::IQ2_LEVELS);
    check_nearest(&grid::IQ2_XS_WALK, &grid::IQ2_XS, grid::IQ2_LEVELS);
    check_nearest(&grid::IQ2_S_WALK, &grid::IQ2_S, grid::IQ2_LEVELS);
    check_nearest(&grid::IQ3_XXS_WALK, &grid::IQ3_XXS, grid::IQ3_XXS_LEVELS);
    check_nearest(&grid::IQ3_S_WALK, &grid::IQ3_S, grid::IQ3_S_LEVELS);
}

#[test]
fn eight_signs_have_an_even_number_of_minuses() {
    for seven in 0..128 {
        let signs = eight_signs(seven);
        assert_eq!(u32::from(signs) & 127, seven);
        assert_eq!(signs.count_ones() % 2, 0);
    }
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
                let y = shared::decode(dtype, &shared::encode_with(dtype, x, &how).unwrap());
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
