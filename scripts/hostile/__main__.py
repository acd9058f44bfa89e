#!/usr/bin/env python3
"""Hostile inputs: damages files of every kind that the program opens, runs every command that opens them, and fails if a run
ends by a signal or a panic, takes memory or time beyond its limits, says nothing or something that a terminal would act on,
leaves a part of a result, or changes what it reads.

    python3 scripts/hostile GGUFKIT FOLDER [--seconds N | --inputs N] [--seed N] [--jobs N] [--bulk BYTES] [--slow X]

With a seed, input number I is always the same; `--only I` makes it alone. What is found is kept under FOLDER/found, with the
command. Needs Linux (or another Unix, without what only Linux's /proc says) and Python 3.9 or newer.

`sound.py` and `seeds.py` make sound files, the `special` ones what is hostile on purpose, the `damage` ones what is so by chance;
`commands.py` says who reads what, `checks.py` what a run must not do."""

import argparse
import collections
import json
import os
import random
import shlex
import shutil
import sys
import time

import checks
import commands
import damage
import damage_texts
import formats
import seeds
import special
from launcher import Launcher

# Commands that each input is given to.
EACH = 4
# A finding that was kept so often is only counted.
KEPT = 3
ODD_FOLDERS = ["out", "out", "out", "o ut", "\x1b[2Jout", "\u202eout", os.fsdecode(b"\xff\xfeout"), "o" * 200]


class Input:
    def __init__(self, number, seed, what, data=None, nature=None, name=None):
        self.number, self.seed, self.what, self.data, self.nature, self.name = number, seed, what, data, nature, name


