//! Feedback and descent against what they are meant to make least, in f64. Here, and not beside the code: these loops are
//! compiled with the crate's own optimisation, and take a minute without.

use formats::block::grid::{Grid, Parts, Shape};
use formats::block::{DType, Effort, Encode, Info, TYPES, f16_to_f32, f32_to_f16};
use proptest::prelude::*;

use calibration::feedback::*;

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.info().bytes * dtype.info().weights];
    dtype.decode(bytes, &mut out).unwrap();
    out
}

fn pack(dtype: DType, x: &[f32]) -> Vec<u8> {
    let mut out = vec![0; dtype.bytes_for(x.len() as u64).unwrap() as usize];
    dtype.encode(x, &Encode { effort: Effort::Fast, ..Encode::default() }, &mut out).unwrap();
    out
}

fn grids() -> impl Iterator<Item = (&'static Info, &'static dyn Grid)> {
    TYPES.iter().filter_map(|t| Some((t, t.dtype.grid()?)))
}

/// Pseudorandom numbers from −1 to 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn some(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() + self.next() + self.next()) as f32).collect()
    }
}

/// The levels of every grid, and a few irregular ones.
fn all_levels() -> Vec<Vec<f32>> {
    let mut all: Vec<Vec<f32>> = grids().map(|(_, grid)| grid.shape().levels.to_vec()).collect();
    all.extend([vec![-1.0, 1.0], vec![0.25, 1.25, 2.25], vec![-7.0, -6.5, 0.0, 100.0], vec![3.0]]);
    all
}

