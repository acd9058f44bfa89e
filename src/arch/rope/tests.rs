use super::*;

#[test]
fn llama_3_1_divisors() {
    let json = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"});
    let scaling = Scaling::from_hub(&json, 131_072).unwrap();
    let freqs = scaling.freqs(500_000.0, 128).unwrap();
    assert_eq!(freqs.len(), 64);
    assert_eq!((freqs[0], freqs[28], freqs[63]), (1.0, 1.0, 8.0));
    assert!(freqs.windows(2).all(|w| w[0] <= w[1]));
    assert_eq!(Scaling::from_freqs(&freqs, 500_000.0), Some(scaling));
    assert_eq!(scaling.to_hub(), serde_json::from_value::<Json>(json).unwrap());
}

#[test]
fn the_attention_factor_is_written_as_llama_cpp_reads_it() {
    let json = json!({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5});
    let mut metadata = Metadata::new();
    Scaling::from_hub(&json, 4096).unwrap().metadata("qwen2", &mut metadata);
    let factor = metadata.get("qwen2.rope.scaling.attn_factor").and_then(Value::as_f64).unwrap();
    assert!((factor * (1.0 + 0.1 * 4f64.ln()) - 1.5).abs() < 1e-6, "{factor}");
}

#[test]
fn the_keys_of_a_gguf_mean_what_they_mean_in_llama_cpp() {
    let read = |keys: &[(&str, Value)]| {
        let mut m = Metadata::new();
        keys.iter().for_each(|(k, v)| m.set(&format!("x.rope.{k}"), v.clone()));
        Scaling::from_gguf(&m, "x", 10000.0, 4096, None)
    };
    let (f, text) = (Value::F32, Value::text);
    let linear = Ok(Scaling::Linear { factor: 4.0 });
    let old = ("scale_linear", f(4.0));
    for keys in [
        &[("scaling.factor", f(4.0))][..],
        std::slice::from_ref(&old),
        &[("scaling.type", text("linear")), ("scaling.factor", f(4.0)), ("scale_linear", f(2.0))],
        &[("scaling.type", text("linear")), old.clone()],
    ] {
        assert_eq!(read(keys), linear, "{keys:?}");
    }
    for keys in [
        &[][..],
        &[("scaling.type", text("none")), ("scaling.factor", f(4.0))],
        &[("scaling.type", text("linear"))],
        &[("scaling.factor", f(0.0))],
        &[("scale_linear", f(1.0))],
    ] {
        assert_eq!(read(keys), Ok(Scaling::None), "{keys:?}");
    }
    for keys in [
        &[("scaling.type", Value::U32(1))][..],
        &[("scaling.factor", text("4"))],
        &[("scaling.factor", f(-4.0))],
        &[("scaling.factor", f(f32::NAN))],
        &[("scale_linear", Value::U32(4))],
        &[
            ("scaling.type", text("yarn")),
            ("scaling.factor", f(4.0)),
            ("scaling.original_context_length", f(8.0)),
        ],
    ] {
        let why = read(keys).unwrap_err();
        assert!(why.contains("metadata key x.rope.") && why.contains(" must be "), "{why}");
    }
    let yarn = [
        ("scaling.type", text("yarn")),
        ("scaling.factor", f(4.0)),
        ("scaling.original_context_length", Value::U32(8)),
        ("scaling.attn_factor", f(0.5)),
    ];
    let Ok(Scaling::Yarn { rest: [None, Some(attention), None, None], .. }) = read(&yarn) else { panic!() };
    assert!((attention - 0.5 * (1.0 + 0.1 * 4f64.ln())).abs() < 1e-9);
    // The two ways to scale do not exclude each other.
    let (angles, _) = Scaling::Linear { factor: 2.0 }.angles(10000.0, 4, Some(&[1.0, 8.0]));
    let (plain, _) = Scaling::None.angles(10000.0, 4, None);
    assert_eq!(angles, [plain[0] / 2.0, plain[1] / 16.0]);
}

