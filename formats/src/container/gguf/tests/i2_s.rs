//! bitnet.cpp's own type.

use super::*;
use crate::block::BITNET_CPP;

fn ternary(name: &str, shape: &[u64]) -> Tensor {
    Tensor { encoding: Encoding::I2S, ..tensor(name, shape, DType::F32) }
}

fn settings(architecture: &str) -> Metadata {
    let mut m = Metadata::new();
    m.set("general.architecture", Value::text(architecture));
    m
}

fn tensors() -> Vec<Tensor> {
    vec![
        ternary("one", &[3, 128]),
        tensor("norm", &[5], DType::F32),
        ternary("two", &[1, 256]),
        ternary("none", &[0, 128]),
    ]
}

fn options(order: ByteOrder, split: Split) -> Options {
    Options { order, split }
}

/// A file with these tensors. `with` replaces "bitnet" as architecture, and must have the same length.
fn file(with: &str) -> Vec<u8> {
    let layout =
        layout("x", &settings("bitnet"), &tensors(), options(ByteOrder::Little, Split::None)).unwrap();
    let mut bytes = materialise(&layout).remove(0);
    let at = find(&bytes, b"bitnet");
    bytes[at..at + 6].copy_from_slice(with.as_bytes());
    bytes
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).expect("it is there")
}

/// The offset of the number of a tensor's type: after its name, the number of dimensions and two dimensions.
fn type_at(bytes: &[u8], name: &str) -> usize {
    find(bytes, &[&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat()) + 8 + name.len() + 4 + 16
}

#[test]
fn it_is_written_and_read_under_its_architectures() {
    for architecture in ["bitnet", "bitnet-25", "bitnet-b1.58"] {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let m = settings(architecture);
            let layout = layout("x", &m, &tensors(), options(order, Split::None)).unwrap();
            let bytes = materialise(&layout).remove(0);
            let read = read(&Input::whole("x", &bytes)).unwrap();
            assert_eq!(read, model(&m, &layout, order, 32));
            let lens: Vec<_> = read.tensors.iter().map(|t| t.location.len).collect();
            assert_eq!(lens, [3 * 128 / 4 + 32, 20, 256 / 4 + 32, 32]);
            let parts = read.tensors[0].parts();
            assert_eq!(parts, [(0..96, DType::U8), (96..100, DType::F32), (100..128, DType::U8)]);
        }
    }
    assert_eq!(file("bitnet")[type_at(&file("bitnet"), "one")], 36);
}

/// bitnet.cpp's files of other models have those models' architectures: the length of the tensors says what they are.
#[test]
fn in_other_models_it_is_recognised_by_its_length() {
    let m = settings("bitnex");
    for tensors in [tensors(), tensors()[..1].to_vec(), tensors()[2..3].to_vec()] {
        let layout = layout("x", &m, &tensors, options(ByteOrder::Little, Split::None)).unwrap();
        let bytes = materialise(&layout).remove(0);
        assert_eq!(read(&Input::whole("x", &bytes)).unwrap(), model(&m, &layout, ByteOrder::Little, 32));
    }
    // The old meaning of the number: 18 bytes for 32 weights.
    let plain = [tensor("one", &[3, 128], DType::IQ4_NL), tensor("norm", &[5], DType::F32)];
    let layout = layout("x", &m, &plain, options(ByteOrder::Little, Split::None)).unwrap();
    let mut bytes = materialise(&layout).remove(0);
    let at = type_at(&bytes, "one");
    bytes[at] = 36;
    let e = read(&Input::whole("x", &bytes)).unwrap_err();
    assert!(e.to_string().contains("tensor one has type 36: iq4_nl_4_4, removed") && e.at.is_some(), "{e}");
    assert!(e.to_string().contains("bitnet.cpp uses the number for i2_s"), "{e}");
}

