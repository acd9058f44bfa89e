//! The multiple-choice knapsack problem (Kellerer, Pferschy and Pisinger, "Knapsack Problems", 2004, chapter 11): one item
//! from each of many classes, so that the sum of sizes is within a budget and the sum of losses is as small as possible.
//! Classes are tensors, and their items the types that a tensor may have.
//!
//! First, a greedy algorithm goes through the items on the lower convex hull of each class, in the order of the loss saved
//! per byte. That solves the linear relaxation, which gives a lower bound of the loss, and a good solution. Then dynamic
//! programming over sums of sizes finds the best solution among the items that, by that bound, can be part of a better one.
//! A sum is dropped as soon as the bound shows that it cannot lead to a better solution.

mod search;

use search::Search;

/// An item: one choice for a class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its loss, in any unit that can be added up. Not NaN.
    pub loss: f64,
}

/// An item for each class.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The index of the item of each class.
    pub chosen: Vec<usize>,
    /// The sum of sizes in bytes.
    pub bytes: u64,
    /// The sum of losses.
    pub loss: f64,
    /// A lower bound of the loss within the budget. It equals `loss` if that is known to be optimal, which it is unless there
    /// were too many sums to follow.
    pub bound: f64,
}

/// The exchange of one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The index of the class.
    pub class: usize,
    /// The index of its item now.
    pub from: usize,
    /// The index of its item after the exchange.
    pub to: usize,
    /// By how many bytes the solution grows; negative if it shrinks.
    pub bytes: i64,
    /// By how much the loss grows; negative if it shrinks.
    pub loss: f64,
}

/// The undominated items of a class, by size: each has a smaller loss than all that are not larger.
fn undominated(items: &[Item]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|&a, &b| {
        let (x, y) = (items[a], items[b]);
        x.bytes.cmp(&y.bytes).then(x.loss.total_cmp(&y.loss)).then(a.cmp(&b))
    });
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.last().is_none_or(|&last| items[i].loss < items[last].loss) {
            kept.push(i);
        }
    }
    kept
}

/// The loss saved per byte from `a` to the larger `b`.
fn gain(a: Item, b: Item) -> f64 {
    (a.loss - b.loss) / (b.bytes - a.bytes) as f64
}

/// The items of a class on the lower convex hull of size and loss, by size.
fn hull(items: &[Item], undominated: &[usize]) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    for &i in undominated {
        while let [.., a, b] = hull[..]
            && gain(items[a], items[b]) <= gain(items[b], items[i])
        {
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

/// A step from one item of a hull to the next.
struct Edge {
    class: usize,
    to: usize,
    bytes: u64,
    gain: f64,
}

/// The steps of all hulls, those that save the most loss per byte first.
fn edges(classes: &[Vec<Item>], hulls: &[Vec<usize>]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (class, (items, hull)) in classes.iter().zip(hulls).enumerate() {
        for pair in hull.windows(2) {
            let (a, b) = (items[pair[0]], items[pair[1]]);
            edges.push(Edge { class, to: pair[1], bytes: b.bytes - a.bytes, gain: gain(a, b) });
        }
    }
    edges.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.class.cmp(&b.class)));
    edges
}

fn sum(classes: &[Vec<Item>], chosen: &[usize]) -> Item {
    let mut sum = Item { bytes: 0, loss: 0.0 };
    for (items, &i) in classes.iter().zip(chosen) {
        sum.bytes += items[i].bytes;
        sum.loss += items[i].loss;
    }
    sum
}

/// The smallest possible sum of sizes, in bytes.
///
/// # Panics
/// If a class has no items.
pub fn smallest(classes: &[Vec<Item>]) -> u64 {
    classes.iter().map(|c| c.iter().map(|i| i.bytes).min().expect("every class has items")).sum()
}

