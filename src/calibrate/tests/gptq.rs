use formats::block::{DType, Encode};

use super::*;
use crate::calibrate::gptq::{
    FactoredHessian, Fit, HeldOutLoss, Regularization, dot, feed_back_blocks, multiply,
};
use crate::calibrate::gram::Gram;
use kernels::{self, Isa};

fn loss(isa: Isa, weights: &[f32], values: &[f32], held_out: &Gram) -> f64 {
    HeldOutLoss::new(isa, weights, held_out).loss(values)
}

fn target(
    isa: Isa,
    weights: &[f32],
    gram: &Gram,
    held_out: &Gram,
    hessian: &FactoredHessian,
) -> (Vec<f32>, f64) {
    HeldOutLoss::new(isa, weights, held_out).target(weights, gram, hessian)
}

const DAMPING: f32 = 0.01;
const REGULARIZATION: Regularization = Regularization { damping: DAMPING, shrinkage: 0.0 };

/// Sums over inputs of two models that differ a little.
fn grams(random: &mut Random, tokens: usize, n: usize, asymmetric: bool) -> Gram {
    let x = inputs(random, tokens, n);
    let original: Vec<f32> =
        x.iter().zip(numbers(random, x.len())).map(|(x, e)| 1.05 * x + 0.05 * e).collect();
    let mut gram = Gram::new(n, asymmetric);
    gram.add(Isa::current(), &x, asymmetric.then_some(&original));
    gram.symmetrize();
    gram
}

