"""What a run must not do, whatever its files are."""

import hashlib
import json
import os
import re
import signal
import stat
import unicodedata

# Bytes of memory that a run may take, and so many for each byte of its files. Mapped files count as memory.
MEMORY, PER_BYTE = 64 << 20, 16
# A byte of a text may be a token, of which there are several copies; an entry of an importance matrix has twenty bytes at
# least; a line of a model card, of which one MiB is read, has five.
PER_BYTE_OF = {"text": 64, "imatrix": 48, "README.md": 48}
# Beyond that: the process that renders a chat template (SECURITY.md), and the regular expressions of a recipe.
TEMPLATE, PATTERNS = 256 << 20, 192 << 20
# Seconds of processor time, and so many for each MiB of the files.
SECONDS, PER_MIB = 6.0, 2.5
# What a message may have at most, in characters.
MESSAGE = 20_000


def ranges():
    """The characters that do something else than to be seen, as ranges: controls, marks of direction, what has no width."""
    found = [i for i in range(0x110000) if unicodedata.category(chr(i)) in ("Cc", "Cf", "Zl", "Zp") and chr(i) not in "\n\t"]
    out = []
    for i in found:
        if out and out[-1][1] == i - 1:
            out[-1][1] = i
        else:
            out.append([i, i])
    return out


HIDDEN = re.compile("[" + "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in ranges()) + "]")


def hidden(text):
    """The first character of a text that does something else than to be seen."""
    found = HIDDEN.search(text)
    return found and found.group()


def snapshot(folder):
    """What is in a folder: for each path its kind, length, time and, where it is not long, a hash of its bytes."""
    found = {}
    for path, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            whole = os.path.join(path, name)
            s = os.lstat(whole)
            content = None
            if stat.S_ISREG(s.st_mode) and s.st_size <= 64 << 20 and s.st_mode & 0o400:
                with open(whole, "rb") as f:
                    content = hashlib.sha1(f.read()).digest()
            time = None if stat.S_ISDIR(s.st_mode) else s.st_mtime_ns
            found[os.path.relpath(whole, os.fsencode(folder))] = (s.st_mode, 0 if time is None else s.st_size, time, content)
    return found


def read_some(path, most=8 << 20):
    with open(path, "rb") as f:
        return f.read(most)


class Limits:
    def __init__(self, slow):
        """`slow` is how many times as long a build may take that is not optimised."""
        self.slow = slow

    def memory(self, kind, command, size):
        more = TEMPLATE if "--chat" in command else PATTERNS if "--recipe" in command else 0
        return MEMORY + PER_BYTE_OF.get(kind, PER_BYTE) * size + more

    def seconds(self, command, size):
        # A template has 5 seconds of its own (SECURITY.md).
        return (SECONDS + PER_MIB * size / (1 << 20) + (5 if "--chat" in command else 0)) * self.slow


def where(text):
    """Where a panic was."""
    found = re.search(r"panicked at ([^\s]+:\d+:\d+)", text)
    return found.group(1) if found else text.strip().splitlines()[0][:80] if text.strip() else "no message"


def of_run(done, kind, command, limits, size, out, err, before, after, source_before, source_after):
    """The findings of a run as (kind, text). `before` and `after` are snapshots of the folder that it writes to."""
    found = []
    say = lambda kind, text: found.append((kind, text))
    status = done["status"]
    message = err.decode("utf-8", "replace")
    name = command[1]
    code = os.waitstatus_to_exitcode(status)
    if done["stopped"]:
        say("stuck", done["stopped"])
    elif code < 0:
        number = -code
        why = "time" if number == getattr(signal, "SIGXCPU", 0) else "signal"
        say(why, f"ended by {signal.Signals(number).name}: {where(message)}")
    elif code not in (0, 1, 2, 3):
        say("panic" if code == 101 else "exit status", f"exit status {code}: {where(message)}")
    if "panicked at" in message and code != 101:
        say("panic", f"a panic in a thread: {where(message)}")
    if done["memory"] > limits.memory(kind, command, size) and not done["stopped"]:
        say("memory", f"{name}: {done['memory'] >> 20} MiB for {size / (1 << 20):.2f} MiB of files")
    if done["cpu"] > limits.seconds(command, size) and not done["stopped"]:
        say("time", f"{name}: {done['cpu']:.1f} s of processor time for {size / (1 << 20):.2f} MiB of files")
    if "out of memory" in message or "memory allocation of" in message:
        say("memory", f"{name}: {message.strip().splitlines()[0][:100]}")
    failed = code in (1, 2, 3)
    # `verify` and --max-kld have found something, and say it in their report.
    reports = name == "verify" or code == 3
    if failed and not message.strip() and not (reports and out.strip()):
        say("message", f"{name}: exit status {code} without a word")
    try:
        err.decode()
    except UnicodeDecodeError:
        say("message", f"{name}: a message that is not UTF-8")
    if bad := hidden(message):
        say("message", f"{name}: U+{ord(bad):04X} in a message")
    if len(message) > MESSAGE:
        say("message", f"{name}: a message of {len(message)} characters")
    if name != "run":  # whose output is the model's text
        text = out.decode("utf-8", "replace")
        if bad := hidden(text):
            say("output", f"{name}: U+{ord(bad):04X} in the output")
        if code == 0 and "--json" in command and len(out) < 8 << 20:
            try:
                json.loads(text, parse_constant=lambda c: 1 / 0)
            except (ValueError, ZeroDivisionError, RecursionError) as e:
                say("output", f"{name}: not JSON: {e}"[:100])
    if source_before != source_after:
        changed = [os.fsdecode(p) for p in set(source_before) | set(source_after) if source_before.get(p) != source_after.get(p)]
        say("inputs", f"{name}: changed what it reads: {sorted(changed)[:3]}")
    new = sorted(os.fsdecode(p) for p in set(after) - set(before))
    if code in (1, 2) or code < 0:
        old = [os.fsdecode(p) for p in before if after.get(p) != before[p]]
        if old:
            say("results", f"{name}: changed a file though it failed: {old[:3]}")
        # The folder of a state is kept, so that the next run goes on.
        kept = [p for p in new if "--state" not in command or not p.startswith("state")]
        # --check comes after the result, which is whole.
        if kept and code > 0 and "--check" not in command:
            say("results", f"{name}: left something though it failed: {kept[:3]}")
    left = [p for p in new if os.path.basename(p).startswith(".") or p.endswith((".part", ".tmp", "-partial"))]
    if left and code >= 0:
        say("results", f"{name}: left {left[:3]}")
    return found
