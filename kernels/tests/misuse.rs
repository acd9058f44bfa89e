//! Safe callers who get sizes wrong: whatever they do through the public functions is refused before memory that is not
//! theirs is read or written.

use std::panic::{AssertUnwindSafe, catch_unwind};

use formats::block::{DType, TYPES};
use kernels::activations::{Activations, Form, TOKENS};
use kernels::attention::{KvHead, KvType};
use kernels::gemm::{Part, View, gemm, product};
use kernels::tile::float::Floats;
use kernels::tile::{Panel, ROWS};
use kernels::{Aligned, Isa, dot, integer, tile};

fn refused<T>(f: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// Types that are multiplied as integers, with their blocks' weights and bytes, and what they ask of activations.
fn types() -> impl Iterator<Item = (DType, usize, usize, (usize, i32))> {
    TYPES.iter().filter_map(|t| Some((t.dtype, t.weights, t.bytes, integer(t.dtype)?)))
}

fn activations(form: Form, offset: i32, tokens: usize, cols: usize) -> Activations {
    let mut x = Activations::default();
    x.set(Isa::current(), form, offset, &vec![0.5; tokens * cols], cols);
    x
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    for isa in Isa::available() {
        for (dtype, weights, bytes, (group, offset)) in types() {
            let name = format!("{} on {}", dtype.name(), isa.name());
            let kernel = dot::integer(dtype, isa).unwrap();
            let x = activations(Form::Groups(group), offset, 3, 9 * weights);
            let row = vec![0; 9 * bytes];
            assert_eq!(kernel.row(&row, &x, 2), 0.0, "{name}");
            for len in [0, 1, bytes - 1, bytes, 8 * bytes, 9 * bytes - 1] {
                assert!(refused(|| kernel.row(&row[..len], &x, 0)), "{name}: {len} bytes");
            }
            assert!(refused(|| kernel.row(&vec![0; 10 * bytes], &x, 0)), "{name}: a longer row");
            assert!(refused(|| kernel.row(&vec![0; 9 * bytes + 1], &x, 0)), "{name}: a broken block");
            // Three tokens have room for sixteen; there are three all the same.
            for token in [3, 15, 16, usize::MAX / 2, usize::MAX] {
                assert!(refused(|| kernel.row(&row, &x, token)), "{name}: token {token}");
            }
            for other in [16, 32, 256].into_iter().filter(|&g| g != group) {
                let x = activations(Form::Groups(other), offset, 3, 256 * weights);
                assert!(refused(|| kernel.row(&vec![0; 256 * bytes], &x, 0)), "{name}: groups of {other}");
            }
            let x = activations(Form::Groups(group), (offset + 1) % 128, 3, 9 * weights);
            assert!(refused(|| kernel.row(&row, &x, 0)), "{name}: another offset");
            for form in [Form::Float, Form::TokenFloat] {
                let x = activations(form, offset, 3, 9 * weights);
                assert!(refused(|| kernel.row(&row, &x, 0)), "{name}: floats");
            }
            assert!(refused(|| kernel.row(&row, &Activations::default(), 0)), "{name}: no tokens");
        }
    }
}

#[test]
fn activations_that_were_refused_multiply_nothing() {
    let (group, offset) = integer(DType::Q4_0).unwrap();
    let mut x = activations(Form::Groups(group), offset, 1, 4096);
    assert!(refused(|| x.set(Isa::current(), Form::Groups(group), offset, &[0.0; 32], 0)));
    for isa in Isa::available() {
        assert!(refused(|| dot::integer(DType::Q4_0, isa).unwrap().row(&[0; 128 * 18], &x, 0)));
    }
}

#[test]
fn panels_of_rows_that_do_not_fit_are_refused() {
    for isa in Isa::available() {
        for (dtype, weights, bytes, (group, offset)) in types() {
            let name = format!("{} on {}", dtype.name(), isa.name());
            let kernel = tile::integer(dtype, isa).unwrap();
            let (row, mut panel) = (vec![0u8; 9 * bytes], Panel::default());
            let x = activations(Form::Groups(group), offset, 17, 9 * weights);
            let mut out = [[f32::NAN; ROWS]; TOKENS];
            let mut run = |panel: &Panel, x: &Activations, token| kernel.multiply(panel, x, token, &mut out);
            assert!(refused(|| run(&panel, &x, 0)), "{name}: never unpacked");
            kernel.unpack(&[&row[..]; ROWS], &mut panel);
            run(&panel, &x, 16);
            for token in [1, 15, 17, 32, usize::MAX - 15, usize::MAX] {
                assert!(refused(|| run(&panel, &x, token)), "{name}: token {token}");
            }
            for (other, offset) in [(group, (offset + 1) % 128), (16, offset), (32, offset), (256, offset)]
                .into_iter()
                .filter(|&o| o != (group, offset))
            {
                let x = activations(Form::Groups(other), offset, 17, 256 * weights);
                kernel.unpack(&[&vec![0; 256 * bytes]], &mut panel);
                assert!(refused(|| run(&panel, &x, 0)), "{name}: groups of {other}, offset {offset}");
            }
            for cols in [1, 8, 10] {
                let x = activations(Form::Groups(group), offset, 17, cols * weights);
                kernel.unpack(&[&row], &mut panel);
                assert!(refused(|| run(&panel, &x, 0)), "{name}: {cols} blocks for nine");
            }
            let floats = activations(Form::Float, 0, 17, 9 * weights);
            assert!(refused(|| run(&panel, &floats, 0)), "{name}: floats");
            // What is refused leaves a panel that nothing can be done with.
            let short = &row[..8 * bytes];
            let cut = &row[..9 * bytes - 1];
            let many = vec![&row[..]; ROWS + 1];
            for rows in [&[][..], &[&row, short], &[short, &row], &[&row, cut], &[cut], &many] {
                kernel.unpack(&[&row], &mut panel);
                assert!(refused(|| kernel.unpack(rows, &mut panel)), "{name}: {} rows", rows.len());
                assert!(refused(|| run(&panel, &x, 0)), "{name}: after {} rows", rows.len());
            }
        }
    }
}

#[test]
fn panels_are_for_the_kernel_that_unpacked_them() {
    let kernels: Vec<_> = Isa::available()
        .into_iter()
        .flat_map(|isa| types().map(move |t| (isa, t, tile::integer(t.0, isa).unwrap())))
        .collect();
    for (isa, (dtype, weights, bytes, _), from) in &kernels {
        let mut panel = Panel::default();
        from.unpack(&[&vec![0; 256 / weights * bytes]], &mut panel);
        assert_eq!(panel.cols(), 256);
        for (other_isa, (other, _, _, (group, offset)), kernel) in &kernels {
            let x = activations(Form::Groups(*group), *offset, 1, 256);
            let mut out = [[0.0; ROWS]; TOKENS];
            let fits = isa == other_isa && dtype == other;
            let run = || kernel.multiply(&panel, &x, 0, &mut out);
            assert_eq!(refused(run), !fits, "{} for {}", dtype.name(), other.name());
        }
    }
}

#[test]
fn floats_that_do_not_fit_are_refused() {
    for isa in Isa::available() {
        for (dtype, width) in [(DType::F32, 4), (DType::F16, 2), (DType::BF16, 2)] {
            let kernel = dot::float(dtype, isa).unwrap();
            let (row, x) = (vec![0; 100 * width], vec![1.0; 100]);
            assert_eq!(kernel.row(&row, &x), 0.0);
            assert_eq!(kernel.row(&[], &[]), 0.0);
            for len in [0, 1, 32 * width, 99 * width, 100 * width - 1] {
                assert!(refused(|| kernel.row(&row[..len], &x)), "{} {len}", dtype.name());
            }
            assert!(refused(|| kernel.row(&row, &x[..99])), "{}", dtype.name());
        }
        assert!(refused(|| dot::floats(isa, &[0.0; 31], &[0.0; 32])));
        let mut panel = Floats::default();
        let mut out = [[0.0; ROWS]; TOKENS];
        assert!(refused(|| tile::float::tile(isa, &panel, &[], &mut out)), "no columns");
        assert!(refused(|| panel.fill(isa, 3, [&[0.0; 2][..]].into_iter())), "a short row");
        assert!(refused(|| panel.fill(isa, 3, [&[0.0; 4][..]].into_iter())), "a long row");
        assert!(refused(|| panel.fill(isa, 3, [&[0.0; 3][..]; ROWS + 1].into_iter())), "too many rows");
        assert!(refused(|| panel.fill(isa, 1 << (usize::BITS - 3), [].into_iter())), "too many columns");
        panel.fill(isa, 3, [&[0.0; 3][..]].into_iter());
        assert!(refused(|| tile::float::tile(isa, &panel, &[0.0; 4], &mut out)), "a vector and a third");
        assert!(refused(|| tile::float::tile(isa, &panel, &[0.0; 3 * (TOKENS + 1)], &mut out)), "too many");
    }
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let isa = Isa::current();
    let x = [1.0; 100];
    let view = View::rows(&x, 10);
    let mut c = [0.0; 100];
    gemm(isa, Part::Whole, (10, 10, 10), 1.0, view, view, &mut c, 10);
    for size in [(11, 10, 10), (10, 11, 10), (10, 10, 11), (usize::MAX, 10, 10), (10, usize::MAX, 10)] {
        assert!(refused(|| gemm(isa, Part::Whole, size, 1.0, view, view, &mut c, 10)), "{size:?}");
        assert!(refused(|| product(isa, size, view, view.from(1, 1))), "{size:?}");
    }
    assert!(refused(|| gemm(isa, Part::Whole, (10, 10, 10), 1.0, view, view, &mut c, 9)), "rows overlap");
    assert!(refused(|| gemm(isa, Part::Whole, (10, 10, 10), 1.0, view, view, &mut c, usize::MAX)));
    assert!(refused(|| product(isa, (1 << (usize::BITS / 2), 1 << (usize::BITS / 2), 1), view, view)));
}

#[test]
fn keys_that_are_not_there_are_refused() {
    assert!(refused(|| KvHead::new(KvType::F16, 0, 8)));
    assert!(refused(|| KvHead::new(KvType::Q8_0, 48, 8)));
    for isa in Isa::available() {
        for kind in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let mut head = KvHead::new(kind, 32, 8);
            let (x, mut out, mut scores) = ([1.0; 64], [0.0; 64], Aligned::default());
            assert!(refused(|| head.put(0, &x[..31], &x[..32])));
            assert!(refused(|| head.put(0, &x[..32], &x[..33])));
            assert!(refused(|| head.put(usize::MAX - 1, &x[..32], &x[..32])));
            let mut run = |head: &KvHead, queries: usize, results: usize, seen: [usize; 2]| {
                refused(|| {
                    head.attend(isa, &x[..queries], |i| seen[i], 1.0, &mut scores, &mut out[..results]);
                })
            };
            assert!(run(&head, 32, 32, [1, 1]), "no tokens yet");
            head.put(0, &x[..32], &x[..32]);
            assert!(!run(&head, 64, 64, [1, 1]));
            assert!(!run(&head, 0, 0, [1, 1]));
            assert!(run(&head, 64, 32, [1, 1]), "results of one query");
            assert!(run(&head, 33, 33, [1, 1]), "a query and a number");
            assert!(run(&head, 64, 64, [0, 1]), "nothing to see");
            assert!(run(&head, 64, 64, [2, 1]), "less and less");
            assert!(run(&head, 64, 64, [1, 1 << 20]), "more than there are");
            assert!(run(&head, 64, 64, [1, usize::MAX]), "far more than there are");
        }
    }
}
