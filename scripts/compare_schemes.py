#!/usr/bin/env python3
"""KL divergence of ggufkit's files against llama-quantize's, scheme by scheme, as a table in Markdown.

    scripts/compare_schemes.py GGUFKIT PEER_BIN MODEL.gguf TEXT [--imatrix FILE] [--pure] [--objectives error,prior]
                               [--context 256] [--chunks N] [SCHEME...]

PEER_BIN holds llama-quantize. Of each scheme its file and ours (one for each objective; "default" is each type's own)
are compared with MODEL on TEXT by `ggufkit compare`: mean KL divergence, and the ratio of ours to theirs over the same
chunks with its 95 % bootstrap interval. Files are made in a scratch folder and removed.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

SCHEMES = ("q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 mxfp4_moe tq1_0 tq2_0 iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq2_m iq3_xxs iq3_xs "
           "iq3_s iq3_m iq4_xs iq4_nl q2_k q2_k_s q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k").split()
# llama-quantize refuses these without an importance matrix.
NEED = set("iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq2_m iq3_xxs q2_k_s".split())


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("ggufkit")
    a.add_argument("peer")
    a.add_argument("model")
    a.add_argument("text")
    a.add_argument("--imatrix")
    a.add_argument("--pure", action="store_true")
    a.add_argument("--objectives", default="default")
    a.add_argument("--context", default="256")
    a.add_argument("--chunks")
    a.add_argument("schemes", nargs="*")
    a = a.parse_intermixed_args()
    objectives = a.objectives.split(",")
    print("| scheme | bytes | llama-quantize | " + " | ".join(f"{o} | ratio (95 %)" for o in objectives) + " |")
    print("|---|---|---|" + "---|---|" * len(objectives), flush=True)
    for scheme in a.schemes or SCHEMES:
        if scheme in NEED and not a.imatrix:
            continue
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            theirs = folder / "theirs.gguf"
            command = [f"{a.peer}/llama-quantize"]
            command += ["--imatrix", a.imatrix] if a.imatrix else []
            command += ["--pure"] if a.pure else []
            done = subprocess.run(command + [a.model, theirs, scheme.upper(), "2"], capture_output=True, text=True)
            if done.returncode:
                print(f"| {scheme} | llama-quantize fails: {done.stderr.strip().splitlines()[-1][:80]} |", flush=True)
                continue
            files = [theirs]
            for o in objectives:
                files.append(folder / f"{o}.gguf")
                command = [a.ggufkit, "quantize", a.model, files[-1], "--type", scheme, "--force"]
                command += ["--imatrix", a.imatrix] if a.imatrix else []
                command += ["--pure"] if a.pure else []
                command += ["--objective", o] if o != "default" else []
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            command = [a.ggufkit, "compare", a.model, *files, "--text", a.text, "--context", a.context, "--no-floor", "--json"]
            command += ["--chunks", a.chunks] if a.chunks else []
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["candidates"]
            kld = [c["summary"]["against"]["kld"]["mean"]["value"] for c in found]
            cells = []
            for c, k in zip(found[1:], kld[1:]):
                r = c["ratio_to_first"]
                low, high = (r["interval"]["low"], r["interval"]["high"]) if r["interval"] else (float("nan"), float("nan"))
                cells.append(f"{k:.6f} | {r['value']:.4f} ({low:.4f} to {high:.4f})")
            sizes = " / ".join(str(f.stat().st_size) for f in files[:2])
            print(f"| {scheme} | {sizes} | {kld[0]:.6f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
