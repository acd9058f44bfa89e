# To be sourced: `rust_for TARGET` makes cargo build for a big-endian Linux target, and `emulator_for TARGET` finds what runs
# the result. Both give 1, with a word on standard error, where that cannot be had.
#
# Rust's own builds of the standard library are taken where rustup can fetch them. Elsewhere, on Debian 12: a compiler from
# its security archive, with the standard library of the same version that Debian 13 builds for s390x; for PowerPC, whose
# library nobody builds any more, its sources, which cargo compiles itself.

# The names of the linker, the emulator, and Debian's packages.
cross() {
  case $1 in
    s390x-*) gcc=s390x-linux-gnu-gcc qemu=qemu-s390x-static root=/usr/s390x-linux-gnu cpu=() packages="gcc-s390x-linux-gnu libc6-dev-s390x-cross" ;;
    powerpc-*) gcc=powerpc-linux-gnu-gcc qemu=qemu-ppc-static root=/usr/powerpc-linux-gnu cpu=(-cpu 7447a) packages="gcc-powerpc-linux-gnu libc6-dev-powerpc-cross" ;;
    i686-*) gcc=i686-linux-gnu-gcc qemu=qemu-i386-static root=/usr/i686-linux-gnu cpu=(-cpu pentium2) packages="gcc-i686-linux-gnu libc6-dev-i386-cross" ;;
    *) echo "no linker is known for $1" >&2; return 1 ;;
  esac
}

# Installs a cross compiler and qemu, where they are not there and may be.
tools() { # COMPILER EMULATOR PACKAGES...
  if command -v "$1" >/dev/null && command -v "$2" >/dev/null; then return 0; fi
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    shift 2
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" qemu-user-static; } \
      >/dev/null 2>&1 || true
  fi
}

emulator_for() {
  cross "$1" || return 1
  tools "$gcc" "$qemu" $packages
  command -v $gcc >/dev/null || { echo "no $gcc" >&2; return 1; }
  command -v $qemu >/dev/null || { echo "no $qemu" >&2; return 1; }
  emulator=("$qemu" "${cpu[@]}" -L "$root")
  local name; name=$(tr a-z- A-Z_ <<<"$1")
  export "CARGO_TARGET_${name}_LINKER=$gcc" "CARGO_TARGET_${name}_RUNNER=${emulator[*]}"
}

rust_for() {
  build_std=()
  if command -v rustup >/dev/null && timeout 60 rustup target add "$1" >/dev/null 2>&1; then
    return 0
  fi
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "neither rustup nor Debian has a library for $1" >&2; return 1; }
  local folder=${XDG_CACHE_HOME:-$HOME/.cache}/ggufkit/debian-rust
  [ -x "$folder/debian/usr/bin/rustc" ] || debian_rust "$folder" || { echo "Debian's Rust could not be fetched" >&2; return 1; }
  export RUSTC=$folder/debian/usr/bin/rustc LD_LIBRARY_PATH=$folder/debian/usr/lib/x86_64-linux-gnu
  if [ ! -d "$folder/debian/usr/lib/rustlib/$1/lib" ]; then
    # What is unstable there is asked for by a switch that the compiler keeps for building itself.
    export RUSTC_BOOTSTRAP=1
    build_std=(-Zbuild-std=std,panic_abort)
  fi
}

# Unpacks Debian's packages into a folder; nothing of the system is changed.
debian_rust() {
  local folder=$1 key=/usr/share/keyrings/debian-archive-keyring.gpg sources main security
  sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | sed 's/^deb \[[^]]*\]/deb/') || true
  # The mirrors that this machine is set up for, in either of apt's notations.
  main=$(awk '/^URIs:/ {u = $2} /^Suites:/ && !/security/ {print u; exit} /^deb / && !/security/ {print $2; exit}' <<<"$sources")
  security=$(awk '/^URIs:/ {u = $2} /^Suites:.*security/ {print u; exit} /^deb .*security/ {print $2; exit}' <<<"$sources")
  [ -n "$main" ] && [ -n "$security" ] || return 1
  rm -rf "$folder.new"; mkdir -p "$folder.new"/{lists/partial,cache/archives/partial,debs,debian}
  : >"$folder.new/status"
  cat >"$folder.new/sources.list" <<EOF
deb [signed-by=$key] $main bookworm main
deb [signed-by=$key] $security bookworm-security main
deb [signed-by=$key] $main trixie main
EOF
  local apt=(apt-get -qq -o Dir::Etc::sourcelist="$folder.new/sources.list" -o Dir::Etc::sourceparts=-
    -o Dir::State::lists="$folder.new/lists" -o Dir::State::status="$folder.new/status" -o Dir::Cache="$folder.new/cache"
    -o APT::Architectures::=amd64 -o APT::Architectures::=s390x -o Acquire::Languages=none -o APT::Sandbox::User=root)
  "${apt[@]}" update >/dev/null 2>&1 || return 1
  local std=$(apt-cache "${apt[@]:2}" depends rustc-web 2>/dev/null | awk '/libstd-rust-web-[0-9]/ {print $2; exit}')
  local llvm=$(apt-cache "${apt[@]:2}" depends rustc-web "${std:-libstd-rust-web-1.96}" 2>/dev/null | awk '/libllvm[0-9]+/ {print $2; exit}')
  (cd "$folder.new/debs" &&
    "${apt[@]}" -t bookworm-security download rustc-web "${std:-libstd-rust-web-1.96}" libstd-rust-web-dev "${llvm:-libllvm22}" rust-web-src &&
    "${apt[@]}" -t trixie download libstd-rust-web-dev:s390x) >/dev/null 2>&1 || return 1
  local deb
  for deb in "$folder.new"/debs/{rustc-web,libstd,libllvm}*.deb; do dpkg -x "$deb" "$folder.new/debian" || return 1; done
  local library=$folder.new/debian/usr/lib/rustlib/src/rust
  mkdir -p "$library"
  dpkg-deb --fsys-tarfile "$folder.new"/debs/rust-web-src_*.deb |
    tar -x -C "$library" --strip-components=4 --wildcards './usr/src/rustc-*/library' || return 1
  rm -rf "$folder.new"/{lists,cache,debs} "$folder"
  mv "$folder.new" "$folder"
  LD_LIBRARY_PATH=$folder/debian/usr/lib/x86_64-linux-gnu "$folder/debian/usr/bin/rustc" --version
}
