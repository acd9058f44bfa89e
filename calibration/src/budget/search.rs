//! The search for the best solution by dynamic programming over sums of sizes, from a good solution and a lower bound.

use super::{Item, Solution, sum};

/// The most sums that are followed from one class to the next.
pub(super) const SUMS: usize = 1 << 16;
/// The number of classes up to which so many are followed: more than the matrices of any model whose experts are stacked.
pub(super) const CLASSES: usize = 1024;

/// The most sums that are followed where this many classes are left to choose in. The greedy solution is at most one item
/// away from the bound, which matters the less the more classes there are; so beyond [`CLASSES`] all sums together are
/// limited, and with them time and memory.
pub(super) fn most_sums(classes: usize) -> usize {
    if classes <= CLASSES { SUMS } else { SUMS / 32 * CLASSES / classes + 1 }
}

/// The search by dynamic programming.
pub(super) struct Search<'a> {
    classes: &'a [Vec<Item>],
    undominated: &'a [Vec<usize>],
    budget: u64,
    price: f64,
    /// The smallest loss + price · bytes of each class.
    least: Vec<f64>,
}

/// The sums of size and loss of some choice of items in the classes so far.
#[derive(Clone, Copy)]
struct Sum {
    bytes: u64,
    loss: f64,
    /// The index of the sum that it extends, and the item that was added.
    before: u32,
    item: u16,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        classes: &'a [Vec<Item>],
        undominated: &'a [Vec<usize>],
        budget: u64,
        price: f64,
    ) -> Self {
        let least = classes.iter().zip(undominated).map(|(items, undominated)| {
            undominated.iter().map(|&i| priced(items[i], price)).fold(f64::INFINITY, f64::min)
        });
        Self { least: least.collect(), classes, undominated, budget, price }
    }

    /// The lower bound of the loss.
    fn bound(&self) -> f64 {
        self.least.iter().sum::<f64>() - self.price * self.budget as f64
    }

    /// The best solution, from a good one.
    pub(super) fn improve(&self, good: Solution) -> Solution {
        let bound = self.bound();
        // Sums of floats depend on their order in the last digits.
        let slack = 1e-12 * (good.loss.abs() + self.price * self.budget as f64);
        let most = good.loss + slack;
        // The items that can be part of a better solution. Classes that keep several come in the order of their range of sizes,
        // the largest first, so that small steps remain for the end.
        let open = |class: usize| -> Vec<usize> {
            let undominated = self.undominated[class].iter().copied();
            let extra = |i: usize| priced(self.classes[class][i], self.price) - self.least[class];
            undominated.filter(|&i| bound + extra(i) <= most).collect()
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
        // Of earlier sums, only how each was made is kept.
        let mut ways: Vec<Vec<(u32, u16)>> = Vec::new();
        let mut exact = true;
        let limit = most_sums(free.len());
        for (class, items) in &free {
            rest -= self.least[*class];
            let reach = most + self.price * self.budget as f64 - rest;
            let (next, all) = self.extend(&sums, *class, items, (reach, limit));
            exact &= all;
            ways.push(next.iter().map(|s| (s.before, s.item)).collect());
            sums = next;
        }
        let mut at = sums.len().wrapping_sub(1);
        // Losses fall along the list: the last is the best. If it is not better, the given solution stays.
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

    /// Every sum with every item of a class added, without those that cannot lead to a better solution: `loss + price · bytes`
    /// must be at most the first of `limits`, and no smaller sum may have less loss. At most as many as the second; returns
    /// false if sums were dropped because there were more.
    fn extend(&self, sums: &[Sum], class: usize, items: &[usize], limits: (f64, usize)) -> (Vec<Sum>, bool) {
        let (reach, limit) = limits;
        // The sums are in the order of their sizes, and stay so with an item added: all are merged, item by item.
        let (mut kept, mut merged): (Vec<Sum>, Vec<Sum>) = (Vec::new(), Vec::new());
        for &i in items {
            let item = self.classes[class][i];
            let mut extended = sums.iter().enumerate().filter_map(|(before, s)| {
                let (bytes, loss) = (s.bytes + item.bytes, s.loss + item.loss);
                (bytes <= self.budget && loss + self.price * bytes as f64 <= reach).then_some(Sum {
                    bytes,
                    loss,
                    before: before as u32,
                    item: i as u16,
                })
            });
            let mut others = kept.iter().copied();
            let (mut a, mut b) = (others.next(), extended.next());
            merged.clear();
            while let Some(s) = match (a, b) {
                (Some(x), Some(y)) if comes_before(&y, &x) => {
                    b = extended.next();
                    Some(y)
                }
                (Some(x), _) => {
                    a = others.next();
                    Some(x)
                }
                (None, Some(y)) => {
                    b = extended.next();
                    Some(y)
                }
                (None, None) => None,
            } {
                if merged.last().is_none_or(|last| s.loss < last.loss) {
                    merged.push(s);
                }
            }
            std::mem::swap(&mut kept, &mut merged);
        }
        if kept.len() <= limit {
            return (kept, true);
        }
        // Those with the smallest priced loss.
        let value = |s: &Sum| s.loss + self.price * s.bytes as f64;
        let mut values: Vec<f64> = kept.iter().map(value).collect();
        let (_, &mut most, _) = values.select_nth_unstable_by(limit - 1, f64::total_cmp);
        kept.retain(|s| value(s) <= most);
        // If many have the same, only their number limits them.
        kept.truncate(limit);
        (kept, false)
    }
}

/// The order of sums: by size; of equal ones, the one with less loss first.
fn comes_before(a: &Sum, b: &Sum) -> bool {
    let order = a.bytes.cmp(&b.bytes).then(a.loss.total_cmp(&b.loss)).then(a.before.cmp(&b.before));
    order.is_lt()
}

fn priced(item: Item, price: f64) -> f64 {
    item.loss + price * item.bytes as f64
}