/// H with what is added to its diagonal.
fn damped(gram: &Gram) -> Vec<f64> {
    let n = gram.width;
    let mut h: Vec<f64> = gram.h.iter().map(|x| f64::from(*x)).collect();
    let mean = (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
    (0..n).for_each(|i| h[i * n + i] += f64::from(DAMPING) * mean);
    h
}

/// Σ e·H·eᵀ over the rows of q − w; H is symmetric, so half of it says all.
fn error(q: &[f32], w: &[f32], h: &[f64], n: usize) -> f64 {
    let off: Vec<f64> = q.iter().zip(w).map(|(q, w)| f64::from(*q) - f64::from(*w)).collect();
    off.chunks(n)
        .map(|e| {
            let row = |i: usize| {
                let h = &h[i * n..][..n];
                let beyond: f64 = h[i + 1..].iter().zip(&e[i + 1..]).map(|(h, e)| h * e).sum();
                e[i] * (h[i] * e[i] + 2.0 * beyond)
            };
            (0..n).map(row).sum::<f64>()
        })
        .sum()
}

/// Each block by itself, columns weighted by the inputs' mean squares.
fn search(dtype: DType, w: &[f32], means: &[f32]) -> Vec<f32> {
    let codec = kernels::codec(dtype).unwrap();
    let mut out = vec![0f32; w.len()];
    for (w, out) in w.chunks(means.len()).zip(out.chunks_mut(means.len())) {
        let mut bytes = vec![0; dtype.bytes_for(w.len() as u64).unwrap() as usize];
        codec.encode(w, &Encode { importance: Some(means), ..Encode::default() }, &mut bytes);
        codec.decode(&bytes, out);
    }
    out
}

fn decode(dtype: DType, bytes: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![0f32; n];
    kernels::codec(dtype).unwrap().decode(bytes, &mut out);
    out
}

#[test]
fn sums_over_inputs_are_those_of_the_definition() {
    let (n, isa) = (37, Isa::current());
    let mut random = Random::new(1);
    let (x, original) = (numbers(&mut random, 50 * n), numbers(&mut random, 50 * n));
    for (cut, asymmetric) in [(50, true), (13, true), (1, false)] {
        let mut gram = Gram::new(n, asymmetric);
        for (x, o) in x.chunks(cut * n).zip(original.chunks(cut * n)) {
            gram.add(isa, x, asymmetric.then_some(o));
        }
        gram.symmetrize();
        assert_eq!((gram.tokens, gram.yx.is_empty()), (50, !asymmetric));
        let means = gram.mean_squares();
        for i in 0..n {
            for j in 0..n {
                let sum = |f: &dyn Fn(usize) -> f64| (0..50).map(f).sum::<f64>();
                let at = |x: &[f32], t: usize, i: usize| f64::from(x[t * n + i]);
                let h = sum(&|t| at(&x, t, i) * at(&x, t, j));
                assert!((f64::from(gram.h[i * n + j]) - h).abs() < 1e-4, "{i} {j}");
                if asymmetric {
                    let more = sum(&|t| (at(&original, t, i) - at(&x, t, i)) * at(&x, t, j));
                    assert!((f64::from(gram.yx[i * n + j]) - more).abs() < 1e-4, "{i} {j}");
                }
            }
        }
        for (i, mean) in means.iter().enumerate() {
            assert!((mean * 50.0 - gram.h[i * n + i]).abs() < 1e-4);
        }
    }
}

#[test]
fn sums_of_scaled_inputs_are_scaled_sums() {
    let (n, isa) = (20, Isa::current());
    let mut random = Random::new(2);
    let (x, original) = (numbers(&mut random, 30 * n), numbers(&mut random, 30 * n));
    let s: Vec<f32> = (0..n).map(|_| (2.0 * random.unit() - 1.0).exp() as f32).collect();
    let scaled = |x: &[f32]| -> Vec<f32> { x.iter().enumerate().map(|(i, x)| x / s[i % n]).collect() };
    let (mut a, mut b) = (Gram::new(n, true), Gram::new(n, true));
    a.add(isa, &x, Some(&original));
    b.add(isa, &scaled(&x), Some(&scaled(&original)));
    a.symmetrize();
    b.symmetrize();
    a.divide(&s);
    assert!(distance(&a.h, &b.h) < 1e-5 && distance(&a.yx, &b.yx) < 1e-5);
    // Parts add up.
    let (mut first, mut second) = (Gram::new(n, true), Gram::new(n, true));
    first.add(isa, &scaled(&x)[..7 * n], Some(&scaled(&original)[..7 * n]));
    second.add(isa, &scaled(&x)[7 * n..], Some(&scaled(&original)[7 * n..]));
    first.merge(&second);
    first.symmetrize();
    assert!(first.tokens == 30 && distance(&first.h, &b.h) < 1e-5 && distance(&first.yx, &b.yx) < 1e-5);
}

/// b·H⁻¹, by elimination with pivots.
fn solve(b: &[f64], h: &[f64]) -> Vec<f64> {
    let n = b.len();
    // H is symmetric: b·H⁻¹ is H⁻¹·b.
    let mut rows: Vec<Vec<f64>> = (0..n).map(|i| [&h[i * n..(i + 1) * n], &[b[i]]].concat()).collect();
    for k in 0..n {
        let best = (k..n).max_by(|&a, &b| rows[a][k].abs().total_cmp(&rows[b][k].abs())).unwrap();
        rows.swap(k, best);
        let pivot = rows[k].clone();
        for row in &mut rows[k + 1..] {
            let by = row[k] / pivot[k];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= by * p);
        }
    }
    let mut x = vec![0.0; n];
    for k in (0..n).rev() {
        let sum: f64 = (k + 1..n).map(|j| rows[k][j] * x[j]).sum();
        x[k] = (rows[k][n] - sum) / rows[k][k];
    }
    x
}