#[test]
fn no_scaling_is_dropped_beside_divisors() {
    let yarn = Scaling::Yarn { factor: 4.0, original: 32, rest: [None; 4] };
    let divisors = [1.0f32, 2.0, 4.0, 8.0];
    let (alone, attention) = yarn.angles(10000.0, 8, None);
    let (both, with) = yarn.angles(10000.0, 8, Some(&divisors));
    assert_eq!(attention, with);
    assert!(attention > 1.0);
    for ((one, two), d) in alone.iter().zip(&both).zip(divisors) {
        assert!((one / f64::from(d) - two).abs() < 1e-15, "{alone:?} {both:?}");
    }
    // Llama 3's kind has its divisors in itself where no tensor has them.
    let llama3 = Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
    let freqs = llama3.freqs(500_000.0, 64).unwrap();
    let (own, _) = llama3.angles(500_000.0, 64, None);
    assert_eq!(own, Scaling::None.angles(500_000.0, 64, Some(&freqs)).0);
    assert_ne!(own, Scaling::None.angles(500_000.0, 64, None).0);
}

#[test]
fn what_a_checkpoint_says_of_a_scaling_is_computed_or_an_error() {
    let read = |json: Json| Scaling::from_hub(&json, 4096);
    let attention = |json: Json| match read(json) {
        Ok(Scaling::Yarn { rest: [_, attention, ..], .. }) => attention,
        other => panic!("{other:?}"),
    };
    let yarn = |key: &str, value: Json| {
        let mut json = json!({"rope_type": "yarn", "factor": 4.0});
        json[key] = value;
        json
    };
    let mut deepseek = yarn("mscale", json!(0.707));
    assert_eq!(attention(deepseek.clone()), None, "it takes both");
    deepseek["mscale_all_dim"] = json!(1.0);
    let wanted = (1.0 + 0.0707 * 4f64.ln()) / (1.0 + 0.1 * 4f64.ln());
    assert!((attention(deepseek.clone()).unwrap() - wanted).abs() < 1e-12);
    deepseek["attention_factor"] = json!(1.25);
    assert_eq!(attention(deepseek), Some(1.25));
    assert!(read(yarn("truncate", json!(true))).is_ok());
    assert_eq!(read(json!({"factor": 1.0})), Ok(Scaling::None));
    for (json, says) in [
        (json!({"factor": 8.0}), "without a \"rope_type\""),
        (yarn("truncate", json!(false)), "truncate"),
        (yarn("truncate", json!(0)), "truncate must be true or false (found 0)"),
        (yarn("beta_fast", json!("32")), "beta_fast must be a number"),
        (yarn("attention_factor", json!({"__float__": "NaN"})), "(found NaN)"),
        (yarn("original_max_position_embeddings", json!("4096")), "original_max_position_embeddings must be"),
        (yarn("original_max_position_embeddings", json!(0.5)), "a number of tokens (found 0.5)"),
        (json!({"rope_type": "linear", "factor": [4]}), "factor must be a positive number"),
        (json!({"type": ["linear"], "factor": 4}), "type must be a string"),
        (json!({"rope_type": "linear"}), "factor is missing"),
    ] {
        let why = read(json.clone()).unwrap_err();
        assert!(why.starts_with("RoPE scaling: ") && why.contains(says), "{json}: {why}");
    }
    let note = |json: Json| read(json).unwrap().note();
    assert!(note(yarn("beta_fast", json!(64))).unwrap().contains("llama.cpp computes with 32"));
    assert_eq!(note(yarn("beta_fast", json!(32.0))), None);
}