#[test]
fn the_nearest_level_is_found() {
    let mut random = Numbers(5);
    for values in all_levels() {
        let levels = Levels::new(&values);
        let last = values.len() - 1;
        let (low, high) = (values[0], values[last]);
        let distance = |v: f32, x: f32| (f64::from(v) - f64::from(x)).abs();
        let mut tried: Vec<f32> = (0..2000)
            .map(|_| low + (high - low) * (1.5 * random.next() + 0.5) as f32)
            .chain(values.iter().copied())
            .chain([0.0, -0.0, 1e-40, -1e-40, 1e9, -1e9, f32::MAX, f32::MIN])
            .collect();
        tried.extend(values.windows(2).flat_map(|w| {
            let middle = 0.5 * (w[0] + w[1]);
            [middle, middle.next_up(), middle.next_down()]
        }));
        for v in tried {
            let code = usize::from(levels.nearest(v));
            assert!(code <= last, "{values:?} {v}");
            let least = values.iter().map(|x| distance(v, *x)).fold(f64::MAX, f64::min);
            // Close to the middle between two levels, either may be chosen.
            let slack = 1e-6 * f64::from(high - low + v.abs().min(high.abs()));
            assert!(distance(v, values[code]) <= least + slack, "{values:?} {v}: {code}");
            assert_eq!(levels.value(code as u8), values[code]);
        }
        assert_eq!(usize::from(levels.nearest(f32::INFINITY)), last, "{values:?}");
        assert_eq!(levels.nearest(f32::NEG_INFINITY), 0, "{values:?}");
        assert_eq!(levels.nearest(f32::NAN), 0, "{values:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Column k of e·U, where U has ones on its diagonal, is as near to zero as possible for any code.
    #[test]
    fn each_code_is_the_best_for_its_column((n, more) in (1..90usize, 0..5usize), seed in any::<u64>()) {
        let mut random = Numbers(seed);
        let stride = n + more;
        // Elements on and below the diagonal must not be used.
        let mut factor = vec![f32::NAN; n * stride];
        for i in 0..n {
            for j in i + 1..n {
                factor[i * stride + j] = 0.4 * random.next() as f32;
            }
        }
        for values in all_levels() {
            let levels = Levels::new(&values);
            let range = values[values.len() - 1] - values[0] + 1.0;
            let targets = random.some(n);
            // Errors of panels before this one.
            let before: Vec<f32> = random.some(n).iter().map(|x| 0.3 * x).collect();
            let mut wanted: Vec<f32> = targets.iter().zip(&before).map(|(t, b)| t + b).collect();
            let steps: Vec<f32> = (0..n)
                .map(|k| if k % 11 == 10 { 0.0 } else { (random.next() + 1.01) as f32 * 2.0 / range })
                .collect();
            let steps: Vec<f32> = steps.iter().enumerate().map(|(k, s)| if k % 7 == 3 { -s } else { *s }).collect();
            let offsets: Vec<f32> = random.some(n).iter().map(|x| 0.2 * x).collect();
            let (mut codes, mut errors) = (vec![255; n], vec![f32::NAN; n]);
            feed_back(&targets, &mut wanted, &factor, stride, &steps, &offsets, levels, &mut codes, &mut errors);
            for k in 0..n {
                let value = |code: usize| steps[k] * values[code] + offsets[k];
                let code = usize::from(codes[k]);
                prop_assert!(code < values.len());
                prop_assert_eq!(errors[k].to_bits(), (targets[k] - value(code)).to_bits());
                let fed: f64 = (0..k).map(|j| f64::from(errors[j]) * f64::from(factor[j * stride + k])).sum();
                let left = |code: usize| {
                    (f64::from(targets[k]) - f64::from(value(code)) + fed + f64::from(before[k])).abs()
                };
                let least = (0..values.len()).map(left).fold(f64::MAX, f64::min);
                let slack = 1e-5 * (fed.abs() + f64::from(steps[k].abs()) * f64::from(range) + 1.0);
                prop_assert!(left(code) <= least + slack, "{:?} {}: {} {}", values, k, left(code), least);
            }
        }
    }
}

fn values_of(grid: &dyn Grid, parts: &[Parts]) -> Vec<f32> {
    let shape = grid.shape();
    let value = |part: &Parts, j: usize| {
        let g = j / shape.group;
        let level = shape.levels[usize::from(part.codes[j])];
        grid.step(part.d, part.scales[g]) * level + grid.offset(part.m, part.mins[g])
    };
    parts.iter().flat_map(|part| (0..shape.weights).map(move |j| value(part, j))).collect()
}

/// The bits of numbers, with -0.0 as 0.0.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| (x + 0.0).to_bits()).collect()
}

fn within(shape: &Shape, part: &Parts) -> bool {
    let groups = shape.weights / shape.group;
    let all = |numbers: &[i16; 16], range: Option<[i16; 2]>| {
        let [least, most] = range.unwrap_or_default();
        numbers[..groups].iter().all(|n| (least..=most).contains(n))
            && numbers[groups..].iter().all(|n| *n == 0)
    };
    let half = |x: f32| x.is_finite() && f16_to_f32(f32_to_f16(x)).to_bits() == x.to_bits();
    all(&part.scales, shape.scales)
        && all(&part.mins, shape.mins)
        && part.codes[..shape.weights].iter().all(|c| usize::from(*c) < shape.levels.len())
        && part.codes[shape.weights..].iter().all(|c| *c == 0)
        && (!shape.free || half(part.d) && half(part.m))
}

/// A row that is being quantized, and its Hessian.
struct Row {
    n: usize,
    /// In f64, so that sums are those of the definition.
    h: Vec<f64>,
    weights: Vec<f32>,
}

impl Row {
    /// H of correlated inputs of very different sizes.
    fn new(n: usize, size: f32, random: &mut Numbers) -> Self {
        let scales: Vec<f64> = (0..n).map(|_| (2.0 * random.next()).exp()).collect();
        let tokens = n / 4 + 9;
        let mut h = vec![0f64; n * n];
        for _ in 0..tokens {
            let common = random.next();
            let x: Vec<f64> = scales.iter().map(|s| s * (random.next() + 0.7 * common)).collect();
            for i in 0..n {
                for j in 0..n {
                    h[i * n + j] += x[i] * x[j];
                }
            }
        }
        let mean = (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| h[i * n + i] += 0.01 * mean);
        // Rounded to f32, as it is passed.
        h.iter_mut().for_each(|x| *x = f64::from(*x as f32));
        Self { n, h, weights: random.some(n).iter().map(|x| x * size).collect() }
    }

    /// (q − w)·H and (q − w)·H·(q − w)ᵀ.
    fn gradient(&self, values: &[f32]) -> (Vec<f64>, f64) {
        let off: Vec<f64> =
            values.iter().zip(&self.weights).map(|(q, w)| f64::from(*q) - f64::from(*w)).collect();
        let mut out = vec![0f64; self.n];
        for (i, e) in off.iter().enumerate() {
            out.iter_mut().zip(&self.h[i * self.n..]).for_each(|(o, h)| *o += e * h);
        }
        let total = out.iter().zip(&off).map(|(g, e)| g * e).sum();
        (out, total)
    }

    /// The diagonal block of H for some columns.
    fn own(&self, first: usize, width: usize) -> Vec<f32> {
        let rows = self.h[first * self.n..].chunks(self.n).take(width);
        rows.flat_map(|row| row[first..first + width].iter().map(|x| *x as f32)).collect()
    }
}

/// Runs the descent in one panel of a wider row, and returns the error before and after.
fn check(
    dtype: DType,
    grid: &dyn Grid,
    row: &Row,
    blocks: std::ops::Range<usize>,
    rounds: usize,
) -> (f64, f64) {
    let (shape, info) = (grid.shape(), dtype.info());
    let bytes = pack(dtype, &row.weights);
    let mut parts = vec![Parts::ZERO; row.n / shape.weights];
    bytes.chunks(info.bytes).zip(&mut parts).for_each(|(b, p)| grid.unpack(b, p));
    let mut values = values_of(grid, &parts);
    let (gradient, before) = row.gradient(&values);

    let (first, width) = (blocks.start * shape.weights, blocks.len() * shape.weights);
    let own = row.own(first, width);
    let sums = Panel::sums(&own, width, shape.group);
    let panel = Panel { h: &own, sums: &sums, width };
    let mut local: Vec<f32> = gradient[first..first + width].iter().map(|x| *x as f32).collect();
    let levels = Levels::new(shape.levels);
    let old = (parts.clone(), values.clone());
    let changed = descend(
        grid,
        levels,
        &panel,
        rounds,
        &mut parts[blocks.clone()],
        &mut values[first..first + width],
        &mut local,
    );
    let name = info.name;
    assert_eq!(changed, bits(&old.1) != bits(&values) || old.0 != parts, "{name}");
    assert!(parts.iter().all(|p| within(shape, p)), "{name}");
    assert_eq!(bits(&values), bits(&values_of(grid, &parts)), "{name}");
    let mut packed = vec![0u8; bytes.len()];
    parts.iter().zip(packed.chunks_mut(info.bytes)).for_each(|(p, b)| grid.pack(p, b));
    assert_eq!(bits(&values), bits(&decode(dtype, &packed)), "{name}");

    let (gradient, after) = row.gradient(&values);
    // Rounding errors: a few of the last bits of the sums.
    let scale = (0..row.n).map(|i| row.h[i * row.n + i]).fold(0.0, f64::max);
    let largest = row.weights.iter().fold(0f64, |m, w| m.max(f64::from(w.abs())));
    for (found, wanted) in local.iter().zip(&gradient[first..]) {
        let far = (f64::from(*found) - wanted).abs();
        assert!(far <= 1e-4 * scale * largest, "{name}: {found} {wanted}");
    }
    assert!(after <= before * (1.0 + 1e-6) + 1e-9 * scale * largest * largest, "{name}: {before} {after}");
    (before, after)
}

#[test]
fn descent_never_increases_the_error() {
    let mut random = Numbers(77);
    for (info, grid) in grids() {
        let size = grid.shape().weights;
        let (mut before, mut after) = (0.0, 0.0);
        for blocks in if size == 256 { vec![1] } else { vec![1, 2, 256 / size] } {
            // Blocks on both sides, whose errors are part of the gradient.
            let row = Row::new((blocks + 2) * size, 0.05, &mut random);
            for rounds in 1..4 {
                let (b, a) = check(info.dtype, grid, &row, 1..1 + blocks, rounds);
                (before, after) = (before + b, after + a);
            }
        }
        assert!(after < 0.99 * before, "{}: {before} {after}", info.name);
    }
}

#[test]
fn descent_handles_weights_of_any_size() {
    let mut random = Numbers(3);
    for (info, grid) in grids() {
        let size = grid.shape().weights;
        for magnitude in [0.0, 1e-9, 1e-7, 1e-5, 1.0, 1e3, 3e4] {
            let mut row = Row::new(2 * size, magnitude, &mut random);
            check(info.dtype, grid, &row, 0..1, 2);
            // Columns whose inputs are all zero.
            for i in (0..row.n).step_by(3) {
                for j in 0..row.n {
                    row.h[i * row.n + j] = 0.0;
                    row.h[j * row.n + i] = 0.0;
                }
            }
            check(info.dtype, grid, &row, 0..1, 2);
        }
    }
}
