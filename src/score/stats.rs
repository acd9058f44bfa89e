//! Means with standard errors, covariances and percentiles.

use serde::Serialize;

/// A number estimated from a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error, assuming independent tokens. Tokens of a chunk are correlated, so it is too small; the intervals
    /// of [`super::bootstrap`] do not have this problem. `None` for a single token.
    pub error: Option<f64>,
}

impl Estimate {
    /// The mean, with the standard error √((mean(x²) − mean(x)²) / (n − 1)).
    pub fn mean(x: impl Iterator<Item = f64> + Clone) -> Self {
        let value = mean(x.clone());
        Self { value, error: covariance_of_means(x.map(|x| (x, x))).map(f64::sqrt) }
    }

    /// The estimate of f(x), given f and |f'| at x (first-order error propagation).
    pub(super) fn through(self, value: f64, slope: f64) -> Self {
        // NaN (0 · ∞) where f overflows: the error is unknown.
        Self { value, error: self.error.map(|e| e * slope).filter(|e| !e.is_nan()) }
    }
}

/// The arithmetic mean; NaN for an empty sample.
pub fn mean(x: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = x.fold((0.0, 0u64), |(sum, n), x| (sum + x, n + 1));
    sum / n as f64
}

/// The covariance of two means, (mean(xy) − mean(x) mean(y)) / (n − 1); `None` for fewer than two pairs.
pub fn covariance_of_means(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let n = pairs.clone().count();
    if n < 2 {
        return None;
    }
    let (mx, my) = (mean(pairs.clone().map(|p| p.0)), mean(pairs.clone().map(|p| p.1)));
    // Subtracting the means first gives the same number without cancellation.
    Some(mean(pairs.map(|(x, y)| (x - mx) * (y - my))) / (n - 1) as f64)
}

/// The quantile of a sorted sample, interpolated linearly at index `fraction`·(n − 1), counted from 0 (as in llama.cpp;
/// R's type 7, NumPy's "linear"). At 1/2 it is the median.
///
/// # Panics
/// If the sample is empty.
pub fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let index = fraction.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let below = index as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let part = index - below as f64;
    (1.0 - part) * sorted[below] + part * sorted[above]
}

/// A sample in ascending order.
pub fn sorted(x: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut x: Vec<f64> = x.collect();
    x.sort_unstable_by(f64::total_cmp);
    x
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_samples_by_hand() {
        let x = [1.0, 2.0, 4.0, 5.0];
        let m = Estimate::mean(x.into_iter());
        // Squares: (1 + 4 + 16 + 25)/4 − 9 = 2.5; over 3.
        assert_eq!((m.value, m.error), (3.0, Some((2.5f64 / 3.0).sqrt())));
        assert_eq!(Estimate::mean([7.0].into_iter()), Estimate { value: 7.0, error: None });
        assert_eq!((quantile(&x, 0.0), quantile(&x, 0.5), quantile(&x, 1.0)), (1.0, 3.0, 5.0));
        assert!((quantile(&x, 0.9) - 4.7).abs() < 1e-12);
        assert_eq!(quantile(&[3.0], 0.25), 3.0);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_definition(x in prop::collection::vec(-9f64..9.0, 1..40), thousandth in 0usize..=1000) {
            let x = sorted(x.into_iter());
            // The line through (i/(n − 1), x[i]).
            let n = x.len() - 1;
            let scaled = thousandth * n;
            let naive = match scaled % 1000 {
                0 => x[scaled / 1000],
                rest => x[scaled / 1000] + (x[scaled / 1000 + 1] - x[scaled / 1000]) * rest as f64 / 1000.0,
            };
            prop_assert!((quantile(&x, thousandth as f64 / 1000.0) - naive).abs() < 1e-9);
        }
    }
}