/// The best solution of at most `budget` bytes; `None` if even the smallest is larger.
///
/// ```
/// use calibration::budget::{Item, solve};
///
/// let small = Item { bytes: 10, loss: 4.0 };
/// let large = Item { bytes: 20, loss: 1.0 };
/// let larger = Item { bytes: 25, loss: 0.5 };
/// let solution = solve(&[vec![small, large], vec![small, larger]], 40).unwrap();
/// assert_eq!((solution.chosen, solution.bytes, solution.loss), (vec![0, 1], 35, 4.5));
/// ```
///
/// # Panics
/// If a class has no items, or more than 65,536.
pub fn solve(classes: &[Vec<Item>], budget: u64) -> Option<Solution> {
    assert!(classes.iter().all(|c| c.len() <= 1 << 16));
    let kept: Vec<Vec<usize>> = classes.iter().map(|c| undominated(c)).collect();
    let hulls: Vec<Vec<usize>> = classes.iter().zip(&kept).map(|(c, k)| hull(c, k)).collect();
    let mut chosen: Vec<usize> = hulls.iter().map(|h| h[0]).collect();
    let mut left = budget.checked_sub(sum(classes, &chosen).bytes)?;
    let edges = edges(classes, &hulls);
    // Until the budget is used up. The price of a byte is the loss per byte that the first step beyond the budget would save.
    // Later steps of other classes may still fit.
    let mut price = None;
    let mut stopped = vec![false; classes.len()];
    for edge in &edges {
        if edge.bytes <= left && !stopped[edge.class] {
            left -= edge.bytes;
            chosen[edge.class] = edge.to;
        } else {
            price.get_or_insert(edge.gain);
            stopped[edge.class] = true;
        }
    }
    let found = sum(classes, &chosen);
    let greedy = Solution { chosen, bytes: found.bytes, loss: found.loss, bound: found.loss };
    let Some(price) = price else { return Some(greedy) };
    Some(Search::new(classes, &kept, budget, price).improve(greedy))
}

/// The sizes and losses of the solutions on the convex hull, from the smallest to the one with the least loss. Each is the best
/// at its size; between two of them there may be more.
///
/// # Panics
/// If a class has no items.
pub fn frontier(classes: &[Vec<Item>]) -> Vec<Item> {
    let kept: Vec<Vec<usize>> = classes.iter().map(|c| undominated(c)).collect();
    let hulls: Vec<Vec<usize>> = classes.iter().zip(&kept).map(|(c, k)| hull(c, k)).collect();
    let best: Vec<usize> = hulls.iter().map(|h| *h.last().expect("every class has items")).collect();
    let mut now = sum(classes, &best);
    let mut all = vec![now];
    // From the end, so that small losses are added before large ones.
    for edge in edges(classes, &hulls).iter().rev() {
        now = Item { bytes: now.bytes - edge.bytes, loss: now.loss + edge.gain * edge.bytes as f64 };
        all.push(now);
    }
    all.reverse();
    all
}

