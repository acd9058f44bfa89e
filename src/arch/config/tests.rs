use super::*;
use formats::metadata::{Array, Kind};

fn llama() -> Json {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 768,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
        "hidden_act": "silu", "rms_norm_eps": 1e-5,
    })
}

#[test]
fn both_dialects_mean_the_same() {
    let mut old = llama();
    old["rope_theta"] = json!(500000.0);
    old["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    let mut new = llama();
    new["rope_parameters"] = json!({"rope_theta": 500000.0, "rope_type": "linear", "factor": 2.0});
    let (old, new) = (Config::from_hub(&old).unwrap(), Config::from_hub(&new).unwrap());
    assert_eq!(old.metadata(), new.metadata());
    assert_eq!(old.metadata().get("llama.rope.freq_base"), Some(&Value::F32(500000.0)));
    assert_eq!(old.metadata().get("llama.attention.key_length"), Some(&Value::U32(32)));
    assert_eq!(old.context, 2048, "the default of the class");
}

#[test]
fn a_scaling_that_was_added_counts() {
    // As a model card says how to stretch the model, in a file that transformers 5 wrote.
    let mut json = llama();
    json["rope_parameters"] = json!({"rope_theta": 500000.0, "rope_type": "default"});
    json["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    let config = Config::from_hub(&json).unwrap();
    assert_eq!((config.theta, config.scaling), (500000.0, Scaling::Linear { factor: 2.0 }));
    json["rope_scaling"] = json!({});
    assert_eq!(Config::from_hub(&json).unwrap().scaling, Scaling::None);
}

#[test]
fn settings_are_read_as_their_writers_mean_them() {
    let with = |key: &str, value: Json| {
        let mut json = llama();
        json[key] = value;
        Config::from_hub(&json)
    };
    for key in ["max_sequence_length", "n_ctx", "n_positions"] {
        assert_eq!(with(key, json!(768)).unwrap().context, 768, "{key}");
    }
    let mut json = llama();
    (json["max_sequence_length"], json["max_position_embeddings"]) = (json!(768), json!(512));
    assert_eq!(Config::from_hub(&json).unwrap().context, 512, "transformers' own key counts");
    assert_eq!(with("vocab_size", json!(512.0)).unwrap().vocab, 512);
    assert!(with("vocab_size", json!(512.5)).is_err());
    assert_eq!(with("rope_scaling", json!(false)).unwrap().scaling, Scaling::None);
    let window = |value| {
        let mut json = llama();
        (json["architectures"], json["sliding_window"]) = (json!(["MistralForCausalLM"]), value);
        json["num_key_value_heads"] = json!(8);
        Config::from_hub(&json).map(|c| c.notes.len())
    };
    for none in [json!(null), json!(0), json!(-1), json!(false)] {
        assert_eq!(window(none.clone()), Ok(0), "{none}");
    }
    assert_eq!(window(json!(64)), Ok(1));
    assert!(window(json!(-2)).is_err());
}

#[test]
fn there_and_back() {
    let config = Config::from_hub(&llama()).unwrap();
    let mut metadata = config.metadata();
    metadata.set("general.architecture", Value::text("llama"));
    let back = Config::from_gguf(&metadata, 512, false, None).unwrap();
    assert_eq!(back.metadata(), config.metadata());
    let again = Config::from_hub(&back.to_hub("bfloat16", Some(1), None)).unwrap();
    assert_eq!(again.metadata(), config.metadata());
    assert_eq!(again.epsilon, 1e-5);
}

#[test]
fn a_value_of_a_wrong_type_is_no_missing_one() {
    let config = Config::from_hub(&llama()).unwrap();
    let with = |key: &str, value: Value| {
        let mut metadata = config.metadata();
        metadata.set("general.architecture", Value::text("llama"));
        metadata.set(key, value);
        Config::from_gguf(&metadata, 512, false, None)
    };
    assert!(with("llama.expert_count", Value::U32(0)).is_ok());
    for (key, value) in [
        ("llama.rope.freq_base", Value::text("10000")),
        ("llama.rope.freq_base", Value::U32(10000)),
        ("llama.rope.freq_base", Value::F32(-1.0)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(0.0)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::INFINITY)),
        ("llama.attention.head_count_kv", Value::F32(4.0)),
        ("llama.attention.key_length", Value::text("32")),
        ("llama.context_length", Value::Bool(true)),
        ("llama.expert_count", Value::text("0")),
        ("general.architecture", Value::U32(1)),
    ] {
        let why = with(key, value).unwrap_err().to_string();
        assert!(why.starts_with(&format!("metadata key {key} must be ")), "{why}");
    }
}

#[test]
fn odd_values_are_errors_or_settings() {
    let odd = [
        json!(null),
        json!(0),
        json!(-1),
        json!(3),
        json!(u64::MAX),
        json!(1e300),
        json!(1e-300),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
        json!([null]),
        json!({"rope_type": "llama3", "factor": -1}),
    ];
    let mut keys: Vec<String> = llama().as_object().unwrap().keys().cloned().collect();
    keys.extend(
        ["head_dim", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window"].map(String::from),
    );
    for key in keys {
        for value in &odd {
            let mut json = llama();
            json[&key] = value.clone();
            if let Ok(config) = Config::from_hub(&json) {
                config.metadata();
                config.scaling.freqs(config.theta, config.head as usize);
                for e in config.arch.expected(&config) {
                    assert!(formats::model::elements(&e.shape).is_some(), "{key}: {value}");
                }
            }
        }
    }
}

#[test]
fn invalid_settings_are_named() {
    let with = |key: &str, value: Json| {
        let mut json = llama();
        json[key] = value;
        Config::from_hub(&json).unwrap_err().to_string()
    };
    assert!(with("architectures", json!([])).contains("\"architectures\": [\"LlamaForCausalLM\"]"));
    assert!(with("architectures", json!(["FooForCausalLM"])).contains("supported: LlamaForCausalLM"));
    assert!(with("num_hidden_layers", json!(-1)).contains("num_hidden_layers"));
    assert!(with("num_hidden_layers", json!(4_000_000_000u64)).contains("num_hidden_layers"));
    assert!(with("num_attention_heads", json!(7)).contains("not a multiple"));
    assert!(with("num_key_value_heads", json!(3)).contains("not a multiple"));
    assert!(with("hidden_act", json!("gelu")).contains("silu"));
    assert!(with("vocab_size", Json::Null).contains("vocab_size is missing"));
    assert!(with("rope_scaling", json!({"type": "longrope"})).contains("longrope"));
    assert!(with("rope_theta", json!("much")).contains("rope_theta"));
    assert!(with("rope_scaling", json!("linear")).contains("rope_scaling"));
    let layers = json!({"full_attention": {"rope_type": "linear", "factor": 2.0}});
    assert!(with("rope_parameters", layers).contains("between layers"));
    let part = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    assert!(with("rope_parameters", part).contains("partial_rotary_factor"));
    for json in [json!(null), json!([]), json!({"architectures": "x"}), json!(7)] {
        assert!(Config::from_hub(&json).is_err());
    }
}

#[test]
fn a_list_of_equal_numbers_is_one_number() {
    let config = Config::from_hub(&llama()).unwrap();
    let list = |kind: Kind, values: &[Value]| Value::Array(Array::new(kind, values).unwrap());
    let with = |key: &str, value: Value| {
        let mut metadata = config.metadata();
        metadata.set("general.architecture", Value::text("llama"));
        metadata.set(key, value);
        Config::from_gguf(&metadata, 512, false, None).map_err(|e| e.to_string())
    };
    let of = |a, b| list(Kind::U32, &[Value::U32(a), Value::U32(b)]);
    assert_eq!(with("llama.attention.head_count", of(8, 8)).unwrap().heads, 8);
    assert_eq!(with("llama.attention.head_count_kv", of(4, 4)).unwrap().kv_heads, 4);
    let signed = list(Kind::I32, &[Value::I32(768), Value::I32(768)]);
    assert_eq!(with("llama.feed_forward_length", signed).unwrap().intermediate, 768);
    for (key, value, says) in [
        ("llama.attention.head_count_kv", of(4, 2), "head_count_kv differs between layers"),
        ("llama.feed_forward_length", of(768, 512), "feed_forward_length differs between layers"),
        (
            "llama.attention.head_count",
            list(Kind::U32, &[Value::U32(8)]),
            "must be an integer, or a list of 2, one for each layer (found an array of 1 u32)",
        ),
        ("llama.attention.head_count", of(0, 0), "must be a positive integer"),
        (
            "llama.attention.head_count",
            list(Kind::F32, &[Value::F32(8.0), Value::F32(8.0)]),
            "must be a positive integer",
        ),
        ("llama.embedding_length", of(256, 256), "must be a positive integer"),
    ] {
        let why = with(key, value).unwrap_err();
        assert!(why.contains(&format!("metadata key {key}")) && why.contains(says), "{why}");
    }
}

#[test]
fn what_another_class_would_read_is_noted() {
    let notes = |json: &Json| Config::from_hub(json).unwrap().notes;
    let with = |key: &str, value: Json| {
        let mut json = llama();
        json[key] = value;
        notes(&json)
    };
    assert_eq!(notes(&llama()), [""; 0]);
    // The bundled settings have heads of 32.
    assert_eq!(with("attention_multiplier", json!(0.176_776_7)), [""; 0]);
    for (key, value) in [
        ("attention_multiplier", json!(0.0078125)),
        ("logits_scaling", json!(16.0)),
        ("attn_logit_softcapping", json!(50.0)),
        ("use_qk_norm", json!(true)),
        ("parallel_attn", json!(true)),
    ] {
        let found = with(key, value);
        assert!(found.len() == 1 && found[0].contains(key), "{key}: {found:?}");
    }
}

#[test]
fn two_kinds_of_scaling_are_a_contradiction() {
    let read = |rope: Json| {
        let mut json = llama();
        json["rope_scaling"] = rope;
        Config::from_hub(&json).map(|c| (c.scaling, c.notes))
    };
    let linear = Scaling::Linear { factor: 2.0 };
    let (scaling, notes) = read(json!({"rope_type": "linear", "type": "dynamic", "factor": 2.0})).unwrap();
    assert!(scaling == linear && notes.len() == 1 && notes[0].contains("\"type\": \"dynamic\""), "{notes:?}");
    let (scaling, notes) = read(json!({"rope_type": "dynamic", "type": "linear", "factor": 2.0})).unwrap();
    assert!(scaling == Scaling::None && notes.len() == 2, "{notes:?}");
    let both = json!({"rope_type": "linear", "type": "Linear", "factor": 2.0});
    assert_eq!(read(both).unwrap(), (linear, Vec::new()));
}
