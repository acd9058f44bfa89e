//! One choice for each of many things, the sum of whose sizes stays within a budget and the sum of whose losses is least:
//! the multiple-choice knapsack (Kellerer, Pferschy and Pisinger, "Knapsack Problems", 2004, chapter 11).
//!
//! First the choices on the lower convex hull of each thing are gone through by what a byte buys: that solves the problem
//! where choices may be mixed, which bounds what any solution can reach, and gives a good one. Of what then is left (the
//! choices that could still be part of a better one, by that bound), dynamic programming over sums of sizes finds the
//! best; a sum is not followed once the bound says that nothing better comes of it.

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// What it takes, in bytes.
    pub bytes: u64,
    /// What it costs, in any unit that can be added up.
    pub loss: f64,
}

/// A choice for each thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The index of each thing's choice.
    pub chosen: Vec<usize>,
    /// The sum of their sizes.
    pub bytes: u64,
    /// The sum of their losses.
    pub loss: f64,
    /// What no solution within the budget is below: equal to `loss`, unless there were too many sums to look at.
    pub bound: f64,
}

/// A change of one choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The thing.
    pub class: usize,
    /// Its choice now.
    pub from: usize,
    /// Its choice then.
    pub to: usize,
    /// By how many bytes that is larger.
    pub bytes: i64,
    /// By how much the loss grows.
    pub loss: f64,
}

/// Sums that are kept between two things, at most.
const SUMS: usize = 1 << 16;

