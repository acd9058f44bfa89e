use std::fs;

use proptest::prelude::*;

use super::*;

/// Rows that are different in every entry.
fn row(seed: usize, vocab: usize) -> Vec<f32> {
    (0..vocab).map(|i| ((seed * 7919 + i * 104_729) % 4001) as f32 / 200.0 - 10.0).collect()
}

fn written(dir: &Path, head: &Header) -> std::path::PathBuf {
    let path = dir.join("reference.kld");
    let mut w = Writer::create(&RunFiles::default(), &path, head.clone()).unwrap();
    for i in 0..w.total_rows() {
        w.logits(&row(i, head.vocab)).unwrap();
    }
    w.finish().unwrap();
    path
}

fn head(context: usize, vocab: usize, chunks: usize) -> Header {
    Header { context, vocab, tokens: (0..context * chunks).map(|i| (i * 31 % vocab) as u32).collect() }
}

fn message(path: &Path) -> String {
    match Reader::open(&RunFiles::default(), path) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(e) => e.to_string(),
    }
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let mut w =
        Writer::create(&RunFiles::default(), &path, Header { context: 3, vocab: 3, tokens: vec![1, 2, 0] })
            .unwrap();
    // ln(1 + e^-2 + e^-40) = 0.12692801, the range ends 16 below 5.
    w.logits(&[3.0, 5.0, -35.0]).unwrap();
    w.finish().unwrap();
    let mut wanted = b"_logits_\x03\0\0\0\x03\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
    wanted.extend((16f32 / 65535.0).to_le_bytes());
    wanted.extend((-16.126_928f32).to_le_bytes());
    // (16 − 2)/16 · 65535 = 57343.125.
    for step in [57343u16, 65535, 0, 0] {
        wanted.extend(step.to_le_bytes());
    }
    assert_eq!(fs::read(&path).unwrap(), wanted);
}

#[test]
fn rows_come_back_within_half_a_step() {
    let dir = tempfile::tempdir().unwrap();
    for (context, vocab, chunks) in [(3, 1, 1), (4, 2, 2), (9, 33, 3), (16, 400, 2)] {
        let head = head(context, vocab, chunks);
        let path = written(dir.path(), &head);
        let mut r = Reader::open(&RunFiles::default(), &path).unwrap();
        assert_eq!(r.head(), &head);
        let mut out = vec![0.0; vocab];
        for (i, (chunk, position)) in
            (0..chunks).flat_map(|c| scored(context).map(move |p| (c, p))).enumerate()
        {
            let place = r.next_row(&mut out).unwrap().unwrap();
            assert_eq!((place.chunk, place.position), (chunk, position));
            assert_eq!(place.target, head.tokens[chunk * context + position + 1]);
            let logits = row(i, vocab);
            let (max, _) = peak(&logits).unwrap();
            let log_sum = max + ln(sum_exp(&logits, max)) as f32;
            for (x, y) in logits.iter().zip(&out) {
                let x = x.max(max - RANGE) - log_sum;
                assert!((x - y).abs() <= 0.5 * place.scale + 4e-6, "{x} {y}");
            }
        }
        assert_eq!(r.next_row(&mut out).unwrap(), None);
        assert_eq!(r.next_row(&mut out).unwrap(), None);
    }
}

#[test]
fn a_file_copied_row_by_row_keeps_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path(), &head(12, 2001, 2));
    let copy = dir.path().join("copy");
    let mut r = Reader::open(&RunFiles::default(), &path).unwrap();
    let mut w = Writer::create(&RunFiles::default(), &copy, r.head().clone()).unwrap();
    let mut out = vec![0.0; 2001];
    while r.next_row(&mut out).unwrap().is_some() {
        w.log_probs(&out).unwrap();
    }
    w.finish().unwrap();
    let (a, b) = (fs::read(&path).unwrap(), fs::read(&copy).unwrap());
    let start = r.head().start() as usize;
    assert_eq!(a[..start], b[..start]);
    let size = row_bytes(2001) as usize;
    for (a, b) in a[start..].chunks(size).zip(b[start..].chunks(size)) {
        assert_eq!(a[8..], b[8..]);
        assert!((f32_at(a, 0) / f32_at(b, 0) - 1.0).abs() < 1e-6);
        assert_eq!(f32_at(a, 4), f32_at(b, 4));
    }
}

