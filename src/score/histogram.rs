//! A histogram of the tokens' KL divergence, on a logarithmic scale.

use super::Scores;

/// Buckets per decade.
const PARTS: i32 = 4;
/// Decades: from 10^−8, below which differences are rounding errors of the forward pass, to 10^2.
const DECADES: std::ops::Range<i32> = -8..2;
/// 10^(i/4).
const ROOTS: [f64; PARTS as usize] =
    [1.0, 1.778_279_410_038_922_8, 3.162_277_660_168_379_5, 5.623_413_251_903_491];

/// The lower edge of each bucket as log10 of nats, ascending, with the number of tokens whose KLD is in the bucket. The
/// edges are the same for all scores, so that histograms can be compared. The first bucket also has all smaller values
/// (zero, and slightly negative ones of a rounded reference), the last all larger ones. Empty without a reference.
pub fn kld_histogram(scores: &Scores) -> Vec<(f64, u64)> {
    let Some(pairs) = scores.pairs() else { return Vec::new() };
    let edges: Vec<f64> = DECADES
        .flat_map(|decade| ROOTS.map(|root| format!("1e{decade}").parse::<f64>().unwrap_or(0.0) * root))
        .collect();
    let mut counts = vec![0; edges.len()];
    for pair in pairs {
        let above = edges.partition_point(|&edge| edge <= pair.kld);
        counts[above.saturating_sub(1)] += 1;
    }
    let log10 = (DECADES.start * PARTS..).map(|i| f64::from(i) / f64::from(PARTS));
    log10.zip(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Pair, TokenScore};
    use super::*;

    #[test]
    fn every_token_is_in_the_bucket_that_its_logarithm_says() {
        let mut scores = Scores::new();
        assert!(kld_histogram(&scores).is_empty());
        let klds = [-1e-5, 0.0, 9e-9, 1e-8, 0.0999, 0.1, 0.17, 0.18, 50.0, 1e6];
        scores.push_chunk(klds.map(|kld| {
            let pair = Pair { nll: 1.0, kld, same_top: true, dp: 0.0 };
            TokenScore { nll: 1.0, pair: Some(pair) }
        }));
        let all = kld_histogram(&scores);
        assert_eq!((all.len(), all[0].0, all[39].0), (40, -8.0, 1.75));
        let full: Vec<_> = all.into_iter().filter(|b| b.1 > 0).collect();
        assert_eq!(full, [(-8.0, 4), (-1.25, 1), (-1.0, 2), (-0.75, 1), (1.5, 1), (1.75, 1)]);
    }
}