class Plan:
    """Which input has which number. Even numbers are those that are made on purpose, as long as there are any; odd ones are
    made by chance."""

    def __init__(self, made, seed, bulk):
        self.seeds, self.seed, self.bulk = made, seed, bulk
        lists = collections.defaultdict(list)
        known = set()
        for s in made:
            lists["sound"].append((s, "as it is", None, None, None))
            if s.kind in known and s.kind not in ("tokenizer.json", "imatrix", "set-file"):
                continue
            known.add(s.kind)
            for what, make in special.of(s, bulk):
                lists[s.kind].append((s, what, make, None, None))
            for nature in special.NATURES:
                lists["in place of a file"].append((s, nature, None, nature, None))
            if s.target in s.args.values():
                for name in special.NAMES:
                    lists["names"].append((s, f"called {name[:40]!r}", None, None, os.fsdecode(name)))
        # One of every kind in turn, so that a short run has all kinds.
        rng = random.Random(f"{seed} order")
        for entries in lists.values():
            rng.shuffle(entries)
        self.made = []
        while any(lists.values()):
            self.made += [entries.pop() for entries in lists.values() if entries]

    def input(self, number):
        rng = random.Random(f"{self.seed} {number}")
        if number % 2 == 0 and number // 2 < len(self.made):
            seed, what, make, nature, name = self.made[number // 2]
            return Input(number, seed, what, make() if make else None, nature, name), rng
        seed = rng.choice(self.seeds)
        return Input(number, seed, None), rng

    def damaged(self, seed, data, rng):
        """The file of a seed, damaged by chance."""
        kind, how, places = seed.kind, [], ([], [])
        if not data:
            return data, "as it was"
        if data[:4] == b"GGUF":
            places = (lambda c: (c.fields, c.ends))(formats.read_gguf(data)[3])
            how = [lambda d, r, p: damage.gguf(d, r)] * 6
        elif kind == "safetensors":
            places = ([(0, 8, "<")], [8, 8 + int.from_bytes(data[:8], "little")])
            how = [lambda d, r, p: damage.safetensors(d, r)] * 10
        elif kind == "llama2.c":
            places = formats.llama2c_fields(data)
        elif kind == "tokenizer.model":
            how = [lambda d, r, p: damage.protobuf(d, r)] * 10
        elif kind == "tokenizer.bin":
            places = formats.counted(data, ("i", "fs"), ">" if data[0] == 0 else "<")
        elif data[:4] == b"PK\3\4":
            places = formats.zip_fields(data)
            how = [lambda d, r, p: damage.pickle(d, r)] * 8
        elif kind == "logits":
            places = formats.counted(data, ("QIII", "I"))
            places = ([*places[0][:5], *places[0][5:60]], places[1][:60])
        elif kind == "imatrix":
            places = formats.counted(data, ("i", "siv"))
        elif kind == "state" and not special.is_json(kind, data):
            how = [damage.with_checksum] * 6
        elif special.is_json(kind, data):
            how = [lambda d, r, p: damage_texts.json_file(d, r)] * 16 + [lambda d, r, p: damage_texts.text_file(d, r, kind)] * 3
        else:
            how = [lambda d, r, p: damage_texts.text_file(d, r, kind)] * 12
        return rng.choice([*damage.ANY, *how])(data, rng, places)


class Worker:
    """Makes inputs and has them run, in a folder of its own."""

    def __init__(self, launcher, options, plan, folder, sound):
        self.launcher, self.options, self.plan, self.folder, self.sound = launcher, options, plan, folder, sound
        self.limits = checks.Limits(options.slow)
        self.figures = {
            "inputs": collections.Counter(),
            "runs": collections.Counter(),
            "ends": collections.Counter(),
            "largest": (0, ""),
            "multiple": (0, ""),
            "longest": (0, ""),
            "slowest": (0, ""),
        }
        self.kept, self.found = collections.Counter(), []
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "MALLOC_ARENA_MAX": "4",
            "RAYON_NUM_THREADS": "2",
            "LC_ALL": "C.UTF-8",
            "RUST_BACKTRACE": "0",
        }

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def fresh(self, name):
        shutil.rmtree(os.fsencode(self.path(name)), ignore_errors=True)
        os.makedirs(self.path(name))
        return self.path(name)

    def line(self, template, seed, out, renamed):
        """A command's arguments, and the path of its standard input."""
        stdin = None
        if template.startswith("old: "):
            template = template[5:]
        values = {"sound": self.sound["model"], "words": self.sound["text"], "out": out}
        for key, value in seed.args.items():
            value = renamed if renamed is not None and value == seed.target else value
            # An option of `edit` is no path; "." is the folder.
            values[key] = value if key == "key" else os.path.normpath(self.path("in", value))
        if seed.kind == "state":
            values["words"] = values["text"]
        words = []
        parts = template.split(" ")
        if "<" in parts:
            at = parts.index("<")
            stdin, parts = parts[at + 1].format(**values), parts[:at]
        for word in parts:
            words.append(word.format(**values))
        if words[0] in commands.THREADED and "--threads" not in words:
            words += ["--threads", "2"]
        return [self.options.ggufkit, *words], stdin

    def launch(self, kind, command, stdin, size):
        return self.launcher.run(
            command=command,
            folder=self.folder,
            stdin=stdin or "/dev/null",
            stdout=self.path("stdout"),
            stderr=self.path("stderr"),
            environment=self.environment,
            seconds=2 * self.limits.seconds(command, size),
            memory=4 * self.limits.memory(kind, command, size) + (1 << 30),
        )

    def place(self, made, rng):
        """Writes an input's files. Gives the file's name if it is another than the seed's."""
        seed = made.seed
        folder = self.fresh("in")
        renamed = None
        files = dict(seed.files)
        target = seed.target
        if seed.kind == "state":
            for name, data in files.items():
                self.write(os.path.join(folder, name), data)
            command, _ = self.line(commands.PREPARE[0], seed, self.fresh("prepared"), None)
            self.launch(seed.kind, command, None, 1 << 20)
            with open(os.path.join(folder, target), "rb") as f:
                files = {target: f.read()}
        if made.name is not None:
            renamed = made.name
            files[os.path.join(os.path.dirname(target), renamed)] = files.pop(target)
        elif made.nature is not None:
            original = files.pop(target)
            path = os.path.join(folder, target)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.exists(path):
                os.remove(path)
            special.place(path, made.nature, original)
        elif made.what is None:
            files[target], made.what = self.plan.damaged(seed, files[target], rng)
        elif made.data is not None:
            files[target] = made.data
        for name, data in files.items():
            self.write(os.path.join(folder, name), data)
        return renamed

    def write(self, path, data):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))  # a state folder belongs to files of one time

    def lines(self, made, rng):
        all_lines = list(dict.fromkeys(commands.KINDS[made.seed.kind]))
        if made.nature == "pipe":
            # A pipe that a user names is read until its end.
            all_lines = [line for line in all_lines if made.seed.kind not in ("text", "recipe", "set-file", "sensitivity")]
        if made.what == "as it is" or self.options.all:
            return all_lines
        return rng.sample(all_lines, min(len(all_lines), EACH))

    def try_input(self, number):
        made, rng = self.plan.input(number)
        seed = made.seed
        renamed = self.place(made, rng)
        folder = self.path("in")
        if made.what is None:
            made.what = "as it was"
        self.figures["inputs"][seed.kind] += 1
        size = sum(
            special.sparse_size(os.path.join(p, f)) for p, _, fs in os.walk(os.fsencode(folder)) for f in map(os.fsencode, fs)
        )
        source = checks.snapshot(folder)
        for template in self.lines(made, rng):
            out = self.fresh(rng.choice(ODD_FOLDERS) if made.what != "as it is" else "out")
            if template.startswith("old: "):
                for name in (
                    "o.gguf",
                    "o.safetensors",
                    "o.bin",
                    "i.gguf",
                    "i.dat",
                    "l.kld",
                    "l.safetensors",
                    "r.html",
                    "s.json",
                    "r.toml",
                ):
                    with open(os.path.join(out, name), "w") as f:
                        f.write("old")
            command, stdin = self.line(template, seed, out, renamed)
            if stdin is not None and made.nature is not None:
                stdin = None
            of_run = size + self.sound["size"] * sum(command.count(self.sound[k]) for k in ("model", "text"))
            before = checks.snapshot(out)
            done = self.launch(seed.kind, command, stdin, of_run)
            after = checks.snapshot(out)
            now = checks.snapshot(folder)
            if seed.kind == "state":  # which the run goes on with
                source, now = ({k: v for k, v in x.items() if not k.startswith(b"state")} for x in (source, now))
            stdout, stderr = checks.read_some(self.path("stdout")), checks.read_some(self.path("stderr"))
            found = checks.of_run(done, seed.kind, command, self.limits, of_run, stdout, stderr, before, after, source, now)
            source = now
            self.count(made, command, done, of_run)
            if not found and os.waitstatus_to_exitcode(done["status"]) == 0:
                found = self.read_results(out, set(after) - set(before))
            for kind, text in found:
                self.keep(made, command, kind, text, stdin)
            shutil.rmtree(os.fsencode(out), ignore_errors=True)

    def read_results(self, out, new):
        """What was written must be readable."""
        found = []
        for path in sorted(new):
            path = os.path.join(out, os.fsdecode(path))
            if path.endswith((".gguf", ".safetensors")) and os.path.isfile(path):
                done = self.launch("gguf", [self.options.ggufkit, "inspect", path], None, os.path.getsize(path))
                if done["status"] != 0:
                    said = checks.read_some(self.path("stderr")).decode("utf-8", "replace").replace(out, "OUT")
                    found.append(("results", f"what was written cannot be read: {said.strip()[:200]}"))
                break
        return found

    def count(self, made, command, done, size):
        figures, name = self.figures, command[1]
        code = os.waitstatus_to_exitcode(done["status"])
        figures["runs"][name] += 1
        figures["ends"][f"exit {code}" if code >= 0 else f"signal {-code}"] += 1
        label = f"input {made.number}: {made.seed.kind} ({made.seed.name}), {made.what[:70]}; {name}"
        beyond = done["memory"] - size
        figures["largest"] = max(figures["largest"], (beyond, label))
        if size > 1 << 20:
            figures["multiple"] = max(figures["multiple"], ((done["memory"] - checks.MEMORY) / size, label))
            figures["slowest"] = max(figures["slowest"], (done["cpu"] / (size / (1 << 20)), label))
        figures["longest"] = max(figures["longest"], (done["cpu"], label))

    def keep(self, made, command, kind, text, stdin):
        signature = f"{kind}: {text[:60]}"
        self.kept[signature] += 1
        if self.kept[signature] > KEPT:
            return
        place = os.path.join(self.options.folder, "found", f"{made.number}-{len(self.found)}-{os.getpid()}")
        os.makedirs(place)
        shown = shlex.join(command).encode("utf-8", "backslashreplace").decode()
        if made.nature is None and made.seed.kind != "state":
            shutil.copytree(os.fsencode(self.path("in")), os.fsencode(os.path.join(place, "in")), symlinks=True)
            shown = shown.replace(self.path("in"), os.path.join(place, "in"))
        shutil.copy(self.path("stderr"), place)
        again = shlex.join(
            [
                "python3",
                "scripts/hostile",
                self.options.ggufkit,
                self.options.folder,
                "--seed",
                str(self.plan.seed),
                "--bulk",
                str(self.plan.bulk),
                "--only",
                str(made.number),
            ]
        )
        if stdin:
            shown += " < " + shlex.quote(stdin)
        with open(os.path.join(place, "command.txt"), "w", encoding="utf-8", errors="backslashreplace") as f:
            f.write(f"{kind}: {text}\n{made.seed.kind} ({made.seed.name}): {made.what}\n{shown}\n{again}\n")
        self.found.append(
            [kind, text, f"input {made.number}: {made.seed.kind} ({made.seed.name}), {made.what[:100]}", shown[:600], place]
        )
        what = f"input {made.number}: {made.seed.kind} ({made.seed.name}), {made.what[:200]}"
        line = f"FOUND {kind}: {text}\n  {what}\n  {shown[:600]}\n  {again}"
        print(
            "".join(c if c == "\n" or not checks.hidden(c) else f"\\u{ord(c):04x}" for c in line)
            .encode("utf-8", "backslashreplace")
            .decode(),
            flush=True,
        )


