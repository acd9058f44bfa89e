//! The nearest points against a search through all of them.

use super::grid::{self, QuadList};
use super::nearest::{HalfCosts, LANES};
use super::*;

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