#[test]
fn both_dialects_round_trip() {
    for (json, wanted) in [
        (json!({"rope_type": "default"}), Scaling::None),
        (json!({"type": "linear", "rope_type": null, "factor": 4.0}), Scaling::Linear { factor: 4.0 }),
        (
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "beta_fast": 32.0}),
            Scaling::Yarn { factor: 4.0, original: 32768, rest: [None, None, Some(32.0), None] },
        ),
    ] {
        let scaling = Scaling::from_hub(&json, 4096).unwrap();
        assert_eq!(scaling, wanted);
        let mut metadata = Metadata::new();
        scaling.metadata("llama", &mut metadata);
        assert_eq!(Scaling::from_gguf(&metadata, "llama", 10000.0, 4096, None), Ok(wanted));
        assert_eq!(Scaling::from_hub(&wanted.to_hub(), 4096), Ok(wanted));
    }
    for bad in [
        json!({"type": "longrope"}),
        json!({"rope_type": "linear"}),
        json!({"rope_type": "llama3"}),
        json!({"rope_type": 7}),
        json!({"rope_type": "linear", "factor": 1e300}),
        json!({"rope_type": "yarn", "factor": 1e-300}),
    ] {
        assert!(Scaling::from_hub(&bad, 4096).is_err(), "{bad}");
    }
}

#[test]
fn a_factor_of_cosines_counts_whatever_the_kind() {
    let read = |keys: &[(&str, Value)]| {
        let mut m = Metadata::new();
        keys.iter().for_each(|(k, v)| m.set(&format!("x.rope.scaling.{k}"), v.clone()));
        let scaling = Scaling::from_gguf(&m, "x", 10000.0, 4096, None).unwrap();
        let mut again = Metadata::new();
        scaling.metadata("x", &mut again);
        assert_eq!(Scaling::from_gguf(&again, "x", 10000.0, 4096, None), Ok(scaling));
        scaling
    };
    let (f, text) = (Value::F32, Value::text);
    let (plain, _) = Scaling::None.angles(10000.0, 8, None);
    let half: Vec<f64> = plain.iter().map(|x| x / 2.0).collect();
    let factor = ("attn_factor", f(1.5));
    for (keys, angles) in [
        (vec![factor.clone()], &plain),
        (vec![factor.clone(), ("type", text("none")), ("factor", f(2.0))], &plain),
        (vec![factor.clone(), ("type", text("linear"))], &plain),
        (vec![factor.clone(), ("type", text("linear")), ("factor", f(2.0))], &half),
        (vec![factor.clone(), ("factor", f(2.0))], &half),
    ] {
        assert_eq!(read(&keys).angles(10000.0, 8, None), (angles.clone(), 1.5), "{keys:?}");
    }
    assert_eq!(read(&[("attn_factor", f(1.0))]), Scaling::None);
    let yarn =
        [factor, ("type", text("yarn")), ("factor", f(4.0)), ("original_context_length", Value::U32(64))];
    let mut m = Metadata::new();
    yarn.iter().for_each(|(k, v)| m.set(&format!("x.rope.scaling.{k}"), v.clone()));
    let (_, attention) = Scaling::from_gguf(&m, "x", 10000.0, 4096, None).unwrap().angles(10000.0, 8, None);
    assert!((attention - 1.5 * usual_attention(4.0)).abs() < 1e-6, "{attention}");
}

#[test]
fn the_original_context_is_the_models_own_unless_there_is_another() {
    let (f, text) = (Value::F32, Value::text);
    for (given, wanted) in [(None, 4096), (Some(0), 4096), (Some(512), 512)] {
        let mut m = Metadata::new();
        m.set("x.rope.scaling.type", text("yarn"));
        m.set("x.rope.scaling.factor", f(4.0));
        given.into_iter().for_each(|n| m.set("x.rope.scaling.original_context_length", Value::U32(n)));
        let Ok(Scaling::Yarn { original, .. }) = Scaling::from_gguf(&m, "x", 10000.0, 4096, None) else {
            panic!()
        };
        assert_eq!(original, wanted);
    }
    let Ok(Scaling::Yarn { original, .. }) =
        Scaling::from_hub(&json!({"rope_type": "yarn", "factor": 4.0}), 4096)
    else {
        panic!()
    };
    assert_eq!(original, 4096);
}