def work(worker, job, options, until):
    number = job
    while (until is None or time.monotonic() < until) and (options.inputs is None or number < options.inputs):
        worker.try_input(number)
        number += options.jobs


def table(title, counter):
    print(f"{title}: " + ", ".join(f"{name} {n:,}" for name, n in sorted(counter.items(), key=lambda x: (-x[1], x[0]))))


def main():
    parser = argparse.ArgumentParser(prog="scripts/hostile", description=__doc__.split("\n\n")[0])
    parser.add_argument("ggufkit")
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--inputs", type=int, help="end after so many inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bulk", type=int, default=2 << 20, help="bytes of inputs of many small things")
    parser.add_argument("--slow", type=float, default=1.0, help="how many times the usual time a run may take")
    parser.add_argument("--only", type=int, help="make this input alone")
    parser.add_argument("--all", action="store_true", help="give each input to all commands that read its kind")
    options = parser.parse_args()
    options.ggufkit, options.folder = os.path.abspath(options.ggufkit), os.path.abspath(options.folder)
    if options.seconds is None and options.inputs is None:
        options.seconds = 60.0
    start = time.monotonic()
    os.makedirs(options.folder, exist_ok=True)
    shutil.rmtree(os.path.join(options.folder, "found"), ignore_errors=True)
    # Before this process is large.
    launchers = [Launcher() for _ in range(options.jobs)]
    sound = os.path.join(options.folder, "sound")
    maker = seeds.Maker(options.ggufkit, sound)
    plan = Plan(maker.all(), options.seed, options.bulk)
    files = {"model": os.path.join(sound, "f32.gguf"), "text": os.path.join(sound, "text.txt")}
    files["size"] = os.path.getsize(files["model"])
    workers = [Worker(launchers[i], options, plan, os.path.join(options.folder, f"work-{i}"), files) for i in range(options.jobs)]
    if options.only is not None:
        workers[0].try_input(options.only)
        results = [(workers[0].figures, workers[0].found, workers[0].kept)]
    else:
        until = None if options.seconds is None else start + options.seconds
        pipes = []
        for i, worker in enumerate(workers):
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.close(read)
                    work(worker, i, options, until)
                    with os.fdopen(write, "w") as f:
                        json.dump((worker.figures, worker.found, worker.kept), f)
                    code = 0
                finally:
                    sys.stdout.flush()
                    if code:
                        import traceback

                        traceback.print_exc()
                    os._exit(code)
            os.close(write)
            pipes.append((pid, read))
        results = []
        for pid, read in pipes:
            with os.fdopen(read) as f:
                text = f.read()
            if os.waitpid(pid, 0)[1] != 0:
                raise SystemExit("a worker has failed")
            results.append(json.loads(text))
    for launcher in launchers:
        launcher.close()
    return report(results, options, time.monotonic() - start)


