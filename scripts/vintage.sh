#!/usr/bin/env bash
# llama2.c files for old machines, read there: tests/vintage/story.c takes every number in the machine's own byte order,
# as those programs do, and tells the model's story on an emulated PowerPC G4, an s390x, a Pentium II, and here.
#   scripts/vintage.sh GGUFKIT FOLDER
# Machines whose compiler or emulator is not there are not run, which is said, and put into the file that NOT_RUN names.
# With BIG_ENDIAN=required that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
ggufkit=$1 out=$2/vintage
rm -rf "$out"; mkdir -p "$out"
passed=0 failed=0
check() { # NAME COMMAND...: the command must succeed.
  local name=$1; shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
}
same() { # Both must be there, and not empty.
  [ -s "$1" ] && cmp "$1" "$2"
}

# s390x would compute floats as doubles if the standard is taken to the letter.
declare -A order=([native]=le [powerpc]=be [s390x]=be [i386]=le)
declare -A compiler=([native]=cc) emulator=([native]="")
declare -A flags=([native]="" [powerpc]="-static -mcpu=7450" [s390x]="-static -fexcess-precision=fast"
  [i386]="-static -march=pentium2")
declare -A target=([powerpc]=powerpc-linux [s390x]=s390x-linux [i386]=i686-linux)
[ "$(printf '\1\0' | od -An -tu2 | tr -d ' ')" = 1 ] || order[native]=be
machines=()
. scripts/big_endian_rust.sh
for machine in native powerpc s390x i386; do
  if [ $machine != native ]; then
    cross ${target[$machine]}
    compiler[$machine]=$gcc emulator[$machine]="$qemu ${cpu[*]}"
    # shellcheck disable=SC2086
    tools "$gcc" "$qemu" $packages
  fi
  missing=
  for tool in ${compiler[$machine]} ${emulator[$machine]%% *}; do
    command -v "$tool" >/dev/null || missing+=" $tool"
  done
  if [ -n "$missing" ]; then
    echo "NOT RUN: old machines: $machine: no$missing" | tee -a "${NOT_RUN:-/dev/null}"
    if [ "${BIG_ENDIAN:-}" = required ]; then
      failed=$((failed + 1)); echo "FAILED: $machine is required"
    fi
    continue
  fi
  # shellcheck disable=SC2086
  ${compiler[$machine]} -std=c89 -pedantic -Wall -Wextra -Werror -O2 -ffp-contract=off ${flags[$machine]} \
    tests/vintage/story.c -o "$out/story-$machine" -lm
  machines+=("$machine")
