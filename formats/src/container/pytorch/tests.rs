//! Files of torch.save (`scripts/make_pytorch_vectors.py` makes them), archives put together by hand, and damaged ones.

use super::*;
use crate::block::DType;
use crate::container;

const STATE: &[u8] = include_bytes!("vectors/state.bin");
const PROTOCOL4: &[u8] = include_bytes!("vectors/protocol4.pt");
const TRAINING: &[u8] = include_bytes!("vectors/training.pt");
const TRANSPOSED: &[u8] = include_bytes!("vectors/transposed.bin");

fn read_whole(file: &[u8]) -> Result<Model, Error> {
    container::read(&Input::whole("x.bin", file))
}

fn failure(file: &[u8]) -> String {
    read_whole(file).unwrap_err().to_string()
}

fn bytes<'f>(file: &'f [u8], t: &Tensor) -> &'f [u8] {
    &file[t.location.offset as usize..][..t.location.len as usize]
}

#[test]
fn a_state_dict_of_torch_is_read() {
    for file in [STATE, PROTOCOL4] {
        let model = read_whole(file).unwrap();
        assert_eq!((model.format, model.order), (Format::PyTorch, ByteOrder::Little));
        assert!(model.notes.is_empty(), "{:?}", model.notes);
        let f32s = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let bf16 = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()[2..].to_vec()).collect::<Vec<u8>>();
        let f16 =
            [0u16, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500].iter().flat_map(|x| x.to_le_bytes()).collect();
        let expected: Vec<(&str, DType, &[u64], Vec<u8>)> = vec![
            ("half", DType::F16, &[2, 3], f16),
            ("part", DType::BF16, &[4], bf16(&[2.0, 3.0, 4.0, 5.0])),
            ("whole", DType::BF16, &[8], bf16(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])),
            ("parameter", DType::F32, &[2], f32s(&[0.0, 1.0])),
            ("scalar", DType::F64, &[], 3f64.to_le_bytes().to_vec()),
            ("empty", DType::F32, &[0, 3], vec![]),
            ("row", DType::F32, &[1, 4], f32s(&[0.0, 1.0, 2.0, 3.0])),
            ("float8", DType::F8_E4M3, &[4], vec![0, 0x38, 0x40, 0x44]),
            ("torch.uint16", DType::U16, &[2], vec![0, 0, 1, 0]),
            ("torch.int64", DType::I64, &[2], [0u64.to_le_bytes(), 1u64.to_le_bytes()].concat()),
            ("torch.int32", DType::I32, &[2], vec![0, 0, 0, 0, 1, 0, 0, 0]),
            ("torch.int16", DType::I16, &[2], vec![0, 0, 1, 0]),
            ("torch.int8", DType::I8, &[2], vec![0, 1]),
            ("torch.uint8", DType::U8, &[2], vec![0, 1]),
            ("torch.bool", DType::Bool, &[2], vec![0, 1]),
        ];
        assert_eq!(model.tensors.len(), expected.len());
        for (t, (name, dtype, shape, data)) in model.tensors.iter().zip(expected) {
            let found = (t.name.as_str(), t.encoding, &t.shape[..], bytes(file, t));
            assert_eq!(found, (name, Encoding::Blocks(dtype), shape, &data[..]));
        }
    }
}

#[test]
fn the_state_dict_in_a_training_checkpoint_is_found() {
    let model = read_whole(TRAINING).unwrap();
    let names: Vec<&str> = model.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["w", "with_attributes"]);
    assert!(model.notes[0].contains("under \"state_dict\""), "{:?}", model.notes);
    assert!(model.notes[1].contains("\"steps\" (a number)"), "{:?}", model.notes);
}

#[test]
fn tensors_with_gaps_are_refused() {
    let why = failure(TRANSPOSED);
    assert!(why.contains("tensor w") && why.contains(".contiguous()"), "{why}");
}

