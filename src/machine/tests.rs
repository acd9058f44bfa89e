use super::*;
use crate::scheme;
use formats::model::ByteOrder::{Big, Little};

#[test]
fn the_list_of_machines_is_consistent() {
    for (i, m) in MACHINES.iter().enumerate() {
        assert!(!m.description.is_empty() && !m.run_hint.is_empty(), "{}", m.name);
        assert!(MACHINES[..i].iter().all(|other| other.name != m.name), "{}", m.name);
        assert_eq!(Machine::find(&m.name.to_uppercase()), Some(m));
        // What is offered instead is there, another, and written into a file of the same kind.
        assert_eq!(m.alternatives().count(), m.others.len(), "{}", m.name);
        assert!(m.alternatives().all(|o| o != m && o.container() == m.container()), "{}", m.name);
        // (The base of i2_s is f16.)
        let base = scheme::find(m.scheme).unwrap_or_else(|| panic!("{}", m.scheme)).base;
        // It can read its default scheme.
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
fn programs_that_swap_bytes_while_loading_read_little_endian_files() {
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
fn types_that_ggml_misreads_on_big_endian_machines_are_excluded() {
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
    let m = Machine::find("openvino").unwrap();
    assert!(!m.takes(DType::Q4_1) && !m.takes(DType::Q4_K) && m.takes(DType::Q6_K));
}

#[test]
fn a_wrong_name_is_near_to_others() {
    let near = |name: &str| Machine::near(name).iter().map(|m| m.name).collect::<Vec<_>>();
    assert_eq!(near("PowerBook"), ["ullm"]);
    assert_eq!(near("ulm"), ["ullm"]);
    assert_eq!(near("windows 95"), ["smollerlm"]);
    assert_eq!(near("llama89"), ["llama98"]);
    assert_eq!(near("commodore"), ["c64"]);
    assert_eq!(near("olama"), ["ollama"]);
    assert!(near("llama-cpp").contains(&"llama.cpp"));
    assert!(near("g4").contains(&"ullm") && near("g4").contains(&"llama.cpp-tiger"));
    assert!(near("abacus").is_empty() && near("").is_empty() && near("list").is_empty());
    assert_eq!((edits("", "abc"), edits("abc", "abd"), edits("kitten", "sitting")), (3, 1, 3));
}
