//! Hashes of what every encoder makes of the same rows, by effort, without importances and with them: an accidental
//! change of a single bit fails here. After a deliberate one, copy the lines that the test prints to `snapshot.txt`.

use formats::block::{Effort, Encode, Family, Objective, TYPES};

use crate::encode_with;

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    bytes.iter().fold(seed, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3))
}

/// Rows of many kinds: sums of uniform numbers, at several scales, with outliers, offsets and zeros.
fn rows() -> (Vec<f32>, Vec<f32>) {
    let mut seed = 12u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let (mut x, mut w) = (Vec::new(), Vec::new());
    for row in 0..10 {
        for j in 0..512 {
            let sum = next() + next() + next() + next();
            let weight = next() + 1.0;
            x.push(match row {
                0..4 => 0.02 * sum,
                4 => 0.02 * sum + if j % 61 == 0 { next() } else { 0.0 },
                5 => 1.0 + 0.1 * sum,
                6 => 1e-7 * sum,
                7 => 3e4 * sum,
                8 => {
                    if j % 3 == 0 {
                        0.0
                    } else {
                        sum
                    }
                }
                _ => (sum * 1.5).round() * 0.03,
            });
            w.push(match row % 3 {
                0 => weight,
                1 => weight * weight * weight * weight,
                _ => {
                    if j % 7 == 0 {
                        0.0
                    } else {
                        1e-5 * weight
                    }
                }
            });
        }
    }
    (x, w)
}

#[test]
fn encoders_give_the_bytes_of_the_snapshot() {
    let (x, w) = rows();
    let mut lines = String::new();
    for info in TYPES.iter().filter(|t| encode_with(t.dtype, &[], &Encode::default()).is_some()) {
        let mut hashes = Vec::new();
        for importance in [None, Some(&w[..])] {
            for (effort, _) in Effort::ALL {
                let mut all = 0xCBF2_9CE4_8422_2325;
                for objective in [None, Some(Objective::Error), Some(Objective::Prior)] {
                    let how = Encode { importance, objective, effort };
                    all = hash(&encode_with(info.dtype, &x, &how).unwrap(), all);
                }
                hashes.push(format!("{all:016x}"));
            }
        }
        lines += &format!("{} {}\n", info.name, hashes.join(" "));
    }
    for (now, then) in lines.lines().zip(include_str!("snapshot.txt").lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(lines, include_str!("snapshot.txt"), "all of the list is now:\n{lines}");
}

#[test]
fn what_changes_the_bytes_of_a_type_is_known() {
    let (x, w) = rows();
    for info in TYPES.iter().filter(|t| !matches!(t.family, Family::Integer | Family::Activations)) {
        let Some(plain) = encode_with(info.dtype, &x, &Encode::default()) else { continue };
        let encode = |how: Encode| encode_with(info.dtype, &x, &how).unwrap();
        let with = Encode { importance: Some(&w), ..Encode::default() };
        assert_eq!(encode(with) != plain, info.family != Family::Float, "{}", info.name);
        for how in [Encode::default(), with] {
            let objective = |o| encode(Encode { objective: Some(o), ..how });
            let prior = objective(Objective::Prior) != objective(Objective::Error);
            assert_eq!(prior, info.dtype.has_prior(), "{} {how:?}", info.name);
            for (effort, name) in Effort::ALL {
                let differs =
                    [None, Some(Objective::Error), Some(Objective::Prior)].into_iter().any(|objective| {
                        let how = Encode { objective, ..how };
                        encode(Encode { effort, ..how }) != encode(how)
                    });
                let matters = effort.matters_to(info.dtype, how.importance.is_some());
                assert_eq!(differs, matters, "{} {name} {}", info.name, how.importance.is_some());
            }
        }
    }
}