#[test]
fn only_what_is_needed_is_read() {
    // The numbers of a large storage are not asked for.
    let mut data = vec![(String::from("m/data.pkl"), tensor_pickle("0", 1 << 18, 0, &[1 << 18], &[1]))];
    data.push(("m/data/0".into(), vec![0; 1 << 20]));
    let file = zip(&data, Kind::Plain);
    let most = std::cell::Cell::new(0);
    let model = read("x.bin", file.len() as u64, |range| {
        most.set(most.get() + range.end - range.start);
        Ok::<_, Error>(Cow::Borrowed(&file[range.start as usize..range.end as usize]))
    });
    assert_eq!(model.unwrap().tensors[0].location.len, 1 << 20);
    assert!(most.get() < 70_000, "{}", most.get());
    // A caller that has the beginning is told what is missing.
    let start = Input { name: "x.bin", bytes: &file[..4096], len: file.len() as u64 };
    assert!(matches!(container::read(&start).unwrap_err().fault, Fault::More(n) if n == file.len() as u64));
}

/// How an archive differs from a plain one.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// Lengths and offsets are in fields of 64 bits.
    Wide,
    /// Members say that they are compressed.
    Deflated,
}

/// An archive of these members.
fn zip(members: &[(String, Vec<u8>)], kind: Kind) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in members {
        let (at, len) = (file.len() as u64, data.len() as u64);
        let method: u16 = if kind == Kind::Deflated { 8 } else { 0 };
        let header = |signature: &[u8], narrow: u32| {
            let mut b = signature.to_vec();
            b.extend([0, 0, 0, 8]);
            b.extend(method.to_le_bytes());
            b.extend([0; 8]);
            b.extend(narrow.to_le_bytes());
            b.extend(narrow.to_le_bytes());
            b.extend((name.len() as u16).to_le_bytes());
            b
        };
        file.extend(header(b"PK\x03\x04", 0));
        file.extend(3u16.to_le_bytes());
        file.extend(name.as_bytes());
        file.extend([0; 3]);
        file.extend(data);
        let narrow = if kind == Kind::Wide { u32::MAX } else { len as u32 };
        directory.extend(header(b"PK\x01\x02\0\0", narrow));
        let extra = match kind {
            Kind::Wide => {
                let numbers = [len, len, at].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
                [&[9, 9, 1, 0, 7, 1, 0, 24, 0][..], &numbers].concat() // another field first
            }
            _ => Vec::new(),
        };
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(if kind == Kind::Wide { u32::MAX } else { at as u32 }.to_le_bytes());
        directory.extend(name.as_bytes());
        directory.extend(extra);
    }
    let (at, size) = (file.len() as u64, directory.len() as u64);
    file.extend(directory);
    if kind == Kind::Wide {
        let end = file.len() as u64;
        file.extend(b"PK\x06\x06");
        file.extend([0; 36]);
        file.extend(size.to_le_bytes());
        file.extend(at.to_le_bytes());
        file.extend(b"PK\x06\x07\0\0\0\0");
        file.extend(end.to_le_bytes());
        file.extend([1, 0, 0, 0]);
    }
    file.extend(b"PK\x05\x06");
    file.extend([0; 8]);
    let narrow = |n: u64| if kind == Kind::Wide { u32::MAX } else { n as u32 }.to_le_bytes();
    file.extend(narrow(size));
    file.extend(narrow(at));
    let comment = b"made for a test";
    file.extend((comment.len() as u16).to_le_bytes());
    file.extend(comment);
    file
}

/// An archive with this pickle and a storage of 8 bytes.
fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    let members = [("data.pkl", pickle), ("data/0", &[1, 2, 3, 4, 5, 6, 7, 8])];
    zip(&members.map(|(name, data)| (format!("archive/{name}"), data.to_vec())), Kind::Plain)
}

/// Instructions: a text.
fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8][..], text.as_bytes()].concat()
}

/// Instructions: a whole number.
fn int(n: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &n.to_le_bytes()].concat()
}

/// Instructions: an f32 tensor.
fn tensor(key: &str, numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let tuple = |numbers: &[i64]| {
        [b"(".to_vec(), numbers.iter().flat_map(|&n| int(n)).collect(), b"t".to_vec()].concat()
    };
    let parts: [&[u8]; 13] = [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text(key),
        &text("cpu"),
        &int(numel),
        b"tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89N",
        b"t",
        b"R",
    ];
    parts.concat()
}

