#!/usr/bin/env bash
# Every block type against ggml's own library: rates of encoding and decoding on one core, and weighted error, as a
# table in Markdown on standard output.
#
#     scripts/compare_encoders.sh LLAMA.CPP [TYPE...]
#
# LLAMA.CPP is its source folder, built in build/ (ggml's base library as an archive). Needs a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: $0 LLAMA.CPP [TYPE...]" >&2; exit 2; }
source=$1
shift
archive=$(find "$source/build" -name libggml-base.a | head -1)
[ -n "$archive" ] || { echo "$source/build has no libggml-base.a: build llama.cpp with static libraries" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cc -O2 -I "$source/ggml/include" scripts/peer_blocks.c "$archive" -fopenmp -lstdc++ -lm -lpthread -o "$folder/peer"
cargo bench --quiet --bench encoders -- --peer "$folder/peer" "$@"