#[test]
fn targets_make_up_for_other_inputs() {
    let isa = Isa::current();
    let mut random = Random::new(3);
    for (n, rows, sorted) in [(5, 3, true), (40, 7, false), (131, 4, true)] {
        let (gram, held_out) = (grams(&mut random, 3 * n, n, true), grams(&mut random, 2 * n, n, true));
        let w = numbers(&mut random, rows * n);
        let hessian = FactoredHessian::new(isa, &gram, REGULARIZATION, sorted);
        assert_eq!(hessian.mean_squares, gram.mean_squares());
        let (found, s) = target(isa, &w, &gram, &held_out, &hessian);
        let h = damped(&gram);
        let product = |row: &[f64], m: &[f32]| -> Vec<f64> {
            (0..n).map(|j| (0..n).map(|i| row[i] * f64::from(m[i * n + j])).sum()).collect()
        };
        let (mut along, mut curve, mut steps) = (0.0, 0.0, Vec::new());
        for w in w.chunks(n) {
            let w: Vec<f64> = w.iter().map(|x| f64::from(*x)).collect();
            let step = solve(&product(&w, &gram.yx), &h);
            let dot = |a: &[f64]| a.iter().zip(&step).map(|(a, b)| a * b).sum::<f64>();
            along += dot(&product(&w, &held_out.yx));
            curve += dot(&product(&step, &held_out.h));
            steps.extend(step);
        }
        let wanted = (along / curve).clamp(0.0, 1.0);
        assert!((s - wanted).abs() < 1e-3 && s > 0.0, "{n}: {s} {wanted}");
        let wanted: Vec<f32> = w.iter().zip(&steps).map(|(w, x)| (f64::from(*w) + s * x) as f32).collect();
        assert!(distance(&found, &wanted) < 1e-3, "{n}: {}", distance(&found, &wanted));
        // That is what the loss is of: less than of the weights themselves, of which it is none.
        assert!(loss(isa, &w, &w, &held_out) == 0.0 && loss(isa, &w, &found, &held_out) < 0.0);

        // Where there is one model, or the two are the same, weights stay.
        let one = Gram { h: gram.h.clone(), tokens: gram.tokens, ..Gram::new(n, false) };
        assert_eq!(target(isa, &w, &one, &one, &hessian), (w.clone(), 0.0));
        let none = Gram { yx: vec![0.0; n * n], ..one };
        assert_eq!(target(isa, &w, &none, &none, &hessian).0, w);
    }
}

#[test]
fn losses_are_those_of_the_definition() {
    let (n, rows, isa) = (33, 6, Isa::current());
    let mut random = Random::new(4);
    let x = inputs(&mut random, 40, n);
    let original: Vec<f32> = x.iter().zip(numbers(&mut random, x.len())).map(|(x, e)| x + 0.1 * e).collect();
    let w = numbers(&mut random, rows * n);
    let q: Vec<f32> = w.iter().zip(numbers(&mut random, w.len())).map(|(w, e)| w + 0.05 * e).collect();
    for asymmetric in [false, true] {
        let mut gram = Gram::new(n, asymmetric);
        gram.add(isa, &x, asymmetric.then_some(&original));
        gram.symmetrize();
        let of =
            |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        let first = if asymmetric { &original } else { &x };
        let total = |q: &[f32]| -> f64 {
            let tokens = first.chunks(n).zip(x.chunks(n));
            tokens
                .flat_map(|(o, x)| {
                    w.chunks(n).zip(q.chunks(n)).map(move |(w, q)| (of(w, o) - of(q, x)).powi(2))
                })
                .sum()
        };
        let (found, wanted) = (loss(isa, &w, &q, &gram), total(&q) - total(&w));
        assert!((found - wanted).abs() < 1e-3 * wanted.abs().max(1.0), "{asymmetric}: {found} {wanted}");
    }
    let (a, b) = (numbers(&mut random, 50_000), numbers(&mut random, 50_000));
    let sum: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    assert!((dot(&a, &b) - sum).abs() < 1e-9 * 50_000.0);
    let found = multiply(isa, &w, &vec![1.0; n * n], n);
    let sums: Vec<f32> = w.chunks(n).flat_map(|w| vec![w.iter().sum(); n]).collect();
    assert!(distance(&found, &sums) < 1e-5);
}

/// Inputs that say too little, or nothing, still give something to go by.
#[test]
fn any_inputs_will_do() {
    let isa = Isa::current();
    let mut random = Random::new(5);
    for tokens in [0, 1, 3] {
        let n = 256;
        let mut gram = Gram::new(n, false);
        let mut x = inputs(&mut random, tokens, n);
        x.iter_mut().step_by(4).for_each(|x| *x = 0.0);
        gram.add(isa, &x, None);
        gram.symmetrize();
        for damping in [0.0, DAMPING] {
            let hessian =
                FactoredHessian::new(isa, &gram, Regularization { damping, ..REGULARIZATION }, true);
            let w: Vec<f32> = numbers(&mut random, 4 * n).iter().map(|x| 0.05 * x).collect();
            for dtype in [DType::Q4_0, DType::Q3_K, DType::MXFP4] {
                let mut fit = Fit::new(isa, &hessian, dtype, &w, &Encode::default()).unwrap();
                fit.feed_back();
                fit.descend(3, 2);
                let off = distance(&fit.values, &w);
                assert!(fit.values.iter().all(|x| x.is_finite()) && off < 1.0, "{dtype:?} {tokens}: {off}");
                assert_eq!(decode(dtype, &fit.pack(), w.len()), fit.values);
            }
        }
    }
}

