//! Compares our plans with llama.cpp's record of its quantizer's choices: `tests/snapshots` in its source code has a file for
//! each model, with a section for each file type. `GGUFKIT_LLAMACPP` is the folder of llama.cpp's source code.
//!
//! A section lists the tensors whose type is not the file type's main type. The section MXFP4_MOE lists all matrices except
//! stacked ones, which other sections list, so the file gives the complete list of tensors. Row lengths, which decide where a
//! block does not fit, come from the models' published configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use formats::metadata::Value;
use formats::model::Model;

use super::{PlanOptions, plan};
use crate::scheme;
use crate::scheme::facts::tests::model;
use crate::source::Source;

/// A model of the snapshots: file, architecture, and row lengths by a part of the tensor's name; the first match counts.
type Published = (&'static str, &'static str, &'static [(&'static str, u64)]);

const MODELS: [Published; 12] = [
    (
        "deepseek-v3.1",
        "deepseek2",
        &[
            ("ffn_down.", 18432),
            ("ffn_down", 2048),
            ("attn_output", 16384),
            ("attn_q_b", 1536),
            ("attn_k_b", 128),
            ("", 7168),
        ],
    ),
    ("gemma-3-4b-it", "gemma3", &[("ffn_down", 10240), ("attn_output", 2048), ("", 2560)]),
    ("glm-4.6v", "glm4moe", &[("ffn_down.", 10944), ("ffn_down", 1408), ("attn_output", 12288), ("", 4096)]),
    ("gpt-oss-120b", "gpt-oss", &[("attn_output", 4096), ("", 2880)]),
    ("meta-llama-3.1-70b-instruct", "llama", &[("ffn_down", 28672), ("", 8192)]),
    (
        "nvidia-nemotron-3-nano-30b-a3b",
        "nemotron_h_moe",
        &[
            ("ffn_down_exps", 1856),
            ("ffn_down_shexp", 3712),
            ("attn_output", 4096),
            ("ssm_out", 4096),
            ("", 2688),
        ],
    ),
    ("qwen3-0.6b", "qwen3", &[("ffn_down", 3072), ("attn_output", 2048), ("", 1024)]),
    ("qwen3-14b", "qwen3", &[("ffn_down", 17408), ("", 5120)]),
    (
        "qwen3-coder-next",
        "qwen3next",
        &[("ffn_down", 512), ("attn_output", 4096), ("ssm_out", 4096), ("", 2048)],
    ),
    (
        "qwen3.5-397b-a17b",
        "qwen35moe",
        &[("ffn_down", 1024), ("attn_output", 8192), ("ssm_out", 8192), ("", 4096)],
    ),
    ("qwen3.6-27b", "qwen35", &[("ffn_down", 17408), ("attn_output", 6144), ("ssm_out", 6144), ("", 5120)]),
    (
        "decision-3.5-flash",
        "step35",
        &[("ffn_down.", 11264), ("ffn_down", 1280), ("attn_output", 8192), ("", 4096)],
    ),
];

/// A file type, its main type, and the types of tensors that have another.
type Section = (String, String, BTreeMap<String, String>);

/// The numbers in a snapshot's header, and its sections.
fn read(text: &str) -> (BTreeMap<&str, u32>, Vec<Section>) {
    let (mut head, mut sections) = (BTreeMap::new(), Vec::<Section>::new());
    for line in text.lines().filter(|l| !l.is_empty()) {
        if let Some(numbers) = line.strip_prefix("# ") {
            let pairs = numbers.split(", ").filter_map(|p| p.split_once('='));
            head.extend(pairs.map(|(k, v)| (k, v.parse().unwrap())));
        } else if let Some((name, own)) = line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
            sections.push((name.to_lowercase(), own.to_lowercase(), BTreeMap::new()));
        } else {
            let (name, dtype) = line.rsplit_once(' ').unwrap();
            let (.., list) = sections.last_mut().expect("a section comes first");
            list.insert(name.to_string(), dtype.to_lowercase());
        }
    }
    (head, sections)
}

fn described((_, arch, rows): &Published, head: &BTreeMap<&str, u32>, sections: &[Section]) -> Model {
    let mut names: BTreeSet<String> = sections.iter().flat_map(|s| s.2.keys().cloned()).collect();
    // Stacked tensors that have the main type in every section are listed in none.
    for kind in ["gate", "up"] {
        if names.iter().any(|n| n.contains(&format!("ffn_{kind}_exps"))) {
            let down: Vec<_> = names.iter().filter(|n| n.contains("ffn_down_exps")).cloned().collect();
            names.extend(down.iter().map(|n| n.replace("down", kind)));
        }
    }
    let flat = &sections.iter().find(|s| s.0 == "mxfp4_moe").expect("all files have this section").2;
    let tensors: Vec<(&str, Vec<u64>)> = names
        .iter()
        .map(|name| {
            let cols = rows.iter().find(|(part, _)| name.contains(part)).expect("the last part is in all").1;
            (name.as_str(), if flat.contains_key(name) { vec![256, cols] } else { vec![4, 256, cols] })
        })
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (*name, &shape[..])).collect();
    let number = |key: &str| Value::U32(head.get(key).copied().unwrap_or(0));
    let mut found = model(&tensors, &[("general.architecture", Value::text(arch))]);
    for (key, name) in [
        ("block_count", "n_layer"),
        ("attention.head_count", "n_head"),
        ("attention.head_count_kv", "n_head_kv"),
        ("expert_count", "n_expert"),
    ] {
        found.metadata.set(&format!("{arch}.{key}"), number(name));
    }
    found
}

#[test]
#[ignore = "needs llama.cpp's source (see CONTRIBUTING.md)"]
fn plans_are_those_of_the_snapshots_published_by_llama_cpp() {
    let folder = std::env::var_os("GGUFKIT_LLAMACPP").expect("GGUFKIT_LLAMACPP names llama.cpp's source");
    let folder = Path::new(&folder).join("tests/snapshots");
    let mut wrong = Vec::new();
    let (mut plans, mut decisions) = (0, 0);
    for published in &MODELS {
        let name = published.0;
        let path = folder.join(format!("{name}.schema"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (head, sections) = read(&text);
        assert!(sections.len() > 30, "{name}: {} sections", sections.len());
        let mut source = Source::new(&path, described(published, &head, &sections), Vec::new());
        source.weightless = true;
        for (kind, own, others) in &sections {
            let scheme = scheme::find(kind).unwrap_or_else(|| panic!("there is no scheme {kind}"));
            assert_eq!(scheme.base.name(), own, "{kind}");
            let options =
                PlanOptions { out: "x.gguf".into(), scheme: Some(scheme), ..PlanOptions::default() };
            let found = plan(&source, &options).unwrap();
            plans += 1;
            for (t, decision) in found.layout.tensors.iter().zip(&found.decisions) {
                let wanted = others.get(&t.name).unwrap_or(own);
                decisions += 1;
                if t.encoding.name() != *wanted {
                    let (is, rule) = (t.encoding.name(), &decision.rule);
                    wrong.push(format!("{name} {kind} {}: {wanted}, we {is} ({rule})", t.name));
                }
            }
        }
    }
    eprintln!("{plans} plans of {} models with {decisions} tensors, {} differ", MODELS.len(), wrong.len());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}
