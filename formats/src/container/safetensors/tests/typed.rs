//! Typed metadata as JSON and back.

use proptest::prelude::*;
use serde_json::json;

use crate::container::safetensors::typed::{from_json, from_text, to_json, to_text};
use crate::metadata::{Array, KINDS, Kind, Metadata, Value};

/// A scalar or string of a kind, from any bits.
fn value(kind: Kind, bits: u64, text: Vec<u8>) -> Value {
    match kind {
        Kind::String => Value::String(text),
        Kind::Bool => Value::Bool(bits & 1 == 1),
        kind => Value::from_le(kind, &bits.to_le_bytes()[..kind.size()]).unwrap(),
    }
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![".{0,12}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..12)]
}

fn scalar_kind() -> impl Strategy<Value = Kind> {
    (0..KINDS.len()).prop_map(|i| KINDS[i].0).prop_filter("no arrays", |k| *k != Kind::Array)
}

fn any_value() -> impl Strategy<Value = Value> {
    let bits = prop_oneof![any::<u64>(), any::<f64>().prop_map(f64::to_bits), 0u64..300];
    let many = prop::collection::vec((bits.clone(), any_text()), 0..8);
    let array = (scalar_kind(), many).prop_map(|(kind, many)| {
        let values: Vec<Value> = many.into_iter().map(|(bits, text)| value(kind, bits, text)).collect();
        Value::Array(Array::new(kind, &values).unwrap())
    });
    prop_oneof![(scalar_kind(), bits, any_text()).prop_map(|(k, b, t)| value(k, b, t)), array]
}

pub(super) fn any_metadata() -> impl Strategy<Value = Metadata> {
    prop::collection::vec((".{1,12}", any_value()), 0..8).prop_map(|entries| {
        let mut m = Metadata::new();
        entries.into_iter().for_each(|(key, value)| m.set(&key, value));
        m
    })
}

/// The bits of all values, with one bit pattern for all NaNs. `==` would not do: NaN != NaN, and 0 == -0.
pub(super) fn bits(m: &Metadata) -> Vec<(String, Kind, Vec<u8>)> {
    let bits = |v: &Value| match v {
        Value::F32(x) if x.is_nan() => f32::NAN.to_le_bytes().to_vec(),
        Value::F64(x) if x.is_nan() => f64::NAN.to_le_bytes().to_vec(),
        other => other.to_le(),
    };
    let all = |v: &Value| match v {
        Value::Array(a) if matches!(a.kind(), Kind::F32 | Kind::F64) => {
            [vec![a.kind() as u8], a.values().flat_map(|v| bits(&v)).collect()].concat()
        }
        other => bits(other),
    };
    m.iter().map(|(k, v)| (k.to_string(), v.kind(), all(v))).collect()
}

proptest! {
    #[test]
    fn nothing_is_lost(m in any_metadata()) {
        let json = to_json(&m);
        prop_assert_eq!(bits(&from_json(&json).unwrap()), bits(&m));
        prop_assert_eq!(bits(&from_text(&json.to_string()).unwrap()), bits(&m));
        prop_assert_eq!(to_text(&m), json.to_string());
    }

    #[test]
    fn f32_values_round_trip_in_few_digits(b in any::<u32>()) {
        let x = f32::from_bits(b);
        prop_assume!(x.is_finite());
        let mut m = Metadata::new();
        m.set("x", Value::F32(x));
        let text = to_json(&m).to_string();
        prop_assert_eq!(bits(&from_text(&text).unwrap()), bits(&m));
        prop_assert!(text.len() < 35, "{}", text);
    }

    #[test]
    fn any_text_never_panics(text in r#"(\[|\]|,|"a"|"u8"|"array"|"str"|"f32"|0|-1|1e99|true|null|\{\}){0,12}"#) {
        let _ = from_text(&text);
        let _ = from_text(&format!(r#"[["k",{text}]]"#));
    }
}

#[test]
fn the_json_form_is_stable() {
    let mut m = Metadata::new();
    m.set("a", Value::U64(u64::MAX));
    m.set("b", Value::I64(i64::MIN));
    m.set("c", Value::F32(0.1));
    m.set("d", Value::F64(f64::NEG_INFINITY));
    m.set("e", Value::String(vec![0xFF, 0]));
    m.set("f", Value::Array(Array::new(Kind::F32, &[Value::F32(1.0), Value::F32(f32::NAN)]).unwrap()));
    m.set("g", Value::Array(Array::from_encoded(Kind::Bool, 3, vec![0, 1, 2])));
    m.set("h", Value::Array(Array::of_strings(["x"])));
    let json = to_json(&m);
    assert_eq!(
        json.to_string(),
        concat!(
            r#"[["a","u64",18446744073709551615],["b","i64",-9223372036854775808],["c","f32",0.1],"#,
            r#"["d","f64","-inf"],["e","str",[255,0]],["f","array",["f32",[1.0,"NaN"]]],"#,
            r#"["g","array",["bool",[false,true,2]]],["h","array",["str",["x"]]]]"#
        )
    );
    assert_eq!(bits(&from_json(&json).unwrap()), bits(&m));
}

#[test]
fn models_that_are_too_large_are_refused() {
    for (kind, value, why) in [
        ("u8", json!(256), "kind u8"),
        ("u8", json!(-1), "kind u8"),
        ("i8", json!(128), "kind i8"),
        ("i64", json!(u64::MAX), "kind i64"),
        ("u64", json!(-1), "kind u64"),
        ("u32", json!(1.5), "kind u32"),
        ("u32", json!(null), "kind u32"),
        ("u32", json!([]), "kind u32"),
        ("u32", json!({}), "kind u32"),
        ("f32", json!(1e39), "kind f32"),
        ("f32", json!("infinity"), "kind f32"),
        ("bool", json!(1), "kind bool"),
        ("str", json!(1), "kind str"),
        ("str", json!([256]), "u8"),
        ("array", json!(["u8", 1]), "values of kind u8"),
        ("array", json!(["u8", [1, 300]]), "kind u8"),
        ("array", json!(["bool", [256]]), "a byte"),
        ("array", json!(["array", []]), "array of arrays"),
        ("array", json!(["u8"]), "length 1"),
        ("array", json!(["u8", [], 3]), "[kind, [value, ...]]"),
        ("array", json!([]), "length 0"),
        ("what", json!(1), "unknown kind"),
    ] {
        let json = json!([["k", kind, value]]);
        for e in [from_json(&json).unwrap_err(), from_text(&json.to_string()).unwrap_err()] {
            assert!(
                e.contains(why) || e.contains("trailing characters") || e.contains("fewer elements"),
                "{json}: {e}"
            );
        }
    }
    let deep = format!("[[\"k\",\"array\",{}", "[".repeat(100_000));
    assert!(from_text(&deep).is_err());
    for (json, why) in [
        (json!({}), "an array of metadata entries"),
        (json!([["", "u8", 1]]), "empty"),
        (json!([["k", "u8", 1], ["k", "u8", 1]]), "appears twice"),
        (json!([["k", "u8"]]), "length 2"),
        (json!([["k"]]), "length 1"),
        (json!([[]]), "length 0"),
        (json!([3]), "[key, kind, value]"),
    ] {
        let e = from_json(&json).unwrap_err();
        assert!(e.contains(why), "{json}: {e}");
        assert!(from_text(&json.to_string()).is_err());
    }
}