#[test]
fn feedback_loses_less_than_the_search_and_descent_less_still() {
    use DType::*;
    let isa = Isa::current();
    let mut random = Random::new(6);
    for (n, dtypes) in [
        (544, &[Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4][..]),
        (320, &[Q2_0, NVFP4]),
        (512, &[Q4_0, Q1_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS, TQ1_0, TQ2_0]),
    ] {
        let rows = 8;
        let gram = grams(&mut random, 2 * n, n, false);
        let h = damped(&gram);
        let w: Vec<f32> = numbers(&mut random, rows * n).iter().map(|x| 0.03 * x).collect();
        let hessian = FactoredHessian::new(isa, &gram, REGULARIZATION, true);
        for &dtype in dtypes {
            let usual = error(&search(dtype, &w, &gram.mean_squares()), &w, &h, n);
            let mut fit = Fit::new(isa, &hessian, dtype, &w, &Encode::default()).unwrap();
            assert_eq!(decode(dtype, &fit.pack(), w.len()), fit.values, "{dtype:?}");
            assert_eq!(error(&fit.values, &w, &h, n), usual, "{dtype:?}");
            fit.feed_back();
            assert_eq!(decode(dtype, &fit.pack(), w.len()), fit.values, "{dtype:?}");
            let fed = error(&fit.values, &w, &h, n);
            let mut last = fed;
            for sweeps in [1, 1, 4] {
                fit.descend(sweeps, 2);
                let now = error(&fit.values, &w, &h, n);
                assert!(now <= last * (1.0 + 1e-5), "{dtype:?}: {last} {now}");
                last = now;
            }
            assert_eq!(decode(dtype, &fit.pack(), w.len()), fit.values, "{dtype:?}");
            assert!(fed < usual && last < fed, "{dtype:?}: {usual} {fed} {last}");
        }
    }
}

#[test]
fn descent_alone_loses_less_too() {
    let (isa, n) = (Isa::current(), 512);
    let mut random = Random::new(7);
    let gram = grams(&mut random, 600, n, false);
    let (h, hessian) = (damped(&gram), FactoredHessian::new(isa, &gram, REGULARIZATION, true));
    let w: Vec<f32> = numbers(&mut random, 8 * n).iter().map(|x| 0.03 * x).collect();
    for dtype in [DType::Q4_0, DType::Q4_K, DType::Q6_K, DType::IQ4_XS, DType::NVFP4] {
        let mut fit = Fit::new(isa, &hessian, dtype, &w, &Encode::default()).unwrap();
        let before = error(&fit.values, &w, &h, n);
        fit.descend(4, 2);
        assert!(error(&fit.values, &w, &h, n) < 0.9 * before, "{dtype:?}");
        assert_eq!(decode(dtype, &fit.pack(), w.len()), fit.values, "{dtype:?}");
    }
}

#[test]
fn types_of_lattices_feed_back_block_by_block() {
    let isa = Isa::current();
    let mut random = Random::new(8);
    let n = 768;
    let inputs: Vec<_> = (0..4)
        .map(|_| {
            let gram = grams(&mut random, n, n, false);
            let hessian = FactoredHessian::new(isa, &gram, REGULARIZATION, false);
            (damped(&gram), hessian, gram)
        })
        .collect();
    for dtype in [DType::IQ2_XS, DType::IQ3_S, DType::IQ2_XXS, DType::IQ1_S] {
        let (mut usual, mut fed, mut better) = (0.0, 0.0, 0);
        for (h, hessian, gram) in &inputs {
            let w = numbers(&mut random, 4 * n);
            let w: Vec<f32> = w.iter().map(|x| 0.03 * x).collect();
            let (bytes, values) = feed_back_blocks(isa, hessian, dtype, &w, &Encode::default());
            assert_eq!(decode(dtype, &bytes, w.len()), values, "{dtype:?}");
            let one = error(&search(dtype, &w, &gram.mean_squares()), &w, h, n);
            let two = error(&values, &w, h, n);
            (usual, fed, better) = (usual + one, fed + two, better + usize::from(two < one));
        }
        assert!(fed < usual && better >= 3, "{dtype:?}: {usual} {fed}, {better} of 4");
    }
}

