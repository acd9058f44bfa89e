use super::*;
use crate::scheme;
use formats::model::ByteOrder::{Big, Little};

#[test]
fn the_list_makes_sense() {
    for (i, m) in MACHINES.iter().enumerate() {
        assert!(!m.what.is_empty() && !m.there.is_empty(), "{}", m.name);
        assert!(MACHINES[..i].iter().all(|other| other.name != m.name), "{}", m.name);
        assert_eq!(Machine::find(&m.name.to_uppercase()), Some(m));
        // (i2_s has f16 for what is not ternary.)
        let base = scheme::find(m.scheme).unwrap_or_else(|| panic!("{}", m.scheme)).base;
        // What it takes if nothing is said, it can use.
        assert!(m.takes(base), "{}", m.name);
        match m.reads {
            Reads::Llama2c { version: 0, .. } | Reads::Expansion { .. } => assert_eq!(base, DType::F32),
            Reads::Llama2c { version, .. } => assert_eq!((version, base), (2, DType::Q8_0)),
            Reads::Gguf => assert!(matches!(m.container(), Container::Gguf)),
        }
    }
    assert_eq!(Machine::find("abacus"), None);
}

#[test]
fn programs_that_turn_numbers_round_themselves_want_them_as_they_were() {
    for (name, order) in [
        ("ullm", Big),
        ("imac-llm", Big),
        ("llama2ps3", Little),
        ("smollerlm", Little),
        ("llama98", Little),
        ("c64", Little),
        ("llama.cpp-tiger", Big),
        ("llama.cpp", Little),
    ] {
        assert_eq!(Machine::find(name).unwrap().order, order, "{name}");
    }
}

#[test]
fn types_that_ggml_decodes_wrongly_there_are_not_taken() {
    let m = Machine::find("llama.cpp-big-endian").unwrap();
    for dtype in [
        DType::IQ1_S,
        DType::IQ1_M,
        DType::IQ2_XXS,
        DType::IQ2_XS,
        DType::IQ2_S,
        DType::IQ3_XXS,
        DType::IQ3_S,
    ] {
        assert!(!m.takes(dtype));
    }
    assert!(m.takes(DType::IQ4_XS) && m.takes(DType::Q4_K) && m.takes(DType::TQ1_0));
    assert!(!Machine::find("llama.cpp-tiger").unwrap().takes(DType::BF16));
    assert!(!Machine::find("openvino").unwrap().takes(DType::Q4_1));
}
