#!/usr/bin/env python3
"""Sets what sensitivities foretell beside what is measured, for random mixes of types in nearly the same bytes.

    compare_mixes.py GGUFKIT MODEL SENSITIVITY.json TEXT [--imatrix FILE] [--context N] [--chunks N] [--mixes N]
                     [--bits 3.2,4.4,5.8] [--report FOLDER] [--exact]

For each budget of bits a weight, draws mixes whose sizes differ by at most 1 %, quantizes the model to each, measures their
KL divergence over the text, and prints the rank correlation (Spearman), the line that fits best, and the worst residual.
Exits with 1 if a rank correlation is below 0.9.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path


def ranks(x):
    order = sorted(range(len(x)), key=lambda i: x[i])
    out = [0.0] * len(x)
    for rank, i in enumerate(order):
        out[i] = rank
    return out


def line(x, y):
    """Slope, intercept and correlation of y over x."""
    n, mx, my = len(x), sum(x) / len(x), sum(y) / len(y)
    xx, yy = sum((a - mx) ** 2 for a in x), sum((b - my) ** 2 for b in y)
    xy = sum((a - mx) * (b - my) for a, b in zip(x, y))
    return xy / xx, my - xy / xx * mx, xy / (xx * yy) ** 0.5 if n > 1 else 0.0


def mix(matrices, target, draw):
    """A type for each matrix, with the sum of bytes within half a percent of the target."""
    names = list(matrices)
    chosen = {n: draw.choice(list(matrices[n])) for n in names}
    size = lambda: sum(matrices[n][t] for n, t in chosen.items())
    for _ in range(100000):
        now = size()
        if abs(now - target) < 0.005 * target:
            return chosen
        name = draw.choice(names)
        other = draw.choice(list(matrices[name]))
        # Only steps in the direction that is wanted.
        if (matrices[name][other] - matrices[name][chosen[name]]) * (target - now) > 0:
            chosen[name] = other
    sys.exit(f"no mix of {target:.0f} bytes was found")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ggufkit")
    parser.add_argument("model")
    parser.add_argument("sensitivity")
    parser.add_argument("text")
    parser.add_argument("--imatrix")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--mixes", type=int, default=40)
    parser.add_argument("--bits", default="3.2,4.4,5.8")
    parser.add_argument("--report")
    parser.add_argument("--exact", action="store_true")
    args = parser.parse_args()

    known = json.loads(Path(args.sensitivity).read_text())
    bits = {"iq1_s": 1.5625, "iq1_m": 1.75, "iq2_xxs": 2.0625, "iq2_xs": 2.3125, "iq2_s": 2.5625, "q2_k": 2.625,
            "iq3_xxs": 3.0625, "q3_k": 3.4375, "iq3_s": 3.4375, "iq4_xs": 4.25, "iq4_nl": 4.5, "q4_0": 4.5, "q4_k": 4.5,
            "q4_1": 5.0, "q5_0": 5.5, "q5_k": 5.5, "q5_1": 6.0, "q6_k": 6.5625, "q8_0": 8.5}
    matrices, weights = {}, 0
    for m in known["matrices"]:
        count = 1
        for n in m["shape"]:
            count *= n
        weights += count
        types = {t: count * bits[t] / 8 for t in m["errors"] if t in bits}
        if types:
            matrices[m["name"]] = types
        else:
            weights -= count

    draw, failed = random.Random(1), False
    print("  bits   bytes apart   rank correlation   measured = slope · predicted + rest   worst residual")
    with tempfile.TemporaryDirectory() as folder:
        for budget in map(float, args.bits.split(",")):
            files = []
            for i in range(args.mixes):
                chosen = mix(matrices, weights * budget / 8, draw)
                rules = "".join(f"  {{ name = '^{n}$', type = \"{t}\" }},\n" for n, t in chosen.items())
                rules = rules.replace(".", "\\.")
                recipe = Path(folder) / f"{i}.toml"
                recipe.write_text(f'base = "q8_0"\nrules = [\n{rules}]\n')
                out = Path(folder) / f"mix{i}.gguf"
                command = [args.ggufkit, "quantize", args.model, str(out), "--recipe", str(recipe)]
                command += ["--imatrix", args.imatrix] if args.imatrix else []
                subprocess.run(command, check=True, capture_output=True)
                files.append(out)
            command = [args.ggufkit, "compare", args.model, *map(str, files), "--text", args.text, "--json", "--no-floor",
                       "--context", str(args.context), "--chunks", str(args.chunks), "--sensitivity", args.sensitivity]
            command += ["--exact"] if args.exact else []
            if args.report:
                Path(args.report).mkdir(exist_ok=True)
                command += ["--report", str(Path(args.report) / f"mixes-{budget}.html")]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            candidates = found["candidates"]
            sizes = [c["bytes"] for c in candidates]
            predicted = [c["predicted_kld"] for c in candidates]
            measured = [c["summary"]["against"]["kld"]["mean"]["value"] for c in candidates]
            rank = line(ranks(predicted), ranks(measured))[2]
            slope, rest, _ = line(predicted, measured)
            worst = max(abs(m - slope * p - rest) / m for p, m in zip(predicted, measured))
            apart = max(sizes) / min(sizes) - 1
            failed |= rank < 0.9
            print(f"  {budget:4.1f}   {100 * apart:9.2f} %   {rank:16.3f}   {slope:14.3f} · p {rest:+.6f}"
                  f"            {100 * worst:6.1f} %   (measured {min(measured):.5f} to {max(measured):.5f})", flush=True)
            for f in files:
                f.unlink()
    sys.exit(failed)


main()