/// Rows do not depend on each other, nor on threads or instruction sets.
#[test]
fn every_set_and_any_number_of_threads_make_the_same() {
    let n = 512;
    let mut random = Random::new(9);
    let (gram, held_out) = (grams(&mut random, 300, n, true), grams(&mut random, 100, n, true));
    let w: Vec<f32> = numbers(&mut random, 10 * n).iter().map(|x| 0.03 * x).collect();
    let make = |isa: Isa, w: &[f32]| {
        let hessian = FactoredHessian::new(isa, &gram, REGULARIZATION, true);
        let (targets, share) = target(isa, w, &gram, &held_out, &hessian);
        let mut all = vec![share.to_bits().to_le_bytes().to_vec()];
        for dtype in [DType::Q4_0, DType::Q4_K, DType::IQ4_XS] {
            let mut fit = Fit::new(isa, &hessian, dtype, &targets, &Encode::default()).unwrap();
            fit.feed_back();
            fit.descend(2, 2);
            all.push(fit.pack());
        }
        let natural = FactoredHessian::new(isa, &gram, REGULARIZATION, false);
        all.push(feed_back_blocks(isa, &natural, DType::IQ3_S, &targets, &Encode::default()).0);
        all
    };
    let truth = make(Isa::PORTABLE, &w);
    for isa in Isa::available() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| make(isa, &w)) == truth, "{} {threads}", isa.name());
        }
    }
}

#[test]
fn few_tokens_shrink_hessians_to_their_diagonal() {
    let (n, isa) = (24, Isa::current());
    let mut random = Random::new(11);
    for tokens in [n, 4 * n] {
        let gram = grams(&mut random, tokens, n, false);
        let regularization = Regularization { damping: 0.0, shrinkage: 4.0 };
        let hessian = FactoredHessian::new(isa, &gram, regularization, false);
        let share = tokens as f32 / n as f32 / (tokens as f32 / n as f32 + 4.0);
        for i in 0..n {
            for j in 0..n {
                let wanted = gram.h[i * n + j] * if i == j { 1.0 } else { share };
                // R·Rᵀ, with R upper triangular.
                let r = |i: usize, k: usize| f64::from(hessian.factor().r[i * n + k]);
                let found: f64 = (i.max(j)..n).map(|k| r(i, k) * r(j, k)).sum();
                assert!((found - f64::from(wanted)).abs() < 1e-3 * f64::from(gram.h[i * n + i]), "{i} {j}");
            }
        }
    }
}

#[test]
fn centred_sums_are_those_of_centred_inputs() {
    let (n, isa, tokens) = (19, Isa::current(), 40);
    let mut random = Random::new(12);
    let shift = |x: &mut Vec<f32>| x.iter_mut().enumerate().for_each(|(i, x)| *x += (i % n) as f32 * 0.1);
    let (mut x, mut original) = (numbers(&mut random, tokens * n), numbers(&mut random, tokens * n));
    shift(&mut x);
    shift(&mut original);
    let judge = |x: &[f32], original: &[f32]| {
        let mut gram = Gram::for_loss(n, true);
        gram.add(isa, x, Some(original));
        gram.symmetrize();
        gram
    };
    let mut gram = judge(&x, &original);
    let mean = gram.input_means();
    // Any constants will do.
    let off = mean.clone().map(|m| m.iter().map(|m| 0.9 * m).collect::<Vec<f32>>());
    gram.centre(&off);
    let (mut cx, mut co) = (x.clone(), original.clone());
    for (i, (x, o)) in cx.iter_mut().zip(&mut co).enumerate() {
        *o -= off[0][i % n] + off[1][i % n];
        *x -= off[0][i % n];
    }
    let wanted = judge(&cx, &co);
    for (a, b) in [(&gram.h, &wanted.h), (&gram.yx, &wanted.yx), (&gram.yy, &wanted.yy)] {
        assert!(distance(a, b) < 1e-4, "{}", distance(a, b));
    }
}
