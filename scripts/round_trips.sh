#!/usr/bin/env bash
# Byte order, alignment and splits through the binary: every way there and back gives the same bytes.
#   scripts/round_trips.sh GGUFKIT FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
ggufkit=$1 out=$2/round-trips
rm -rf "$out"; mkdir -p "$out"
"$ggufkit" convert demo/model "$out/bf16.gguf" >/dev/null
passed=0
for type in f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0 q6_k q5_k_m q4_k_m q3_k_m q2_k iq4_nl iq4_xs iq3_s iq3_xxs iq2_s iq2_xs \
  iq2_xxs iq1_m iq1_s mxfp4 nvfp4 q2_0 q1_0 tq2_0 tq1_0; do
  "$ggufkit" quantize "$out/bf16.gguf" "$out/a.gguf" --type $type --force --effort fast >/dev/null
  "$ggufkit" convert "$out/a.gguf" "$out/be.gguf" --endian big >/dev/null
  "$ggufkit" convert "$out/be.gguf" "$out/b.gguf" --endian little >/dev/null
  cmp "$out/a.gguf" "$out/b.gguf"
  # Straight to big-endian, in one pass, must be what the two steps give.
  "$ggufkit" quantize "$out/bf16.gguf" "$out/direct.gguf" --type $type --force --effort fast --endian big >/dev/null
  cmp "$out/be.gguf" "$out/direct.gguf"
  "$ggufkit" split "$out/be.gguf" "$out/p.gguf" --max-tensors 7 >/dev/null
  "$ggufkit" merge "$out"/p-00002-of-*.gguf "$out/c.gguf" >/dev/null
  cmp "$out/be.gguf" "$out/c.gguf"
  rm -f "$out"/p-*
  "$ggufkit" convert "$out/a.gguf" "$out/d.gguf" --align 4096 >/dev/null
  "$ggufkit" edit "$out/d.gguf" "$out/e.gguf" --remove general.alignment >/dev/null
  cmp "$out/a.gguf" "$out/e.gguf"
  passed=$((passed + 4))
done
for version in 0 1 2; do
  type=f32; [ $version = 2 ] && type=int8
  "$ggufkit" quantize demo/tiny.bin "$out/a.bin" --type $type --bin-version $version >/dev/null
  "$ggufkit" convert "$out/a.bin" "$out/be.bin" --endian big >/dev/null
  "$ggufkit" convert "$out/be.bin" "$out/b.bin" --endian little >/dev/null
  cmp "$out/a.bin" "$out/b.bin"
  passed=$((passed + 1))
done
echo "$passed passed, 0 failed"