/// The choices of a thing that are worth it, by size: each costs less than all that are no larger.
fn worth(items: &[Item]) -> Vec<usize> {
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

/// What the loss falls by for a byte more.
fn gain(a: Item, b: Item) -> f64 {
    (a.loss - b.loss) / (b.bytes - a.bytes) as f64
}

/// Those of a thing's choices that lie on the lower convex hull, by size.
fn hull(items: &[Item], worth: &[usize]) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    for &i in worth {
        while let [.., a, b] = hull[..]
            && gain(items[a], items[b]) <= gain(items[b], items[i])
        {
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

/// A step along a hull.
struct Edge {
    class: usize,
    to: usize,
    bytes: u64,
    gain: f64,
}

/// The steps of all hulls, from the one that buys most for a byte.
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

/// The smallest that all choices together can be.
///
/// # Panics
/// If a thing has no choices.
pub fn smallest(classes: &[Vec<Item>]) -> u64 {
    classes.iter().map(|c| c.iter().map(|i| i.bytes).min().expect("a choice")).sum()
}

/// The best that can be had for so many bytes; `None` where nothing is small enough. Losses are numbers.
///
/// # Panics
/// If a thing has no choices, or more than 65536.
pub fn solve(classes: &[Vec<Item>], budget: u64) -> Option<Solution> {
    assert!(classes.iter().all(|c| c.len() <= 1 << 16));
    let worth: Vec<Vec<usize>> = classes.iter().map(|c| worth(c)).collect();
    let hulls: Vec<Vec<usize>> = classes.iter().zip(&worth).map(|(c, w)| hull(c, w)).collect();
    let mut chosen: Vec<usize> = hulls.iter().map(|h| h[0]).collect();
    let mut left = budget.checked_sub(sum(classes, &chosen).bytes)?;
    let edges = edges(classes, &hulls);
    // As far as the budget goes; the price of a byte is what the first step beyond it would buy. Later steps of other
    // things may still fit.
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
    Some(Search::new(classes, &worth, budget, price).improve(greedy))
}

/// What is left to be looked at.
struct Search<'a> {
    classes: &'a [Vec<Item>],
    worth: &'a [Vec<usize>],
    budget: u64,
    price: f64,
    /// The least of loss + price · bytes of each thing.
    least: Vec<f64>,
}

/// A sum of sizes that some choices lead to.
#[derive(Clone, Copy)]
struct Sum {
    bytes: u64,
    loss: f64,
    /// The sum that it came from, and the choice.
    before: u32,
    item: u16,
}

impl<'a> Search<'a> {
    fn new(classes: &'a [Vec<Item>], worth: &'a [Vec<usize>], budget: u64, price: f64) -> Self {
        let least = classes.iter().zip(worth).map(|(items, worth)| {
            worth.iter().map(|&i| priced(items[i], price)).fold(f64::INFINITY, f64::min)
        });
        Self { least: least.collect(), classes, worth, budget, price }
    }

    /// What no solution is below.
    fn bound(&self) -> f64 {
        self.least.iter().sum::<f64>() - self.price * self.budget as f64
    }

    /// The best solution, given a good one.
    fn improve(&self, good: Solution) -> Solution {
        let bound = self.bound();
        // Sums of floats differ in the last digits by their order.
        let slack = 1e-12 * (good.loss.abs() + self.price * self.budget as f64);
        let most = good.loss + slack;
        // Choices that could be part of something better; the things that have several, those of the largest first: what
        // is left then are small steps.
        let open = |class: usize| -> Vec<usize> {
            let worth = self.worth[class].iter().copied();
            let extra = |i: usize| priced(self.classes[class][i], self.price) - self.least[class];
            worth.filter(|&i| bound + extra(i) <= most).collect()
        };
        let mut fixed = Item { bytes: 0, loss: 0.0 };
        let mut chosen = good.chosen.clone();
        let mut free: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut rest = 0.0;
        for (class, choice) in chosen.iter_mut().enumerate() {
            let items = open(class);
            match items[..] {
                [only] => {
                    *choice = only;
                    let item = self.classes[class][only];
                    fixed = Item { bytes: fixed.bytes + item.bytes, loss: fixed.loss + item.loss };
                }
                _ => {
                    rest += self.least[class];
                    free.push((class, items));
                }
            }
        }
        let span = |(class, items): &(usize, Vec<usize>)| {
            let bytes = |i: &usize| self.classes[*class][*i].bytes;
            items.iter().map(bytes).max().unwrap_or(0) - items.iter().map(bytes).min().unwrap_or(0)
        };
        free.sort_by_key(|f| (std::cmp::Reverse(span(f)), f.0));
        let mut sums = vec![Sum { bytes: fixed.bytes, loss: fixed.loss, before: 0, item: 0 }];
        // How each sum came about is all that is kept of earlier ones.
        let mut ways: Vec<Vec<(u32, u16)>> = Vec::new();
        let mut exact = true;
        for (class, items) in &free {
            rest -= self.least[*class];
            let reach = most + self.price * self.budget as f64 - rest;
            let (next, all) = self.extend(&sums, *class, items, reach);
            exact &= all;
            ways.push(next.iter().map(|s| (s.before, s.item)).collect());
            sums = next;
        }
        let mut at = sums.len().wrapping_sub(1);
        // Along a list, losses fall: the last is the best. Where it is not better, the good one stays.
        if sums.last().is_none_or(|s| s.loss >= good.loss) {
            return Solution { bound: if exact { good.loss } else { bound }, ..good };
        }
        for ((class, _), ways) in free.iter().zip(&ways).rev() {
            let (before, item) = ways[at];
            chosen[*class] = usize::from(item);
            at = before as usize;
        }
        let found = sum(self.classes, &chosen);
        let bound = if exact { found.loss } else { bound };
        Solution { chosen, bytes: found.bytes, loss: found.loss, bound }
    }

    /// Every sum with every choice, of which those stay that something better may come of: `loss + price · bytes` is at
    /// most `reach`, no smaller one has less loss. Whether none were left out for their number.
    fn extend(&self, sums: &[Sum], class: usize, items: &[usize], reach: f64) -> (Vec<Sum>, bool) {
        let mut all = Vec::with_capacity(sums.len() * items.len());
        for &i in items {
            let item = self.classes[class][i];
            for (before, s) in sums.iter().enumerate() {
                let (bytes, loss) = (s.bytes + item.bytes, s.loss + item.loss);
                if bytes <= self.budget && loss + self.price * bytes as f64 <= reach {
                    all.push(Sum { bytes, loss, before: before as u32, item: i as u16 });
                }
            }
        }
        all.sort_unstable_by(|a, b| {
            a.bytes.cmp(&b.bytes).then(a.loss.total_cmp(&b.loss)).then(a.before.cmp(&b.before))
        });
        let mut kept: Vec<Sum> = Vec::new();
        for s in all {
            if kept.last().is_none_or(|last| s.loss < last.loss) {
                kept.push(s);
            }
        }
        if kept.len() <= SUMS {
            return (kept, true);
        }
        // The most promising ones.
        let value = |s: &Sum| s.loss + self.price * s.bytes as f64;
        let mut values: Vec<f64> = kept.iter().map(value).collect();
        let (_, &mut most, _) = values.select_nth_unstable_by(SUMS - 1, f64::total_cmp);
        kept.retain(|s| value(s) <= most);
        // Where many are equally promising, the number is the limit.
        kept.truncate(SUMS);
        (kept, false)
    }
}

fn priced(item: Item, price: f64) -> f64 {
    item.loss + price * item.bytes as f64
}

/// Sizes and losses of the solutions from the smallest to the best, of which each is the best of its size: those that the price of a byte
/// leads to. There may be better ones between.
///
/// # Panics
/// If a thing has no choices.
pub fn frontier(classes: &[Vec<Item>]) -> Vec<Item> {
    let worth: Vec<Vec<usize>> = classes.iter().map(|c| worth(c)).collect();
    let hulls: Vec<Vec<usize>> = classes.iter().zip(&worth).map(|(c, w)| hull(c, w)).collect();
    let best: Vec<usize> = hulls.iter().map(|h| *h.last().expect("a choice")).collect();
    let mut now = sum(classes, &best);
    let mut all = vec![now];
    // From the end: small losses are added up before large ones.
    for edge in edges(classes, &hulls).iter().rev() {
        now = Item { bytes: now.bytes - edge.bytes, loss: now.loss + edge.gain * edge.bytes as f64 };
        all.push(now);
    }
    all.reverse();
    all
}

/// The changes of one choice that buy most for a byte more, and that lose least for a byte less.
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
            // Of both, the one whose loss for a byte is least, counted in its own direction.
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

    use super::*;

    /// The best by trying everything.
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
        fn a_solution_is_the_best_there_is(classes in items(), budget in 0u64..260) {
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
        fn all_of_the_frontier_is_the_best_of_its_size(classes in items()) {
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
        fn neighbours_lead_where_they_say(classes in items(), budget in 0u64..260) {
            let Some(found) = solve(&classes, budget) else { return Ok(()) };
            let [dearer, cheaper] = neighbours(&classes, &found.chosen);
            for change in [dearer, cheaper].into_iter().flatten() {
                let mut chosen = found.chosen.clone();
                prop_assert_eq!(chosen[change.class], change.from);
                chosen[change.class] = change.to;
                let s = sum(&classes, &chosen);
                prop_assert_eq!(s.bytes as i64, found.bytes as i64 + change.bytes);
                prop_assert!((s.loss - found.loss - change.loss).abs() < 1e-9);
            }
            // Whatever is larger and better does not fit.
            prop_assert!(dearer.is_none_or(|c| c.bytes > 0 && found.bytes + c.bytes as u64 > budget));
            prop_assert!(cheaper.is_none_or(|c| c.bytes < 0));
        }
    }

    #[test]
    fn many_things_of_many_sizes_are_solved() {
        // Like a large model: 225 things of a few shapes, 20 types.
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1u64 << 53) as f64
        };
        let classes: Vec<Vec<Item>> = (0..225)
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
            .collect();
        let (least, most) = (smallest(&classes), 4 * smallest(&classes));
        for part in 1..8 {
            let budget = least + (most - least) * part / 8;
            let found = solve(&classes, budget).unwrap();
            assert!(found.bytes <= budget);
            assert!(found.loss <= found.bound * (1.0 + 1e-4), "{} {}", found.loss, found.bound);
        }
    }
}
