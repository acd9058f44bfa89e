#!/usr/bin/env bash
# Runs the libraries' tests as 64-bit ARM under qemu: on a processor with everything, and on one without the dot
# product of 8-bit integers, where the set of instructions that needs it must not be chosen.
#
#   aarch64.sh [folder [words of cargo test]]        (target/aarch64, and all tests)
#
# Compiler, linker, C library and emulator are Debian's, unpacked into the folder (1.2 GB): nothing is installed, the
# system's lists of packages stay as they are, and rustup's toolchains too, of which only cargo is used. Ends with 77
# where that cannot be set up.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-${CARGO_TARGET_DIR:-target}/aarch64}"
D=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/aarch64}")
shift || true
root=$D/root
unable() { echo "skipped: $*"; exit 77; }

set_up() {
  rm -rf "$D/apt" "$D/debs" "$root"
  mkdir -p "$D"/apt/{lists,cache/archives}/partial "$D/debs" "$D/bin" "$root"
  # An empty status: what is installed here does not limit the choice.
  : > "$D/apt/status"
  local o=(-qq -o Dir::State::lists="$D/apt/lists" -o Dir::State::status="$D/apt/status" -o Dir::Cache="$D/apt/cache"
    -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o Acquire::Languages=none -o APT::Sandbox::User=root)
  # Other sources than Debian's may lack the second architecture. What is missing shows below.
  apt-get "${o[@]}" update || true
  depends() {
    apt-cache "${o[@]}" depends "$@" | sed -n 's/^ *Depends: \([^<:]*\)$/\1/p' |
      grep -vxE 'libc6|libgcc-s1|libstdc\+\+6|libzstd1|zlib1g' | sort -u
  }
  # The compiler's newest build, its library for both machines, and what it is linked with.
  local rust=rustc-web std=libstd-rust-web-dev
  local library; library=$(depends $std | grep '^libstd-rust') || return
  # A linker, and a C compiler for build scripts.
  local gcc; gcc=$(depends gcc-aarch64-linux-gnu | grep '^gcc-[0-9]') || return
  local libgcc; libgcc=$(depends "$gcc" | grep '^libgcc-.*-dev-arm64-cross$') || return
  # shellcheck disable=SC2046
  (cd "$D/debs" && apt-get "${o[@]}" download $rust $std $std:arm64 "$library" $(depends "$library") "$gcc" \
    $(depends "$gcc") $(depends binutils-aarch64-linux-gnu) $(depends "$libgcc" | grep '^libgcc-s') \
    libc6-dev-arm64-cross libc6-arm64-cross qemu-user-static) || return
  for f in "$D"/debs/*.deb; do dpkg -x "$f" "$root" || return; done
  rm -rf "$D/apt" "$D/debs" "$root/usr/share"
  # Programs find their libraries, and the linker its sysroot, wherever the folder is.
  wrap() {
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s/usr/lib/x86_64-linux-gnu exec %s/usr/bin/%s "$@"\n' \
      "$root" "$root" "$2" > "$D/bin/$1"
    chmod +x "$D/bin/$1"
  }
  wrap rustc rustc
  wrap aarch64-linux-gnu-gcc "aarch64-linux-gnu-${gcc%-aarch64-linux-gnu} --sysroot=$root"
  wrap aarch64-linux-gnu-ar aarch64-linux-gnu-ar
  "$D/bin/rustc" -vV && touch "$D/complete"
}

for program in apt-get apt-cache dpkg; do
  command -v $program > /dev/null || unable "no $program"
done
[ "$(dpkg --print-architecture)" = amd64 ] || unable "this sets up a cross compiler on x86-64 only"
[ -e "$D/complete" ] || set_up || unable "the packages could not be had"

export RUSTC=$D/bin/rustc CARGO_TARGET_DIR=$D/target PATH=$D/bin:$PATH CARGO_PROFILE_DEV_DEBUG=false CARGO_INCREMENTAL=0
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$D/bin/aarch64-linux-gnu-gcc
for processor in max cortex-a53; do
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$root/usr/bin/qemu-aarch64-static -cpu $processor -L $root/usr/aarch64-linux-gnu"
  echo "-- $processor"
  # Dependencies, and what debuggers read, take longer to compile well than they would be waited for.
  cargo=(cargo test --quiet --locked --target aarch64-unknown-linux-gnu --config 'profile.dev.package."*".opt-level=0')
  "${cargo[@]}" -p ggufkit --lib -- "$@"
  "${cargo[@]}" --workspace --test unit --test misuse --test codecs --test feedback -- "$@"
done
