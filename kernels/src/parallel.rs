//! Loops over the threads of the pool that they are called in. What is done with an index or an item is called through a
//! pointer: so rayon's code, which splits the work and lets idle threads take parts of it, is compiled once, and not for every
//! loop of the program. A call costs some nanoseconds, and an item a lock that nobody else asks for: give each some
//! microseconds of work, such as a row, or many small rows in one chunk.
//!
//! Results are in the order of the items, and the error is that of the first item that has one, whatever the number of threads.
//! Sums stay the same if what [`map`] gives is added up in its order. A panic in a body is passed on to the caller.
//!
//! ```
//! use kernels::parallel;
//!
//! let mut squares = vec![0; 10];
//! parallel::chunks_mut(&mut squares, 4, &|i, chunk| {
//!     for (j, x) in chunk.iter_mut().enumerate() {
//!         *x = (4 * i + j) * (4 * i + j);
//!     }
//! });
//! assert_eq!(squares, parallel::map(10, &|i| i * i));
//!
//! // Several slices in step: the items are the chunks of all.
//! let (mut sums, mut odd) = (vec![0; 5], vec![false; 5]);
//! let items = squares.chunks(2).zip(&mut sums).zip(&mut odd).collect();
//! parallel::items(items, &|_, ((two, sum), odd)| {
//!     *sum = two[0] + two[1];
//!     *odd = *sum % 2 == 1;
//! });
//! assert_eq!((sums[4], odd[4]), (64 + 81, true));
//! ```

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// Calls `body` with all numbers below `n`.
pub fn each(n: usize, body: &(dyn Fn(usize) + Sync)) {
    (0..n).into_par_iter().for_each(body);
}

/// Calls `body` with each item and its index.
pub fn items<T: Send>(items: Vec<T>, body: &(dyn Fn(usize, T) + Sync)) {
    let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    each(items.len(), &|i| {
        let item = items[i].lock().ok().and_then(|mut item| item.take());
        body(i, item.expect("each item is taken once"));
    });
}

/// Calls `body` with each chunk of `size` numbers (or other things) and its index; the last chunk may be shorter.
///
/// # Panics
/// If `size` is 0.
pub fn chunks_mut<T: Send>(slice: &mut [T], size: usize, body: &(dyn Fn(usize, &mut [T]) + Sync)) {
    items(slice.chunks_mut(size).collect(), body);
}

/// What `f` gives for all numbers below `n`.
pub fn map<U: Send>(n: usize, f: &(dyn Fn(usize) -> U + Sync)) -> Vec<U> {
    map_items(vec![(); n], &|i, ()| f(i))
}

/// What `f` gives for each item and its index.
pub fn map_items<T: Send, U: Send>(list: Vec<T>, f: &(dyn Fn(usize, T) -> U + Sync)) -> Vec<U> {
    let mut found: Vec<Option<U>> = list.iter().map(|_| None).collect();
    items(list.into_iter().zip(&mut found).collect(), &|i, (item, found)| *found = Some(f(i, item)));
    found.into_iter().map(|found| found.expect("each item has a result")).collect()
}

/// What `f` gives for all numbers below `n`.
///
/// # Errors
/// That of the lowest number for which there is one; `f` may not be called for higher ones then.
pub fn try_map<U: Send, E: Send>(n: usize, f: &(dyn Fn(usize) -> Result<U, E> + Sync)) -> Result<Vec<U>, E> {
    try_map_items(vec![(); n], &|i, ()| f(i))
}

/// What `f` gives for each item and its index.
///
/// # Errors
/// That of the first item for which there is one; `f` may not be called for later ones then.
pub fn try_map_items<T: Send, U: Send, E: Send>(
    list: Vec<T>,
    f: &(dyn Fn(usize, T) -> Result<U, E> + Sync),
) -> Result<Vec<U>, E> {
    let failed = AtomicUsize::new(usize::MAX);
    let found = map_items(list, &|i, item| {
        if i > failed.load(Ordering::Relaxed) {
            return None;
        }
        let result = f(i, item);
        if result.is_err() {
            failed.fetch_min(i, Ordering::Relaxed);
        }
        Some(result)
    });
    // Only items after the first error were left out.
    found.into_iter().flatten().collect()
}