done
[ ${#machines[@]} -gt 0 ] || { echo "0 passed, $failed failed"; exit $((failed > 0)); }
first=${machines[0]}

story() { # MACHINE [-w] MODEL TOKENIZER STEPS
  local machine=$1; shift
  # shellcheck disable=SC2086
  ${emulator[$machine]} "$out/story-$machine" "$@"
}
refused() { # WHY, then as for story: it must end with 1 and say why.
  local why=$1 code=0; shift
  story "$@" >"$out/refused" 2>&1 || code=$?
  if [ $code != 1 ] || ! grep -q "$why" "$out/refused"; then
    echo "ended with $code:"; cat "$out/refused"
    return 1
  fi
}

# Files in both orders. v0 and v2 of either model, and group sizes; what is written at once as big-endian must be what
# little-endian files become.
both() { # NAME COMMAND INPUT OPTIONS...: writes NAME-le.bin and NAME-be.bin.
  local name=$1 command=$2 input=$3; shift 3
  "$ggufkit" "$command" "$input" "$out/$name-le.bin" "$@" >/dev/null
  "$ggufkit" "$command" "$input" "$out/$name-be.bin" "$@" --endian big >/dev/null
  "$ggufkit" convert "$out/$name-le.bin" "$out/turned.bin" --endian big >/dev/null
  check "$name: turned is written" cmp "$out/$name-be.bin" "$out/turned.bin"
}
both tok-tiny convert demo/tiny-tokenizer.bin
both tiny-v0 convert demo/tiny.bin
for size in 32 16 4; do
  both "tiny-v2-$size" quantize demo/tiny.bin --type int8 --group-size $size
done
both model-v0 convert demo/model
both model-v2-64 quantize demo/model --type int8
both model-v2-32 quantize demo/model --type int8 --group-size 32
# A checkpoint's tokenizer is written beside the file.
for end in le be; do
  mv "$out/model-v0-$end-tokenizer.bin" "$out/tok-model-$end.bin"
done

# The text that the first machine tells is what the others must tell too. On a Pentium II sums have more bits, which
# may turn a rounding to bytes: there a story of v2 must only be one.
tells() { # NAME MODEL STEPS
  local name=$1 model=$2 steps=$3 machine
  for machine in "${machines[@]}"; do
    local end=${order[$machine]} text=$out/$name-$machine.txt
    story "$machine" "$out/$name-$end.bin" "$out/tok-$model-$end.bin" "$steps" >"$text" 2>"$text.log" ||
      { echo "FAILED: $name on $machine: $(cat "$text.log")"; failed=$((failed + 1)); }
    if [ "$machine" = i386 ] && [[ $name == *-v2-* ]]; then
      check "$name on $machine: tells something" grep -qE '[A-Za-z ,.]{16}' "$text"
    else
      check "$name on $machine: the same text" same "$out/$name-$first.txt" "$text"
    fi
  done
}
tells tiny-v0 tiny 32
for size in 32 16 4; do
  tells "tiny-v2-$size" tiny 32
done
tells model-v0 model 10
tells model-v2-64 model 24
tells model-v2-32 model 24

# 176 is divided by 16 and not by 32: such groups must have become smaller.
for pair in 32:16 16:16 4:4; do
  check "groups of ${pair#*:}" grep -q "group ${pair#*:}," "$out/tiny-v2-${pair%:*}-$first.txt.log"
done
# Words, and the same in 8 bits for a while.
check "a story" grep -q '[a-z]\+ [a-z]\+ [a-z]\+' "$out/model-v0-$first.txt"
for size in 64 32; do
  check "the model's story in bytes" cmp -n 24 "$out/model-v0-$first.txt" "$out/model-v2-$size-$first.txt"
done

# ggufkit's own runner tells the same, from either order. What the others leave out as unprintable it writes, so only
# the printable is compared.
printable() { LC_ALL=C tr -cd '\11-\15\40-\176'; }
for pair in tiny:32 model:10; do
  model=${pair%:*} steps=${pair#*:}
  printable <"$out/$model-v0-$first.txt" >"$out/expected.txt"
  for end in le be; do
    "$ggufkit" run "$out/$model-v0-$end.bin" --tokenizer "$out/tok-$model-$end.bin" --temperature 0 --exact --kv f32 \
      --tokens "$steps" 2>/dev/null | printable >"$out/ran.txt"
    check "ggufkit run $model, $end" same "$out/expected.txt" "$out/ran.txt"
  done
done

# What must not be taken for a model, on each machine: the other order, an end that is missing, and one too many.
for machine in "${machines[@]}"; do
  end=${order[$machine]} other=be
  [ "$end" = le ] || other=le
  for version in v0 v2-4; do
    right=$out/tiny-$version-$end.bin
    check "$machine, $version: the other order" refused "byte order" "$machine" "$out/tiny-$version-$other.bin" \
      "$out/tok-tiny-$end.bin" 1
    head -c -4 "$right" >"$out/short.bin"
    check "$machine, $version: too short" refused "too short" "$machine" "$out/short.bin" "$out/tok-tiny-$end.bin" 1
    { cat "$right"; printf '\0\0\0\0'; } >"$out/long.bin"
    check "$machine, $version: too long" refused "too long" "$machine" "$out/long.bin" "$out/tok-tiny-$end.bin" 1
  done
  check "$machine: the other order of a tokenizer" refused "length of a token" "$machine" "$out/tiny-v0-$end.bin" \
    "$out/tok-tiny-$other.bin" 1
  # Zeros where the cosines begin: 512 x 64 weights of the embedding and so on, up to the tables and their 2048 floats.
  cp "$out/tiny-v0-$end.bin" "$out/flat.bin"
  head -c 8192 /dev/zero |
    dd of="$out/flat.bin" bs=4 seek=$((($(stat -c %s "$out/flat.bin") - 8192) / 4)) conv=notrunc status=none
  check "$machine: no tables" refused "table of angles" "$machine" "$out/flat.bin" "$out/tok-tiny-$end.bin" 1
done

# The Windows 98 port's rules: 512 tokens take 8 MiB, and a cache for a million positions does not fit.
windows=$first
[[ " ${machines[*]} " != *" i386 "* ]] || windows=i386
fits() { story "$windows" -w "$out/tiny-v0-le.bin" "$out/tok-tiny-le.bin" 4 >/dev/null 2>"$out/windows.log"; }
check "-w: fits" fits
check "-w: counts tokens" awk 'NR == 1 { ok = $7 > 8 * 1048576 && $7 < 96 * 1048576 } END { exit !ok }' "$out/windows.log"
check "-w: version 0 only" refused "a version" "$windows" -w "$out/tiny-v2-4-le.bin" "$out/tok-tiny-le.bin" 4
cp "$out/tiny-v0-le.bin" "$out/wide.bin"
printf '\0\0\20\0' | dd of="$out/wide.bin" bs=1 seek=24 conv=notrunc status=none
check "-w: 96 MiB" refused "96 MiB" "$windows" -w "$out/wide.bin" "$out/tok-tiny-le.bin" 4

echo "$passed passed, $failed failed"
[ $failed = 0 ]
