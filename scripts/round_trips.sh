#!/usr/bin/env bash
# Byte order, alignment and splits through the binary: every way there and back gives the same bytes.
#   scripts/round_trips.sh GGUFKIT FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
ggufkit=$1 out=$2/round-trips
rm -rf "$out"; mkdir -p "$out"
"$ggufkit" convert demo/tiny.bin "$out/f32.gguf" --tokenizer demo/tiny-tokenizer.bin >/dev/null
passed=0
for type in f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0 tq2_0 tq1_0; do
  "$ggufkit" quantize "$out/f32.gguf" "$out/a.gguf" --type $type >/dev/null
  "$ggufkit" convert "$out/a.gguf" "$out/be.gguf" --endian big >/dev/null
  "$ggufkit" convert "$out/be.gguf" "$out/b.gguf" --endian little >/dev/null
  cmp "$out/a.gguf" "$out/b.gguf"
  # Straight to big-endian, in one pass, must be what the two steps give.
  "$ggufkit" quantize "$out/f32.gguf" "$out/direct.gguf" --type $type --endian big >/dev/null
  cmp "$out/be.gguf" "$out/direct.gguf"
  "$ggufkit" split "$out/be.gguf" "$out/p.gguf" --max-tensors 7 >/dev/null
  "$ggufkit" merge "$out/p-00001-of-00005.gguf" "$out/c.gguf" >/dev/null
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