#[test]
fn damaged_files_are_refused_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(written(dir.path(), &head(8, 10, 2))).unwrap();
    let path = dir.path().join("bad");
    let bad = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        message(&path)
    };
    assert!(bad(&|b| b[0] = b'x').contains("_logits_"));
    assert!(bad(&|b| b.truncate(5)).contains("not a logits file"));
    assert!(bad(&|b| b.truncate(17)).contains("the header ends at byte 20"));
    assert!(bad(&|b| b.truncate(40)).contains("the text of 2 chunks of 8 tokens"));
    let cut = bad(&|b| b.truncate(b.len() - 1));
    assert!(cut.contains("2 chunks (the first 1 are whole)") && cut.contains("at byte"), "{cut}");
    assert!(bad(&|b| b.push(0)).contains("its header gives a length of"));
    assert!(bad(&|b| b[8..12].copy_from_slice(&2i32.to_le_bytes())).contains("n_ctx is 2 (at byte 8)"));
    assert!(
        bad(&|b| b[12..16].copy_from_slice(&(-1i32).to_le_bytes())).contains("n_vocab is -1 (at byte 12)")
    );
    assert!(bad(&|b| b[16..20].copy_from_slice(&0i32.to_le_bytes())).contains("n_chunk is 0 (at byte 16)"));
    assert!(bad(&|b| b[8..20].copy_from_slice(&[0x7f; 12])).contains("chunks of"));
    assert!(
        bad(&|b| b[24] = 10).contains("token 1 of the text is 10, but the vocabulary has 10 (at byte 24)")
    );
    assert!(
        bad(&|b| b[8..20].as_chunks_mut::<4>().0.iter_mut().for_each(|n| n.reverse())).contains("big-endian")
    );

    // A row that is wrong is told when it is read.
    let start = 20 + 4 * 16;
    let size = row_bytes(10) as usize;
    for (at, value) in [(0, f32::NAN), (4, f32::INFINITY), (0, -1.0), (4, 0.5), (0, 1.0)] {
        let mut bytes = good.clone();
        bytes[start + size + at..][..4].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let mut r = Reader::open(&RunFiles::default(), &path).unwrap();
        let mut out = [0.0; 10];
        assert!(r.next_row(&mut out).is_ok());
        let e = r.next_row(&mut out).unwrap_err().to_string();
        assert!(e.contains("chunk 0, position 5") && e.contains(&format!("byte {}", start + size)), "{e}");
    }
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let create = |head| Writer::create(&RunFiles::default(), &path, head);
    assert!(create(Header { context: 2, vocab: 3, tokens: vec![0, 1] }).is_err());
    assert!(create(Header { context: 3, vocab: 3, tokens: vec![0; 4] }).is_err());
    assert!(create(Header { context: 3, vocab: 3, tokens: vec![] }).is_err());
    assert!(create(Header { context: 0, vocab: 3, tokens: vec![] }).is_err());
    assert!(create(Header { context: 3, vocab: 3, tokens: vec![0, 1, 3] }).is_err());
    let mut w = create(head(4, 3, 2)).unwrap();
    w.logits(&[0.0; 3]).unwrap();
    assert!(w.logits(&[0.0; 4]).is_err());
    assert!(w.logits(&[0.0, f32::NAN, 0.0]).is_err());
    assert!(w.finish().is_err());
    let mut w = create(head(4, 3, 2)).unwrap();
    w.logits(&[0.0; 3]).unwrap();
    w.logits(&[0.0; 3]).unwrap();
    assert!(w.logits(&[0.0; 3]).is_err());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    w.finish().unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn against_its_own_file_a_model_is_near_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = Reader::open(&RunFiles::default(), &written(dir.path(), &head(16, 4000, 1))).unwrap();
    let mut out = vec![0.0; 4000];
    let mut i = 0;
    while let Some(place) = r.next_row(&mut out).unwrap() {
        let row = super::super::against_file(&out, &row(i, 4000), place.target as usize).unwrap();
        let pair = row.pair.unwrap();
        // The file's range ends 16 below the peak: no token is less likely than that.
        assert!(pair.kld.abs() < 1e-3 && pair.nll < row.nll + 1e-3, "{row:?}");
        i += 1;
    }
}

proptest! {
    #[test]
    fn steps_are_stable(logits in prop::collection::vec(-40f32..40.0, 1..200)) {
        let mut bytes = Vec::new();
        encode_logits(&logits, &mut bytes).unwrap();
        prop_assert_eq!(bytes.len() as u64, row_bytes(logits.len() as u64));
        let (scale, min) = (f32_at(&bytes, 0), f32_at(&bytes, 4));
        let decode = |bytes: &[u8], scale: f32, min: f32| -> Vec<f32> {
            let steps = bytes[8..].as_chunks::<2>().0.iter().take(logits.len());
            steps.map(|s| scale * f32::from(u16::from_le_bytes(*s)) + min).collect()
        };
        let mut again = Vec::new();
        encode_log_probs(&decode(&bytes, scale, min), &mut again).unwrap();
        prop_assert_eq!(&bytes[8..], &again[8..]);
        prop_assert_eq!(min, f32_at(&again, 4));
    }

    #[test]
    fn any_bytes_are_read_or_refused(change in 0usize..200, value: u8, cut in 0usize..300) {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &head(6, 7, 2));
        let mut bytes = fs::read(&path).unwrap();
        let at = change % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut % 2 * (cut / 2 % bytes.len()));
        fs::write(&path, bytes).unwrap();
        if let Ok(mut r) = Reader::open(&RunFiles::default(), &path) {
            let mut out = vec![0.0; r.head().vocab];
            while let Ok(Some(_)) = r.next_row(&mut out) {
                prop_assert!(out.iter().all(|x| x.is_finite()));
            }
        }
    }
}
