//! I2_S from and to the checkpoints of Hugging Face.

use super::*;

/// A safetensors file.
fn write_safetensors(path: &str, tensors: &[(String, &str, Vec<u64>, Vec<u8>)]) {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [at, at + bytes.len()];
        header.insert(
            name.clone(),
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
        at = offsets[1];
    }
    let header = serde_json::Value::Object(header).to_string();
    let data = tensors.iter().flat_map(|t| t.3.clone());
    let bytes: Vec<u8> =
        (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(data).collect();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn checkpoints_become_it_and_it_becomes_a_checkpoint() {
    let dir = Dir::new();
    let plain = model(&dir, 256, 512);
    let (i2s, out, hub) = (dir.path("i2s.gguf"), dir.path("out.gguf"), dir.path("hub/"));
    ok(&["quantize", &plain, &i2s, "--type", "i2_s"]);
    ok(&["convert", &i2s, &hub]);
    ok(&["convert", &hub, &out, "--type", "f32"]);
    let same = |path: &str, what: &str| {
        for (name, ..) in tensors(256, 512).iter().filter(|t| t.1.len() > 1) {
            assert!(stored(path, name) == stored(&i2s, name), "{what} {name}");
        }
    };
    equal(&out, &plain);
    // As floats that mean what they are, and as those that such models are trained with.
    let file = format!("{hub}config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    for form in [
        serde_json::json!(null),
        serde_json::json!({
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"
        }),
    ] {
        config["quantization_config"] = form;
        std::fs::write(&file, config.to_string()).unwrap();
        ok(&["quantize", &hub, &out, "--type", "i2_s"]);
        same(&out, "floats");
    }
    // Packed as transformers packs.
    config["quantization_config"]["quantization_mode"] = "offline".into();
    std::fs::write(&file, config.to_string()).unwrap();
    let info = json(&["inspect", "--json", &format!("{hub}model.safetensors")]);
    assert!(info["tensors"].as_array().unwrap().len() > 20);
    let mut all = Vec::new();
    for (i, (name, shape, x)) in tensors(256, 512).into_iter().enumerate() {
        let mut hub = name.replace("blk.", "model.layers.");
        for (ours, theirs) in [
            ("token_embd", "model.embed_tokens"),
            ("output_norm", "model.norm"),
            ("attn_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
            ("attn_sub_norm", "self_attn.attn_sub_norm"),
            ("ffn_sub_norm", "mlp.ffn_sub_norm"),
            ("attn_q.", "self_attn.q_proj."),
            ("attn_k.", "self_attn.k_proj."),
            ("attn_v.", "self_attn.v_proj."),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ] {
            hub = if ours == "attn_norm" || ours == "ffn_norm" {
                hub.replace(&format!(".{ours}"), &format!(".{theirs}"))
            } else {
                hub.replace(ours, theirs)
            };
        }
        let f32s = |x: &[f32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
        if !hub.contains("_proj") {
            all.push((hub, "F32", shape, f32s(&x)));
            continue;
        }
        let (rows, cols) = (shape[0] as usize, shape[1] as usize);
        let code = |r: usize, c: usize| (x[r * cols + c] / magnitude(i) + 1.0) as u8;
        let byte = |n: usize| (0..4).map(|k| code(n / cols + k * rows / 4, n % cols) << (2 * k)).sum::<u8>();
        all.push((hub.clone(), "U8", vec![shape[0] / 4, shape[1]], (0..rows / 4 * cols).map(byte).collect()));
        all.push((format!("{hub}_scale"), "F32", vec![1], f32s(&[magnitude(i)])));
    }
    write_safetensors(&format!("{hub}model.safetensors"), &all);
    ok(&["quantize", &hub, &out, "--type", "i2_s"]);
    same(&out, "packed");
}
