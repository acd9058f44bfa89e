#!/usr/bin/env bash
# A full disk, a folder without permission, Ctrl-C, kill and kill -9 in the middle: no file at the target, the old one intact,
# nothing left over. Needs Python 3, and root for the small file system and the permissions: without it those are not run,
# which is said, and put into the file that NOT_RUN names.
#   scripts/interruptions.sh GGUFKIT FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
ggufkit=$1 out=$2/interruptions
not_run() { echo "NOT RUN: interruptions: $*" | tee -a "${NOT_RUN:-/dev/null}"; }
rm -rf "$out"; mkdir -p "$out/disk" "$out/target"
passed=0
pass() { passed=$((passed + 1)); }
fail() { echo "FAILED: $*" >&2; exit 1; }
# A model of 117 MB: long enough to be interrupted.
python3 - "$out/big.bin" <<'PY'
import struct, sys
dim, hidden, layers, heads, vocab, seq = 512, 1408, 9, 8, 512, 16
n = vocab * dim + layers * (2 * dim + 4 * dim * dim + 3 * dim * hidden) + dim + seq * dim // heads
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<7i", dim, hidden, layers, heads, heads, vocab, seq))
    f.write((struct.pack("<97f", *(i * 0.01 - 0.5 for i in range(97))) * (n // 97 + 1))[: 4 * n])
PY

# Interrupted at several moments. A shell that is not interactive starts its background processes with SIGINT ignored,
# and a program inherits that, so that the signal would do nothing: `set -m` leaves it as it is, and where it was ignored
# before this script, GNU's env resets it. Each signal must have ended a run at least once, else nothing was tried.
reset=(env --default-signal=INT)
"${reset[@]}" true 2>/dev/null || reset=()
for signal in INT TERM HUP KILL; do
  ended=0
  for delay in 0.02 0.1 0.3; do
    echo old >"$out/target/m.gguf"
    set -m
    ${reset[@]+"${reset[@]}"} "$ggufkit" quantize "$out/big.bin" "$out/target/m.gguf" --type iq2_s --threads 1 >/dev/null 2>&1 & pid=$!
    set +m
    sleep $delay
    kill -$signal $pid 2>/dev/null || true
    status=0
    wait $pid 2>/dev/null || status=$?
    case $status in
      0) ;;                                                        # quicker than the signal
      $((128 + $(kill -l $signal)))) ended=$((ended + 1)) ;;
      *) fail "SIG$signal after $delay s: exit status $status" ;;
    esac
    # The old file or, where the run was quicker than the signal, the whole new one.
    if [ "$(head -c 4 "$out/target/m.gguf")" != "old" ]; then
      [ $status = 0 ] || fail "SIG$signal after $delay s: a new file of a run that was ended"
      "$ggufkit" verify "$out/target/m.gguf" >/dev/null || fail "SIG$signal after $delay s: a broken file"
    elif [ $status = 0 ]; then
      fail "SIG$signal after $delay s: the run ended with 0, and the file is the old one"
    fi
    [ "$(ls -A "$out/target")" = m.gguf ] || fail "SIG$signal after $delay s left $(ls -A "$out/target")"
    pass
  done
  [ $ended -gt 0 ] || fail "SIG$signal ended no run: nothing was tried"
done

if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=8m none "$out/disk" 2>/dev/null; then
  trap 'umount "$out/disk"' EXIT
  echo old >"$out/disk/m.gguf"
  # Known to be too large beforehand, from the free space.
  if "$ggufkit" convert "$out/big.bin" "$out/disk/m.gguf" 2>"$out/err"; then fail "the disk was full"; fi
  grep -q 'not enough space' "$out/err" || fail "$(cat "$out/err")"
  [ "$(cat "$out/disk/m.gguf")" = old ] && [ "$(ls -A "$out/disk")" = m.gguf ] || fail "full disk: $(ls -A "$out/disk")"
  pass
  # A disk without room for one more file's blocks, and standard output on a full device.
  dd if=/dev/zero of="$out/disk/filler" bs=64K count=1000 2>/dev/null || true
  if "$ggufkit" convert demo/tiny.bin "$out/disk/m.gguf" 2>"$out/err"; then fail "the disk was full"; fi
  [ "$(cat "$out/disk/m.gguf")" = old ] || fail "full disk: the old file is gone"
  pass
else
  not_run "the full disk: a small one may not be mounted"
fi
if "$ggufkit" inspect demo/tiny.bin >/dev/full 2>"$out/err"; then fail "/dev/full took the report"; fi
pass

# A folder that may not be written to. Root may write anywhere, so another user tries.
if [ "$(id -u)" != 0 ]; then
  not_run "the folder that may not be written to: it takes root to become another user"
elif ! command -v setpriv >/dev/null; then
  not_run "the folder that may not be written to: no setpriv"
else
  echo old >"$out/target/m.gguf"
  chmod 755 "$out" "$out/target"
  cp demo/tiny.bin "$out/tiny.bin"; chmod 644 "$out/tiny.bin"
  cp "$ggufkit" "$out/ggufkit"; chmod 755 "$out/ggufkit"
  if chmod 755 "$2" && setpriv --reuid=65534 --clear-groups test -r "$out/tiny.bin"; then
    if setpriv --reuid=65534 --clear-groups "$out/ggufkit" convert "$out/tiny.bin" "$out/target/m.gguf" 2>"$out/err"; then
      fail "the folder was not to be written to"
    fi
    grep -q 'permission' "$out/err" || fail "$(cat "$out/err")"
    [ "$(cat "$out/target/m.gguf")" = old ] || fail "read-only folder: the old file is gone"
    pass
  else
    not_run "the folder that may not be written to: another user cannot read $out"
  fi
fi
echo "$passed passed, 0 failed"