/// A pickle of a dictionary with the tensor `w`.
fn tensor_pickle(key: &str, numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    [b"\x80\x02}", &text("w")[..], &tensor(key, numel, offset, shape, strides), b"s."].concat()
}

#[test]
fn archives_of_other_kinds() {
    let members = |order: &str| {
        let pickle = tensor_pickle("k", 2, 0, &[2], &[1]);
        let all = [("data.pkl", &pickle[..]), ("byteorder", order.as_bytes()), ("data/k", &[0; 8])];
        all.map(|(name, data)| (format!("a folder/{name}"), data.to_vec()))
    };
    for kind in [Kind::Plain, Kind::Wide] {
        for (text, order) in [("little", ByteOrder::Little), ("big", ByteOrder::Big)] {
            let model = read_whole(&zip(&members(text), kind)).unwrap();
            assert_eq!((model.order, model.tensors[0].shape[0]), (order, 2));
        }
    }
    let why = failure(&zip(&members("little"), Kind::Deflated));
    assert!(why.contains("compressed"), "{why}");
    let twice = [members("little"), members("little")].concat();
    assert!(failure(&zip(&twice, Kind::Plain)).contains("appears twice"));
    let mut script = members("little").to_vec();
    script.push(("a folder/constants.pkl".into(), Vec::new()));
    assert!(failure(&zip(&script, Kind::Plain)).contains("TorchScript"));
    // What of two is meant is not known, and is the same in every run.
    let two = |other: &str| {
        let mut members = members("little").to_vec();
        members.push((other.into(), b"\x80\x02}.".to_vec()));
        zip(&members, Kind::Plain)
    };
    for _ in 0..8 {
        let why = failure(&two("b/data.pkl"));
        assert!(
            why.contains("several checkpoints") && why.contains("(a folder/data.pkl and b/data.pkl)"),
            "{why}"
        );
        assert_eq!(read_whole(&two("metadata.pkl")).unwrap().tensors.len(), 1);
        assert_eq!(read_whole(&two("extra_data.pkl")).unwrap().tensors.len(), 1);
    }
    let document = [("word/document.xml".to_string(), b"<x/>".to_vec())];
    assert!(failure(&zip(&document, Kind::Plain)).contains("no PyTorch checkpoint"));
}

#[test]
fn nothing_is_executed() {
    let call = [b"\x80\x02}", &text("x")[..], b"cposix\nsystem\n", &text("touch x")[..], b"\x85Rs"].concat();
    let alone = [&call[..], b"."].concat();
    let why = failure(&with_pickle(&alone));
    assert!(why.contains("state dict"), "{why}");
    let beside = [&call[..], &text("w")[..], &tensor("0", 2, 0, &[2], &[1])[..], b"s."].concat();
    let model = read_whole(&with_pickle(&beside)).unwrap();
    assert_eq!(model.tensors.len(), 1);
    assert!(model.notes[0].contains("posix.system would make, which is not executed"), "{:?}", model.notes);
}

#[test]
fn tensors_outside_of_their_storage_are_refused() {
    for (key, offset, shape, strides, says) in [
        ("0", 0, &[3][..], &[1][..], "ends at byte 12 of its storage, which has 8"),
        ("0", 1, &[2], &[1], "ends at byte 12"),
        ("0", i64::MAX, &[2], &[1], "overflows"),
        ("0", -1, &[2], &[1], "is no length"),
        ("0", 0, &[i64::MAX, 4], &[1, 1], "overflows"),
        ("0", 0, &[2], &[2], ".contiguous()"),
        ("0", 0, &[2], &[0], ".contiguous()"),
        ("0", 0, &[1, 2], &[1], "strides"),
        ("0", 0, &[1; 9], &[1; 9], "more than 8 dimensions"),
        ("../0", 0, &[1], &[1], "not in the archive"),
    ] {
        let why = failure(&with_pickle(&tensor_pickle(key, 2, offset, shape, strides)));
        assert!(why.contains(says), "{says}: {why}");
    }
}

