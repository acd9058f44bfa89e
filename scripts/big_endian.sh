#!/usr/bin/env bash
# ggufkit on big-endian processors, under emulation: the same files, texts and figures as here.
#   scripts/big_endian.sh GGUFKIT FOLDER [ARCHITECTURE]...        s390x, powerpc (32 bits: a G4); s390x if none is named
# GGUFKIT is a build for this machine. What cannot be had is not run, which is said, and put into the file that NOT_RUN
# names; with BIG_ENDIAN=required it is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
ggufkit=$(realpath "$1") out=$2/big-endian
shift 2
[ $# -gt 0 ] || set -- s390x
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/big-endian
rm -rf "$out"; mkdir -p "$out"
. scripts/big_endian_rust.sh
passed=0 failed=0
check() { # NAME COMMAND...
  local name=$1; shift
  if "$@"; then passed=$((passed + 1)); else echo "FAILED: $arch: $name"; failed=$((failed + 1)); fi
}
skip() {
  echo "NOT RUN: big-endian processors: $arch: $1" | tee -a "${NOT_RUN:-/dev/null}"
  if [ "${BIG_ENDIAN:-}" = required ]; then failed=$((failed + 1)); fi
}

# What the emulated program is held against: made here, once.
here() {
  # A tensor of every type of weights: the bundled model has as many matrices.
  local types=(f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0 q6_k q5_k q4_k q3_k q2_k iq4_nl iq4_xs iq3_s iq3_xxs iq2_s iq2_xs \
    iq2_xxs iq1_m iq1_s mxfp4 q2_0 q1_0 tq2_0 tq1_0)
  local kinds=(attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down) rules=() i
  for i in "${!types[@]}"; do rules+=(--tensor "^blk\.$((i / 7))\.${kinds[i % 7]}=${types[i]}"); done
  "$ggufkit" quantize demo/model "$out/types.gguf" --type q8_0 "${rules[@]}" --force --effort fast >/dev/null
  "$ggufkit" inspect "$out/types.gguf" >"$out/types.txt"
  for i in "${types[@]}"; do grep -q "  $i " "$out/types.txt" || { echo "FAILED: no tensor is $i"; failed=$((failed + 1)); }; done
  "$ggufkit" convert "$out/types.gguf" "$out/types-be.gguf" --endian big >/dev/null
  "$ggufkit" convert "$out/types.gguf" "$out/floats.gguf" --type f32 >/dev/null
  # nvfp4 brings scales of its own.
  "$ggufkit" quantize demo/model "$out/nvfp4.gguf" --type nvfp4 --effort fast >/dev/null
  "$ggufkit" convert "$out/nvfp4.gguf" "$out/nvfp4-be.gguf" --endian big >/dev/null
  "$ggufkit" convert "$out/nvfp4.gguf" "$out/nvfp4-floats.gguf" --type f32 >/dev/null
  "$ggufkit" convert demo/tiny.bin "$out/tiny.gguf" --tokenizer demo/tiny-tokenizer.bin >/dev/null
  "$ggufkit" convert "$out/tiny.gguf" "$out/tiny-be.gguf" --endian big >/dev/null
  "$ggufkit" convert demo/tiny.bin "$out/tiny-be.bin" --tokenizer demo/tiny-tokenizer.bin --endian big >/dev/null
  "$ggufkit" quantize "$out/tiny.gguf" "$out/q4.gguf" --type q4_0 --effort fast >/dev/null
  "$ggufkit" convert "$out/q4.gguf" "$out/q4-be.gguf" --endian big >/dev/null
  head -c 3000 demo/heldout.txt >"$out/text.txt"
  story "$ggufkit" "$out/tiny.gguf" >"$out/story.txt"
  story "$ggufkit" "$out/q4.gguf" >"$out/q4.txt"
  perplexity "$ggufkit" "$out/tiny.gguf" >"$out/tiny.json"
  perplexity "$ggufkit" "$out/q4.gguf" >"$out/q4.json"
  encode "$ggufkit" "$out/encoded.gguf" --endian big
}
story() { "${@:1:$#-1}" run "${@: -1}" --prompt "Once upon a time" --tokens 40 --temperature 0 --threads 1 2>/dev/null; }
perplexity() { "${@:1:$#-1}" eval "${@: -1}" "$out/text.txt" --context 64 --json; }
# Some of the model's smaller matrices in types whose searches differ.
encode() { # COMMAND... OUT OPTION VALUE
  local n=$#
  "${@:1:n-3}" convert demo/model "${@: -3:1}" --effort fast --tensor '^blk\.0\.attn_k=q4_k' --tensor '^blk\.0\.attn_v=q6_k' \
    --tensor '^blk\.1\.attn_k=iq4_xs' --tensor '^blk\.1\.attn_v=q3_k' --tensor '^blk\.2\.attn_k=q4_0' \
    --tensor '^blk\.2\.attn_v=q8_0' --tensor '^blk\.3\.attn_k=q5_1' "${@: -2}" --threads 1 >/dev/null
}
same_figures() { # FILE FILE
  python3 - "$@" <<'EOF'
import json, sys
a, b = (json.load(open(f)) for f in sys.argv[1:])
def figures(x, at=""):
    if isinstance(x, dict):
        for k, v in x.items():
            yield from figures(v, f"{at}.{k}")
    elif isinstance(x, list):
        for i, v in enumerate(x):
            yield from figures(v, f"{at}.{i}")
    elif isinstance(x, (int, float)) and not isinstance(x, bool):
        yield at, x
a, b = dict(figures(a)), dict(figures(b))
kept = [k for k in a if "perplexity" in k]
assert kept and a.keys() == b.keys(), (sorted(a), sorted(b))
for k in kept:
    assert abs(a[k] - b[k]) <= 1e-6 * abs(a[k]), (k, a[k], b[k])
EOF
}

here
for arch in "$@"; do
  target=$arch-unknown-linux-gnu
  if ! why=$( { emulator_for "$target" && rust_for "$target"; } 2>&1 >/dev/null ); then
    skip "${why:-no toolchain}"
    continue
  fi
  emulator_for "$target"; rust_for "$target"
  cargo build --quiet --locked "${build_std[@]}" --profile emulated --target "$target" --target-dir "$target_dir" --bin ggufkit
  there=("${emulator[@]}" "$target_dir/$target/emulated/ggufkit")

  # Types: what is decoded there from a big-endian file is what is decoded here from a little-endian one, bit for bit.
  "${there[@]}" convert "$out/types-be.gguf" "$out/there.gguf" --type f32 --endian little >/dev/null
  check "every type is decoded to the same bits" cmp "$out/floats.gguf" "$out/there.gguf"
  "${there[@]}" convert "$out/nvfp4-be.gguf" "$out/there.gguf" --type f32 --endian little >/dev/null
  check "nvfp4 is decoded to the same bits" cmp "$out/nvfp4-floats.gguf" "$out/there.gguf"
  "${there[@]}" convert "$out/types.gguf" "$out/there.gguf" --endian big >/dev/null
  check "every type is turned round" cmp "$out/types-be.gguf" "$out/there.gguf"
  # Quantizing, from a checkpoint: the same bytes.
  encode "${there[@]}" "$out/there.gguf" --endian big
  check "matrices are quantized to the same bytes" cmp "$out/encoded.gguf" "$out/there.gguf"
  # Stories, from GGUF and from llama2.c's files, of either order.
  for model in tiny.gguf tiny-be.gguf; do
    story "${there[@]}" "$out/$model" >"$out/there.txt"
    check "the story of $model" cmp "$out/story.txt" "$out/there.txt"
  done
  "${there[@]}" run "$out/tiny-be.bin" --tokenizer "$out/tiny-be-tokenizer.bin" --prompt "Once upon a time" --tokens 40 \
    --temperature 0 --threads 1 2>/dev/null >"$out/there.txt"
  check "the story of tiny-be.bin" cmp "$out/story.txt" "$out/there.txt"
  story "${there[@]}" "$out/q4-be.gguf" >"$out/there.txt"
  check "the story of q4-be.gguf" cmp "$out/q4.txt" "$out/there.txt"
  # Perplexity.
  for model in tiny q4; do
    perplexity "${there[@]}" "$out/$model-be.gguf" >"$out/there.json"
    if command -v python3 >/dev/null; then
      check "the perplexity of $model-be.gguf" same_figures "$out/$model.json" "$out/there.json"
    else
      echo "NOT RUN: the perplexity of $model-be.gguf on $arch: no python3" | tee -a "${NOT_RUN:-/dev/null}"
    fi
  done
  # llama2.c files of every version, there and here.
  for version in 0 1 2; do
    type=f32; [ $version = 2 ] && type=int8
    "$ggufkit" quantize demo/tiny.bin "$out/here.bin" --type $type --bin-version $version --endian big >/dev/null
    "${there[@]}" quantize demo/tiny.bin "$out/there.bin" --type $type --bin-version $version --endian big >/dev/null
    check "llama2.c version $version" cmp "$out/here.bin" "$out/there.bin"
  done
  # Damaged files are errors there too.
  head -c 20000 "$out/types-be.gguf" >"$out/cut.gguf"
  status=0; "${there[@]}" inspect "$out/cut.gguf" >/dev/null 2>"$out/error.txt" || status=$?
  check "a cut file is an error" [ $status = 1 ]
  unset RUSTC LD_LIBRARY_PATH RUSTC_BOOTSTRAP
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
