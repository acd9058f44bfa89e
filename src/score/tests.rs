use proptest::prelude::*;

use super::*;

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-7
}

#[test]
fn the_second_half_of_a_chunk_is_scored() {
    assert_eq!(scored(512), 256..511);
    assert_eq!(scored(5), 2..4);
    assert_eq!((scored(2).len(), scored(1).len(), scored(0).len()), (0, 0, 0));
}

#[test]
fn small_distributions_are_scored_by_hand() {
    // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), as logits with different offsets.
    let p: Vec<f32> = [0.5f32, 0.25, 0.25].iter().map(|p| p.ln() + 3.0).collect();
    let q: Vec<f32> = [0.25f32, 0.25, 0.5].iter().map(|p| p.ln() - 1.0).collect();
    assert!(near(alone(&q, 2).unwrap().nll, 2f64.ln()));
    let row = against_logits(&p, &q, 0).unwrap();
    let pair = row.pair.unwrap();
    assert!(near(row.nll, 4f64.ln()) && near(pair.nll, 2f64.ln()));
    // 1/2 ln 2 + 1/4 ln 1 + 1/4 ln 1/2
    assert!(near(pair.kld, 0.25 * 2f64.ln()));
    assert!(near(pair.dp, -0.25) && !pair.same_top);
    // The file's numbers are log-probabilities; here none is near the floor.
    let log_probs: Vec<f32> = [0.5f32, 0.25, 0.25].iter().map(|p| p.ln()).collect();
    let file = against_file(&log_probs, &q, 0).unwrap();
    assert!(near(file.nll, row.nll) && near(file.pair.unwrap().kld, pair.kld));
    assert!(near(file.pair.unwrap().nll, pair.nll) && near(file.pair.unwrap().dp, pair.dp));
}

#[test]
fn entries_at_the_floor_count_side_by_side_only() {
    let rare = (-16f32).exp();
    let log_probs = [(1.0 - rare).ln(), -16.0];
    let logits = [0.0f32, -40.0];
    let both = against_logits(&log_probs, &logits, 0).unwrap().pair.unwrap().kld;
    let file = against_file(&log_probs, &logits, 0).unwrap().pair.unwrap().kld;
    let rare = f64::from(rare);
    assert!((both - (rare * 24.0 + (1.0 - rare) * (1.0 - rare).ln())).abs() < 1e-8);
    assert!((file - f64::from(log_probs[0])).abs() < 1e-8);
}

#[test]
fn the_first_of_equals_is_the_top() {
    let same = |p: &[f32], q: &[f32]| against_logits(p, q, 0).unwrap().pair.unwrap().same_top;
    assert!(same(&[1.0, 1.0, 0.0], &[5.0, 5.0, 5.0]));
    assert!(!same(&[0.0, 1.0, 1.0], &[1.0, 1.0, 1.0]));
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let nan = ScoreError::NotFinite { at: 1, value: f32::INFINITY };
    assert_eq!(alone(&[0.0, f32::INFINITY], 0), Err(nan));
    assert_eq!(against_logits(&[0.0, 1.0], &[0.0, f32::INFINITY], 0), Err(nan));
    assert_eq!(against_file(&[0.0, f32::INFINITY], &[0.0, 0.0], 0), Err(nan));
    assert!(matches!(alone(&[0.0, f32::NAN], 0), Err(ScoreError::NotFinite { at: 1, .. })));
    assert_eq!(alone(&[0.0], 1), Err(ScoreError::OutOfVocabulary { target: 1, vocab: 1 }));
    assert_eq!(alone(&[], 0), Err(ScoreError::OutOfVocabulary { target: 0, vocab: 0 }));
    let lengths = ScoreError::LengthMismatch { reference: 1, candidate: 2 };
    assert_eq!(against_logits(&[0.0], &[0.0, 0.0], 0), Err(lengths));
    assert!(crate::Error::from(lengths).hint().is_some());
}

#[test]
fn extreme_logits_are_finite() {
    let p = [f32::MAX, f32::MIN, 0.0];
    let q = [f32::MIN, f32::MAX, 0.0];
    let row = against_logits(&p, &q, 0).unwrap();
    assert!(row.nll.is_finite() && row.pair.unwrap().kld.is_finite());
}

/// Two rows of logits and a target, with small and large differences between them.
fn rows() -> impl Strategy<Value = (Vec<f32>, Vec<f32>, usize)> {
    (1usize..300, -4i32..3).prop_flat_map(|(n, size)| {
        let noise = 10f32.powi(size);
        (prop::collection::vec((-30f32..30.0, -noise..noise), n), 0..n).prop_map(|(pairs, target)| {
            (pairs.iter().map(|p| p.0).collect(), pairs.iter().map(|p| p.0 + p.1).collect(), target)
        })
    })
}

proptest! {
    #[test]
    fn divergence_is_never_negative((p, q, target) in rows()) {
        let row = against_logits(&p, &q, target).unwrap();
        let pair = row.pair.unwrap();
        prop_assert!(pair.kld >= -1e-9, "{}", pair.kld);
        prop_assert!((row.nll - alone(&q, target).unwrap().nll).abs() < 1e-12 * (1.0 + row.nll));
        prop_assert!((pair.nll - alone(&p, target).unwrap().nll).abs() < 1e-12 * (1.0 + pair.nll));
        prop_assert!((-1.0..=1.0).contains(&pair.dp));
    }

    #[test]
    fn it_is_what_the_definition_says((p, q, target) in rows()) {
        let log_softmax = |z: &[f32]| -> Vec<f64> {
            let max = f64::from(z.iter().copied().fold(f32::MIN, f32::max));
            let sum: f64 = z.iter().map(|&x| (f64::from(x) - max).exp()).sum();
            z.iter().map(|&x| f64::from(x) - max - sum.ln()).collect()
        };
        let (lp, lq) = (log_softmax(&p), log_softmax(&q));
        let kld: f64 = lp.iter().zip(&lq).map(|(p, q)| p.exp() * (p - q)).sum();
        let pair = against_logits(&p, &q, target).unwrap().pair.unwrap();
        prop_assert!((pair.kld - kld).abs() < 1e-9 * (1.0 + kld), "{} {}", pair.kld, kld);
        prop_assert!((pair.dp - (lq[target].exp() - lp[target].exp())).abs() < 1e-9);
    }

    #[test]
    fn a_model_is_at_no_distance_from_itself((p, _, target) in rows()) {
        let row = against_logits(&p, &p, target).unwrap();
        prop_assert_eq!(row.pair, Some(Pair { nll: row.nll, kld: 0.0, same_top: true, dp: 0.0 }));
    }

    #[test]
    fn a_constant_added_to_the_logits_changes_nothing((p, q, target) in rows(), shift in -9i32..9) {
        // Whole 64ths, so that the sums are exact in f32.
        let grid = |z: &[f32], by: i32| -> Vec<f32> { z.iter().map(|x| (x * 64.0).round() / 64.0 + by as f32).collect() };
        let (p, q, moved) = (grid(&p, 0), grid(&q, 0), grid(&q, shift));
        let (a, b) = (against_logits(&p, &q, target).unwrap(), against_logits(&p, &moved, target).unwrap());
        prop_assert_eq!(a, b);
    }
}