/// Calls `body` with the items of an iterator, which is asked for one item at a time, in order, when a thread has nothing to
/// do: each thread holds one item. The iterator itself must not call this module's functions, since a thread that waits in
/// one takes up other work of the pool, and would ask the iterator again.
///
/// # Errors
/// That of the first item for which there is one. No further items are asked for then.
pub fn stream<T, E: Send>(
    iterator: &mut (dyn Iterator<Item = T> + Send),
    body: &(dyn Fn(T) -> Result<(), E> + Sync),
) -> Result<(), E> {
    let iterator = Mutex::new(iterator.enumerate());
    let stop = AtomicBool::new(false);
    let first: Mutex<Option<(usize, E)>> = Mutex::new(None);
    each(rayon::current_num_threads(), &|_| {
        // Poisoned: the iterator panicked, which another thread passes on.
        let next = || iterator.lock().ok().and_then(|mut iterator| iterator.next());
        while !stop.load(Ordering::Relaxed)
            && let Some((i, item)) = next()
        {
            if let Err(e) = body(item) {
                stop.store(true, Ordering::Relaxed);
                let mut first = first.lock().expect("nobody panics with the lock");
                if first.as_ref().is_none_or(|(earlier, _)| i < *earlier) {
                    *first = Some((i, e));
                }
            }
        }
    });
    first.into_inner().expect("nobody panics with the lock").map_or(Ok(()), |(_, e)| Err(e))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// What `f` gives in pools of one thread and of several.
    fn in_pools<T: Send + PartialEq + std::fmt::Debug>(f: impl Fn() -> T + Sync) -> T {
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(&f)
        };
        let alone = of(1);
        for threads in [2, 3, 8] {
            assert_eq!(of(threads), alone, "{threads} threads");
        }
        alone
    }

    #[test]
    fn results_are_in_order_and_every_index_is_visited_once() {
        for n in [0, 1, 2, 7, 1000] {
            let wanted: Vec<usize> = (0..n).map(|i| i * 3).collect();
            assert_eq!(in_pools(|| map(n, &|i| i * 3)), wanted);
            assert_eq!(in_pools(|| map_items(wanted.clone(), &|i, x| (i, x / 3))), map(n, &|i| (i, i)));
            let visits = in_pools(|| {
                let visits: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                each(n, &|i| {
                    visits[i].fetch_add(1, Ordering::Relaxed);
                });
                visits.into_iter().map(AtomicUsize::into_inner).collect::<Vec<_>>()
            });
            assert_eq!(visits, vec![1; n]);
        }
    }

    #[test]
    fn chunks_are_disjoint_and_the_last_may_be_shorter() {
        for (n, size) in [(0, 3), (2, 3), (3, 3), (10, 3), (1000, 7)] {
            let found = in_pools(|| {
                let mut found = vec![usize::MAX; n];
                chunks_mut(&mut found, size, &|i, chunk| {
                    assert!(chunk.len() == size || i == n / size && chunk.len() == n % size);
                    chunk.iter_mut().enumerate().for_each(|(j, x)| *x = i * size + j);
                });
                found
            });
            assert_eq!(found, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn items_are_given_away() {
        let texts: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        let sum = AtomicUsize::new(0);
        items(texts, &|i, text: String| {
            assert_eq!(text.parse::<usize>().unwrap(), i);
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 4950);
    }

    #[test]
    fn sums_in_order_have_the_same_bits_for_any_number_of_threads() {
        let x: Vec<f32> = (0..100_000).map(|i| (i as f32).sin() * 1e3).collect();
        let sum = in_pools(|| {
            let parts = map(x.len().div_ceil(1000), &|i| x[i * 1000..].iter().take(1000).sum::<f32>());
            parts.iter().sum::<f32>().to_bits()
        });
        assert_eq!(sum, x.chunks(1000).map(|part| part.iter().sum::<f32>()).sum::<f32>().to_bits());
    }

    #[test]
    fn the_error_is_that_of_the_first_item_that_has_one() {
        let odd = |i: usize| if i >= 300 && i % 2 == 1 { Err(i) } else { Ok(2 * i) };
        assert_eq!(in_pools(|| try_map(1000, &odd)), Err(301));
        assert_eq!(in_pools(|| try_map(301, &odd)), Ok(map(301, &|i| 2 * i)));
        assert_eq!(in_pools(|| try_map(0, &odd)), Ok(vec![]));
        let list: Vec<usize> = (0..1000).rev().collect();
        assert_eq!(in_pools(|| try_map_items(list.clone(), &|_, x| odd(x))), Err(999));
        // Whether an item is left out depends on what other threads do; one thread leaves out all.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let calls = AtomicUsize::new(0);
        let result = pool.install(|| {
            try_map(1000, &|i| {
                calls.fetch_add(1, Ordering::Relaxed);
                odd(i)
            })
        });
        assert_eq!((result, calls.into_inner()), (Err(301), 302));
    }

    #[test]
    fn a_stream_is_asked_in_order_until_there_is_an_error() {
        let seen = in_pools(|| {
            let (asked, seen) = (Mutex::new(vec![]), Mutex::new(vec![]));
            let mut numbers = (0..500).inspect(|&i| asked.lock().unwrap().push(i));
            let result: Result<(), ()> = stream(&mut numbers, &|i| {
                seen.lock().unwrap().push(i);
                Ok(())
            });
            assert_eq!((result, asked.into_inner().unwrap()), (Ok(()), (0..500).collect()));
            let mut seen = seen.into_inner().unwrap();
            seen.sort();
            seen
        });
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        let fails = |i: usize| if i % 100 == 50 { Err(i) } else { Ok(()) };
        assert_eq!(in_pools(|| stream(&mut (0..), &fails)), Err(50));
        assert_eq!(in_pools(|| stream(&mut std::iter::empty(), &fails)), Ok(()));
    }

    #[test]
    fn loops_may_be_nested() {
        let wanted: Vec<usize> = (0..20).map(|i| (0..50).map(|j| i * j).sum()).collect();
        let found = in_pools(|| {
            let mut found = vec![0; 20];
            chunks_mut(&mut found, 1, &|i, found| found[0] = map(50, &|j| i * j).into_iter().sum());
            let mut streamed = Mutex::new(vec![0; 20]);
            let result: Result<(), ()> = stream(&mut (0..20), &|i| {
                let sum = map(50, &|j| i * j).into_iter().sum();
                streamed.lock().unwrap()[i] = sum;
                Ok(())
            });
            assert_eq!(result, Ok(()));
            assert_eq!(&found, streamed.get_mut().unwrap());
            found
        });
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_threads_are_those_of_the_pool() {
        let counts = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| map(9, &|_| rayon::current_num_threads()))
        };
        assert_eq!(counts(3), [3; 9]);
        assert_eq!(counts(1), [1; 9]);
    }

    #[test]
    fn panics_come_out() {
        fn message(f: impl FnOnce()) -> String {
            let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
            panic.downcast_ref::<&str>().unwrap_or(&"").to_string()
        }
        let fails = |i: usize| if i == 7 { panic!("seven") } else { i };
        assert_eq!(in_pools(|| message(|| each(20, &|i| assert!(fails(i) < 20)))), "seven");
        assert_eq!(in_pools(|| message(|| drop(map(20, &fails)))), "seven");
        assert_eq!(in_pools(|| message(|| drop(try_map(20, &|i| Ok::<_, ()>(fails(i)))))), "seven");
        let chunks = || chunks_mut(&mut [0; 20], 1, &|i, chunk| chunk[0] = fails(i));
        assert_eq!(in_pools(|| message(chunks)), "seven");
        let body =
            || assert_eq!(stream(&mut (0..20), &|i| if fails(i) < 20 { Ok(()) } else { Err(i) }), Ok(()));
        assert_eq!(in_pools(|| message(body)), "seven");
        let iterator = || assert_eq!(stream(&mut (0..20).map(fails), &|_| Ok::<_, ()>(())), Ok(()));
        assert_eq!(in_pools(|| message(iterator)), "seven");
        let size = || chunks_mut(&mut [0; 20], 0, &|_, _| ());
        assert!(catch_unwind(size).is_err());
    }
}