/// TL2 has MXFP4's number, and a scale of the tensor in a tensor of its own.
#[test]
fn tl2_is_refused_by_name_in_any_architecture() {
    for (architecture, scale, says) in [
        ("llama", true, "type 39: bitnet.cpp's tl2"),
        ("bitnet", true, "type 39: bitnet.cpp's tl2"),
        ("llama", false, "has offset"),
    ] {
        // Of TL2's length, which is not MXFP4's.
        let packed = tensor("blk.0.attn_q.weight", &[3, 1024], DType::Q2_K);
        let name = if scale { "blk.0.attn_q.weight_scale" } else { "other" };
        let tensors = [packed, tensor(name, &[1], DType::F32)];
        let layout =
            layout("x", &settings(architecture), &tensors, options(ByteOrder::Little, Split::None)).unwrap();
        let mut bytes = materialise(&layout).remove(0);
        let at = type_at(&bytes, "blk.0.attn_q.weight");
        bytes[at] = 39;
        let e = read(&Input::whole("x", &bytes)).unwrap_err().to_string();
        assert!(e.contains(says), "{architecture}: {e}");
    }
    // A real MXFP4 with such a tensor beside it stays one.
    let tensors = [tensor("a", &[3, 64], DType::MXFP4), tensor("a_scale", &[1], DType::F32)];
    let layout = layout("x", &settings("llama"), &tensors, options(ByteOrder::Little, Split::None)).unwrap();
    let read = read(&Input::whole("x", &materialise(&layout).remove(0))).unwrap();
    assert_eq!(read.tensors[0].encoding, Encoding::Blocks(DType::MXFP4));
}

#[test]
fn other_types_of_bitnet_cpp_are_refused_by_name() {
    let sound = file("bitnet");
    for (id, name) in BITNET_CPP.into_iter().filter(|t| t.1 != "i2_s") {
        let mut bytes = sound.clone();
        let at = type_at(&bytes, "one");
        bytes[at] = id as u8;
        let e = read(&Input::whole("x", &bytes)).unwrap_err();
        assert_eq!(e.at, Some(at as u64));
        assert!(e.to_string().contains(&format!("type {id}: bitnet.cpp's {name}")), "{e}");
    }
}

#[test]
fn impossible_shapes_are_refused() {
    let m = settings("bitnet");
    for shape in [&[3u64, 64][..], &[129], &[], &[1 << 40, 1 << 40]] {
        let wrong = [ternary("a", shape)];
        assert!(layout("x", &m, &wrong, options(ByteOrder::Little, Split::None)).is_err(), "{shape:?}");
    }
    let sound = file("bitnet");
    let dims = type_at(&sound, "one") - 16;
    for cols in [0u64, 1, 127, 129, 256, 1 << 40, 1 << 62, u64::MAX, u64::MAX - 127] {
        let mut bytes = sound.clone();
        bytes[dims..dims + 8].copy_from_slice(&cols.to_le_bytes());
        let e =
            read(&Input::whole("x", &bytes)).expect_err("the next tensor is elsewhere, or the shape wrong");
        assert!(e.at.is_some(), "{cols}: {e}");
    }
    // Cut off within the codes, the scale, the zeros.
    let end = read(&Input::whole("x", &sound)).unwrap().tensors[3].location;
    for cut in 0..32 {
        let e = read(&Input::whole("x", &sound[..(end.offset + cut) as usize])).unwrap_err();
        assert!(matches!(e.fault, Fault::Ends { .. }), "{e}");
    }
}

#[test]
fn later_parts_have_no_architecture() {
    let m = settings("bitnet-25");
    let parts = layout("x", &m, &tensors(), options(ByteOrder::Little, Split::Tensors(1))).unwrap();
    let files = materialise(&parts);
    let shards =
        || -> Vec<_> { files.iter().map(|b| ("x".into(), read(&Input::whole("x", b)).unwrap())).collect() };
    assert_eq!(join(shards()).unwrap(), model(&m, &parts, ByteOrder::Little, 32));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(at in 0usize..400, with: u8, cut in 0usize..1000) {
        let mut bytes = file("bitnet");
        let at = at % bytes.len();
        bytes[at] ^= with;
        if let Ok(m) = read(&Input::whole("x", &bytes)) {
            for t in &m.tensors {
                let end = t.parts().iter().map(|p| p.0.end).max();
                prop_assert_eq!((end, t.encoding.bytes(t.elements())), (Some(t.location.len), Some(t.location.len)));
                prop_assert!(t.location.offset + t.location.len <= bytes.len() as u64);
            }
        }
        bytes.truncate(cut);
        let _ = read(&Input::whole("x", &bytes));
    }
}
