//! Lists in order, by one sort for entries of every kind.
//!
//! The standard library's stable sort is compiled again for every kind of entry and every comparison: 2,000 lines of the
//! compiler's intermediate code each, which were a twentieth of this crate. These functions sort places, by a comparison
//! that is a pointer, and then swap entries. For what takes time (millions of numbers) the library's own are the right ones.

use std::cmp::Ordering;

/// Sorts by a comparison; what is equal stays in its order.
pub fn by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let order = places(list.len(), &|a, b| compare(&list[a], &list[b]));
    arrange(order, &mut |a, b| list.swap(a, b));
}

/// Sorts by a key, which is made for each comparison; what has equal keys stays in its order.
pub fn by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    by(list, |a, b| key(a).cmp(&key(b)));
}

/// The places of entries, in the order of the entries.
fn places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|&a, &b| compare(a, b));
    places
}

/// Brings the entry from `from[i]` to `i`, for each `i`, along the circles of the permutation.
fn arrange(mut from: Vec<usize>, swap: &mut dyn FnMut(usize, usize)) {
    for start in 0..from.len() {
        let mut at = start;
        // An entry that is in its place leads to itself.
        while from[at] != start {
            let next = from[at];
            swap(at, next);
            from[at] = at;
            at = next;
        }
        from[at] = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn lists_are_as_the_library_sorts_them() {
        let mut random = Random::new(7);
        for n in [0, 1, 2, 3, 10, 100, 1000] {
            let mut list: Vec<(u64, usize)> = (0..n).map(|i| (random.below(10), i)).collect();
            let mut truth = list.clone();
            truth.sort_by_key(|entry| std::cmp::Reverse(entry.0));
            let mut compared = list.clone();
            by(&mut compared, |a, b| b.0.cmp(&a.0));
            by_key(&mut list, |entry| std::cmp::Reverse(entry.0));
            assert_eq!(list, truth);
            assert_eq!(compared, truth);
        }
    }
}
