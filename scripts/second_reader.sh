#!/usr/bin/env bash
# Files that ggufkit writes, read by the gguf-rs crate, an independent reader; see tests/second-reader/README.md.
#   scripts/second_reader.sh [GGUFKIT]
set -euo pipefail
cd "$(dirname "$0")/.."
ggufkit=${1:-target/release/ggufkit}
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
pairs=()
add() {
  "$ggufkit" inspect --json "$1" >"$1.json"
  pairs+=("$1" "$1.json")
}
"$ggufkit" convert demo/tiny.bin "$out/f32.gguf" --tokenizer demo/tiny-tokenizer.bin --json >/dev/null
add "$out/f32.gguf"
for type in q8_0 q5_1 q5_0 q4_1 q4_0 tq2_0 tq1_0 f16 bf16; do
  "$ggufkit" quantize "$out/f32.gguf" "$out/$type.gguf" --type "$type" --json >/dev/null
  add "$out/$type.gguf"
done
for type in q6_k q5_k_m q4_k_m q3_k_m q2_k iq4_xs iq3_s iq3_xxs iq2_s iq2_xs iq2_xxs iq1_m iq1_s tq2_0; do
  "$ggufkit" quantize demo/model "$out/model-$type.gguf" --type "$type" --force --effort fast --json >/dev/null
  add "$out/model-$type.gguf"
done
"$ggufkit" convert "$out/q8_0.gguf" "$out/aligned.gguf" --align 64 --json >/dev/null
add "$out/aligned.gguf"
"$ggufkit" split "$out/q8_0.gguf" "$out/part.gguf" --max-tensors 15 --json >/dev/null
cargo run --quiet --release --locked --manifest-path tests/second-reader/Cargo.toml -- "${pairs[@]}"
