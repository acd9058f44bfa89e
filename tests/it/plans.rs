//! Plans from settings alone, against what is published of the files that llama.cpp's users have.

use crate::common::{Dir, json, published};

/// The sizes of Llama 3.1 8B that llama.cpp's documentation of its quantizer lists: bits per weight, and GiB. That
/// of IQ3_XXS is of a file made with an importance matrix, which decides some of its types.
#[test]
#[ignore = "needs published files (see CONTRIBUTING.md)"]
fn sizes_are_the_published_ones() {
    let config = published("data/configs/meta-llama--Meta-Llama-3.1-8B/config.json");
    let dir = Dir::new();
    let hub = dir.path("Llama-3.1-8B");
    std::fs::create_dir(&hub).unwrap();
    std::fs::copy(config, format!("{hub}/config.json")).unwrap();
    for (scheme, bits, size) in [
        ("iq1_s", 2.00, 1.87),
        ("iq1_m", 2.15, 2.01),
        ("iq2_xxs", 2.38, 2.23),
        ("iq2_xs", 2.59, 2.42),
        ("iq2_s", 2.74, 2.56),
        ("iq2_m", 2.93, 2.74),
        ("iq3_xs", 3.50, 3.27),
        ("iq3_s", 3.66, 3.42),
        ("iq3_m", 3.76, 3.52),
        ("iq4_xs", 4.46, 4.17),
        ("iq4_nl", 4.68, 4.38),
        ("q2_k_s", 2.97, 2.78),
        ("q2_k", 3.16, 2.95),
        ("q3_k_s", 3.64, 3.41),
        ("q3_k_m", 4.00, 3.74),
        ("q3_k_l", 4.30, 4.02),
        ("q4_k_s", 4.67, 4.36),
        ("q4_k_m", 4.89, 4.58),
        ("q5_k_s", 5.57, 5.21),
        ("q5_k_m", 5.70, 5.33),
        ("q6_k", 6.56, 6.14),
        ("q8_0", 8.50, 7.95),
        ("f16", 16.00, 14.96),
    ] {
        let out = dir.path("x.gguf");
        let plan = json(&["quantize", &hub, &out, "--type", scheme, "--dry-run", "--json"]);
        let found = plan["bits_per_weight"].as_f64().unwrap();
        let gib = plan["bytes"].as_f64().unwrap() / f64::from(1 << 30);
        // Both are rounded; the files hold a vocabulary besides.
        assert!((found - bits).abs() < 0.0101, "{scheme}: {found} bits per weight, published {bits}");
        assert!((gib - size).abs() < 0.0151, "{scheme}: {gib} GiB, published {size}");
    }
}