/// The exchanges of one item that save the most loss per byte if the solution may grow, and that cost the least loss per byte
/// if it is to shrink: the next larger and the next smaller solution.
///
/// # Panics
/// If `chosen` is not one index of an item for each class.
pub fn neighbours(classes: &[Vec<Item>], chosen: &[usize]) -> [Option<Change>; 2] {
    let mut found: [Option<Change>; 2] = [None, None];
    for (class, (items, &from)) in classes.iter().zip(chosen).enumerate() {
        for (to, item) in items.iter().enumerate() {
            let bytes = item.bytes as i64 - items[from].bytes as i64;
            let change = Change { class, from, to, bytes, loss: item.loss - items[from].loss };
            let side = match bytes.signum() {
                1 if change.loss < 0.0 => 0,
                -1 => 1,
                _ => continue,
            };
            // In both directions, the one with the least loss per byte.
            let rate = |c: &Change| c.loss / c.bytes.unsigned_abs() as f64;
            if found[side].is_none_or(|best| rate(&change) < rate(&best)) {
                found[side] = Some(change);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::search::{CLASSES, SUMS, most_sums};
    use super::*;

    /// The smallest loss, by trying all combinations.
    fn all(classes: &[Vec<Item>], budget: u64) -> Option<f64> {
        let mut best: Option<f64> = None;
        let mut chosen = vec![0usize; classes.len()];
        loop {
            let s = sum(classes, &chosen);
            if s.bytes <= budget && best.is_none_or(|b| s.loss < b) {
                best = Some(s.loss);
            }
            let Some(at) = (0..chosen.len()).find(|&c| chosen[c] + 1 < classes[c].len()) else { return best };
            chosen[..at].fill(0);
            chosen[at] += 1;
        }
    }

    fn items() -> impl Strategy<Value = Vec<Vec<Item>>> {
        let item =
            (0u64..60, 0u32..100).prop_map(|(bytes, loss)| Item { bytes, loss: f64::from(loss) * 0.37 });
        prop::collection::vec(prop::collection::vec(item, 1..5), 1..7)
    }

    proptest! {
        #[test]
        fn solutions_are_optimal(classes in items(), budget in 0u64..260) {
            let found = solve(&classes, budget);
            let best = all(&classes, budget);
            prop_assert_eq!(found.is_some(), best.is_some());
            prop_assert_eq!(found.is_some(), smallest(&classes) <= budget);
            if let (Some(found), Some(best)) = (found, best) {
                prop_assert!((found.loss - best).abs() < 1e-9, "{} {}", found.loss, best);
                prop_assert!(found.bytes <= budget);
                let s = sum(&classes, &found.chosen);
                prop_assert_eq!((s.bytes, s.loss), (found.bytes, found.loss));
                prop_assert!((found.bound - best).abs() < 1e-9);
            }
        }

        #[test]
        fn every_point_of_the_frontier_is_the_best_at_its_size(classes in items()) {
            let frontier = frontier(&classes);
            prop_assert_eq!(frontier[0].bytes, smallest(&classes));
            for (i, s) in frontier.iter().enumerate() {
                let best = all(&classes, s.bytes).unwrap();
                prop_assert!((s.loss - best).abs() < 1e-9);
                prop_assert!(i == 0 || s.bytes > frontier[i - 1].bytes && s.loss < frontier[i - 1].loss + 1e-9);
            }
            prop_assert!((frontier.last().unwrap().loss - all(&classes, u64::MAX).unwrap()).abs() < 1e-9);
        }

        #[test]
        fn neighbours_have_the_stated_size_and_loss(classes in items(), budget in 0u64..260) {
            let Some(found) = solve(&classes, budget) else { return Ok(()) };
            let [larger, smaller] = neighbours(&classes, &found.chosen);
            for change in [larger, smaller].into_iter().flatten() {
                let mut chosen = found.chosen.clone();
                prop_assert_eq!(chosen[change.class], change.from);
                chosen[change.class] = change.to;
                let s = sum(&classes, &chosen);
                prop_assert_eq!(s.bytes as i64, found.bytes as i64 + change.bytes);
                prop_assert!((s.loss - found.loss - change.loss).abs() < 1e-9);
            }
            // A larger and better one does not fit.
            prop_assert!(larger.is_none_or(|c| c.bytes > 0 && found.bytes + c.bytes as u64 > budget));
            prop_assert!(smaller.is_none_or(|c| c.bytes < 0));
        }
    }

    /// Tensors of a few shapes, like those of a large model, with 20 types.
    fn model(tensors: usize) -> Vec<Vec<Item>> {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..tensors)
            .map(|c| {
                let weights = [16_777_216u64, 45_088_768, 45_088_768, 131_072_000][c % 4];
                let scale = random() + 0.1;
                (0..20)
                    .map(|t| {
                        let bits = 1.6 + t as f64 * 0.37;
                        let noise = 0.8 + 0.4 * random();
                        Item {
                            bytes: (weights as f64 * bits / 8.0) as u64 / 32 * 32,
                            loss: scale * noise * (-1.386 * bits).exp(),
                        }
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn large_problems_are_solved() {
        let classes = model(225);
        let (least, most) = (smallest(&classes), 4 * smallest(&classes));
        for part in 1..8 {
            let budget = least + (most - least) * part / 8;
            let found = solve(&classes, budget).unwrap();
            assert!(found.bytes <= budget);
            assert!(found.loss <= found.bound * (1.0 + 1e-4), "{} {}", found.loss, found.bound);
        }
    }

    #[test]
    fn with_many_classes_fewer_sums_are_followed() {
        assert_eq!((most_sums(1), most_sums(CLASSES)), (SUMS, SUMS));
        assert!(
            (CLASSES + 1..1 << 20)
                .step_by(999)
                .all(|n| most_sums(n) >= 1 && most_sums(n) * n <= SUMS * CLASSES / 16)
        );
        let classes = model(20_000);
        let least = smallest(&classes);
        for budget in [least + least / 3, 2 * least] {
            let found = solve(&classes, budget).unwrap();
            assert!(found.bytes <= budget);
            assert!(found.loss <= found.bound * (1.0 + 1e-5), "{} {}", found.loss, found.bound);
        }
    }
}