def report(results, options, seconds):
    total = {name: collections.Counter() for name in ("inputs", "runs", "ends")}
    largest = {name: (0, "") for name in ("largest", "multiple", "longest", "slowest")}
    found, times = [], collections.Counter()
    for figures, own, kept in results:
        for name, counter in total.items():
            counter.update(figures[name])
        for name in largest:
            largest[name] = max(largest[name], tuple(figures[name]))
        found += own
        times.update(kept)
    missing = set(commands.KINDS) - set(total["inputs"])
    inputs, runs = (sum(total[n].values()) for n in ("inputs", "runs"))
    print(f"{inputs:,} inputs, {runs:,} runs in {seconds:.0f} s (seed {options.seed})")
    table("inputs", total["inputs"])
    table("runs", total["runs"])
    table("ended with", total["ends"])
    printable = lambda text: (
        "".join(c if not checks.hidden(c) else f"\\u{ord(c):04x}" for c in text).encode("utf-8", "backslashreplace").decode()
    )
    print(f"most memory beyond the files: {largest['largest'][0] / (1 << 20):.1f} MiB ({printable(largest['largest'][1])})")
    more = f"most memory beyond {checks.MEMORY >> 20} MiB, for each byte of more than 1 MiB of files"
    print(f"{more}: {largest['multiple'][0]:.1f} bytes ({printable(largest['multiple'][1])})")
    print(f"longest run: {largest['longest'][0]:.1f} s of processor time ({printable(largest['longest'][1])})")
    print(f"most time for a MiB of more than 1 MiB: {largest['slowest'][0]:.1f} s ({printable(largest['slowest'][1])})")
    if options.only is None and missing:
        print(f"kinds of files that were not tried: {', '.join(sorted(missing))}")
    if found:
        print(f"FAILED: {sum(times.values())} findings of {len(times)} kinds:")
        for signature, n in times.most_common():
            print(f"  {n} × {printable(signature)}")
        return 1
    print("0 findings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
