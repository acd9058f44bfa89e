//! What the container holds and ggml does not read, and bytes that belong to no tensor.

use super::*;

#[test]
fn names_and_shapes_beyond_ggmls_are_read_and_written() {
    let long = format!("{}.weight", "x".repeat(200));
    let tensors = [tensor("five", &[2, 1, 3, 1, 32], DType::Q4_0), tensor(&long, &[7], DType::F32)];
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let m = Metadata::new();
        let layout = layout("x", &m, &tensors, Options { order, split: Split::None }).unwrap();
        let bytes = materialise(&layout).remove(0);
        assert_eq!(read(&Input::whole("x", &bytes)).unwrap(), model(&m, &layout, order, 32));
    }
    let why = tensors.each_ref().map(|t| beyond_ggml(t).unwrap());
    assert!(why[0].contains("5 dimensions") && why[1].contains("207 bytes"), "{why:?}");
    assert_eq!(beyond_ggml(&tensor(&"x".repeat(63), &[1; 4], DType::F32)), None);
}

#[test]
fn bytes_behind_the_last_tensor_are_named() {
    let tensors = [tensor("a", &[5], DType::F32)];
    let options = Options { order: ByteOrder::Little, split: Split::None };
    let layout = layout("x", &Metadata::new(), &tensors, options).unwrap();
    let bytes = materialise(&layout).remove(0);
    let notes = |bytes: &[u8]| read(&Input::whole("x", bytes)).unwrap().notes;
    assert_eq!(notes(&bytes), [] as [String; 0]);
    // Some writers leave the padding of the last tensor out.
    assert_eq!(notes(&bytes[..bytes.len() - 12]), [] as [String; 0]);
    let end = bytes.len();
    let more = notes(&[&bytes[..], b"rest"].concat());
    assert!(more[0].contains(&format!("4 bytes behind the last tensor, from byte {end} on")), "{more:?}");
    let twice = notes(&[&bytes[..], &bytes].concat());
    assert!(twice[0].contains(&format!("another GGUF begins at byte {end}")), "{twice:?}");
}
