use super::*;

#[test]
fn kinds_are_in_the_order_of_their_numbers() {
    for (i, (kind, name, _)) in KINDS.iter().enumerate() {
        assert_eq!(*kind as usize, i);
        assert_eq!(Kind::from_name(name), Some(*kind));
    }
}

#[test]
fn arrays_return_their_values() {
    let strings = Array::of_strings(["a", "", "▁Lily"]);
    assert_eq!(strings.strings().collect::<Vec<_>>(), [&b"a"[..], b"", "▁Lily".as_bytes()]);
    let numbers = [Value::I16(-3), Value::I16(300)];
    let array = Array::new(Kind::I16, &numbers).unwrap();
    assert_eq!(array.values().collect::<Vec<_>>(), numbers);
    assert_eq!(array.strings().count(), 0);
    assert!(Array::new(Kind::U16, &numbers).is_none());
    assert!(Array::new(Kind::Array, &[]).is_none());
}

#[test]
fn a_value_of_a_wrong_type_is_not_a_missing_one() {
    let mut m = Metadata::new();
    m.set("text", Value::text(&"x".repeat(50)));
    m.set("bytes", Value::String(vec![0xFF]));
    m.set("count", Value::I32(7));
    m.set("float", Value::F32(0.5));
    m.set("odd", Value::F64(f64::INFINITY));
    m.set("less", Value::I16(-1));
    m.set("list", Value::Array(Array::of_strings(["a"])));
    assert_eq!(
        (m.read_text("none"), m.read_count("none"), m.read_float("none")),
        (Ok(None), Ok(None), Ok(None))
    );
    assert_eq!((m.read_count("count"), m.read_float("float")), (Ok(Some(7)), Ok(Some(0.5))));
    assert_eq!(m.read_array("list").map(|a| a.map(Array::len)), Ok(Some(1)));
    for key in ["bytes", "count", "float", "odd", "list"] {
        assert!(m.read_text(key).is_err(), "{key}");
    }
    for key in ["text", "float", "less", "list"] {
        assert!(m.read_count(key).is_err(), "{key}");
    }
    for key in ["text", "count", "odd", "list"] {
        assert!(m.read_float(key).is_err() && m.read_positive(key).is_err(), "{key}");
    }
    for (key, says) in [
        ("float", "metadata key float must be an array (found f32 0.5)"),
        ("less", "metadata key less must be an array (found i16 -1)"),
    ] {
        assert_eq!(m.read_array(key).unwrap_err().to_string(), says);
    }
    let long = m.read_count("text").unwrap_err().to_string();
    assert!(long.contains(&format!("str \"{}\"…", "x".repeat(40))), "{long}");
}

#[test]
fn metadata_keeps_its_order() {
    let mut m = Metadata::new();
    m.set("b", Value::U8(1));
    m.set("a", Value::U8(2));
    m.set("b", Value::U8(3));
    assert!(m.rename("a", "c") && !m.rename("c", "b") && !m.rename("x", "y"));
    assert_eq!(m.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(m.remove("b"), Some(Value::U8(3)));
}

#[test]
fn keys_keep_their_order() {
    let of = |keys: &[&str]| {
        let mut m = Metadata::new();
        keys.iter().for_each(|key| m.set(key, Value::U8(1)));
        m
    };
    let mut m = of(&["a", "b", "c", "d"]);
    assert_ne!(m, of(&["b", "a", "c", "d"]));
    m.set("b", Value::U8(1));
    assert_eq!(m, of(&["a", "b", "c", "d"]));
    assert!(m.rename("b", "x") && !m.rename("b", "y") && !m.rename("a", "x") && !m.rename("a", "a"));
    assert_eq!(m, of(&["a", "x", "c", "d"]));
    assert_eq!((m.remove("a"), m.remove("a")), (Some(Value::U8(1)), None));
    assert_eq!(m, of(&["x", "c", "d"]));
    assert_eq!(m.get("x"), Some(&Value::U8(1)));
}
