//! What a tensor type needs outside of its row: a new type that lacks some of it fails here.

use formats::block::TYPES;
use ggufkit::scheme;

#[test]
fn every_type_for_weights_has_a_codec_and_a_product() {
    for t in TYPES.iter().filter(|t| t.holds_weights()) {
        let name = t.name;
        assert!(kernels::codec(t.dtype).is_some(), "{name} cannot be decoded");
        // Plain floats are multiplied as they are; f64 is decoded first.
        let integers = kernels::integer(t.dtype).is_some();
        assert_eq!(integers, t.weights > 1, "{name}: kernels/src/weights has no family for it");
    }
}

#[test]
fn every_type_for_weights_has_a_number_for_its_files() {
    for t in TYPES.iter().filter(|t| t.holds_weights() && t.name != "f64") {
        assert!(scheme::file_type(t.dtype).is_some(), "{}: no scheme is built on it", t.name);
    }
}