#[test]
fn pickles_that_are_no_state_dict() {
    for (pickle, says) in [
        (&b"\x80\x04}."[..], "an empty dictionary"),
        (b"\x80\x02].", "a list"),
        (b"\x80\x02N.", "None"),
        (b"\x80\x02}K\x01K\x02s.", "a dictionary of other values"),
        (b"\x80\x02ca\nB\n)\x81.", "a.B"),
        (b"\x80\x01N.", "protocol 1"),
        (b"\x80\x02\xff.", "instruction 0xff"),
        (b"\x80\x02N", "too early"),
        (b"\x80\x02.", "more values"),
        (b"\x80\x02t.", "a mark"),
        (b"\x80\x02h\x05.", "not remembered"),
        (b"\x80\x02}(K\x01u.", "has no value"),
        (b"\x80\x02N(K\x01K\x02u.", "no dictionary"),
        (b"\x80\x02X\xff\xff\xff\xffx.", "too early"),
        (b"\x80\x02X\x01\0\0\0\xff.", "UTF-8"),
        (b"\x80\x02NQ.", "no tuple"),
        (b"\x80\x02N)R.", "no function"),
        (b"", "too early"),
    ] {
        let why = failure(&with_pickle(pickle));
        assert!(why.contains(says), "{says}: {why}");
    }
    let optimizer =
        [b"\x80\x02}".to_vec(), text("state"), b"}s".to_vec(), text("param_groups"), b"]s.".to_vec()];
    let why = failure(&with_pickle(&optimizer.concat()));
    assert!(why.contains("the state of an optimizer"), "{why}");
    let twice = [
        b"\x80\x02}",
        &[text("w"), tensor("0", 2, 0, &[2], &[1]), b"s".to_vec()].concat().repeat(2)[..],
        b".",
    ];
    assert!(failure(&with_pickle(&twice.concat())).contains("appears twice"));
}

#[test]
fn much_from_little_is_refused() {
    // A long list that becomes a dictionary again and again, and a value that holds itself.
    let pairs = [b"\x80\x02](".to_vec(), b"NN\x86".repeat(1 << 16), b"eq\x01".to_vec()].concat();
    let calls = b"ccollections\nOrderedDict\nh\x01\x85R".repeat(100);
    let why = failure(&with_pickle(&[pairs, calls, b".".to_vec()].concat()));
    assert!(why.contains("copies more than"), "{why}");
    // One tensor's function and arguments, remembered and called again and again.
    let one = tensor("0", 2, 0, &[2], &[1]);
    let arguments = one.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 1;
    let (function, arguments) = (&one[..arguments], one[arguments..].strip_suffix(b"R").unwrap());
    let first = [&b"\x80\x02"[..], function, b"q\x01", arguments, b"q\x03R0"].concat();
    let why = failure(&with_pickle(&[first, b"h\x01h\x03R0".repeat(1 << 16), b"N.".to_vec()].concat()));
    assert!(why.contains("more than 65536 tensors"), "{why}");
    assert!(failure(&with_pickle(b"\x80\x02}q\x01\x8c\x05modelh\x01s.")).contains("state dict"));
    for (many, says) in [
        (b"N", "the height of the stack"),
        (b"(", "the height of the stack"),
        (b"]", "more than 524288 values"),
    ] {
        let why = failure(&with_pickle(&[b"\x80\x02".to_vec(), many.repeat(1 << 20)].concat()));
        assert!(why.contains(says), "{why}");
    }
    // Deeper than any stack of calls.
    let deep = [b"\x80\x02N".to_vec(), b"\x85".repeat(1 << 19 >> 1), b".".to_vec()].concat();
    assert!(failure(&with_pickle(&deep)).contains("a tuple"));
}

#[test]
fn damage_is_an_error() {
    for file in [STATE, PROTOCOL4, TRAINING, &with_pickle(&tensor_pickle("0", 2, 0, &[2], &[1]))] {
        for end in (0..file.len()).step_by(3) {
            assert!(read_whole(&file[..end]).is_err());
        }
        for at in 0..file.len() {
            for bit in [0x01, 0x80, 0xff] {
                let mut damaged = file.to_vec();
                damaged[at] ^= bit;
                // Damage may be in the numbers, or in what is not read.
                if let Ok(model) = read_whole(&damaged) {
                    assert!(
                        model.tensors.iter().all(|t| t.location.offset + t.location.len <= file.len() as u64)
                    );
                }
            }
        }
    }
}
