#!/usr/bin/env python3
"""KL divergence of ggufkit's files, calibrated and made by a method, against llama-quantize's with llama-imatrix's importance.

    scripts/compare_methods.py GGUFKIT PEER_BIN MODEL.gguf CALIBRATION TEXT [--method gptq] [--context 256] [--chunks 512]
                               [--pure] [--exact] [--stock] TYPE...

PEER_BIN holds llama-imatrix and llama-quantize (and llama-perplexity for --stock). Both tools calibrate on the same
chunks of CALIBRATION; files are compared with MODEL on TEXT by `ggufkit compare` (with --exact: with exact activations
too), the ratio over the same chunks with its 95 % bootstrap interval; --stock adds the means that llama-perplexity
gives. --pure keeps embedding and output at f16 in both.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def stock(peer, base, model, text, context):
    # llama-perplexity sometimes ends before its last lines are printed.
    for _ in range(5):
        out = run(f"{peer}/llama-perplexity", "-m", model, "-f", text, "-c", context, "--kl-divergence-base", base,
                  "--kl-divergence", "--no-repack")
        found = re.search(r"Mean    KLD:\s+([0-9.]+)", out)
        if found:
            return float(found.group(1))
    return float("nan")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ggufkit", "peer", "model", "calibration", "text"):
        a.add_argument(name)
    a.add_argument("--method", default="gptq")
    a.add_argument("--context", default="256")
    a.add_argument("--chunks", default="512")
    a.add_argument("--pure", action="store_true")
    a.add_argument("--exact", action="store_true")
    a.add_argument("--stock", action="store_true")
    a.add_argument("types", nargs="+")
    a = a.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        imatrix, base = folder / "imatrix.gguf", folder / "base"
        run(f"{a.peer}/llama-imatrix", "-m", a.model, "-f", a.calibration, "-o", imatrix, "-c", a.context, "--chunks",
            a.chunks, "--no-repack", "--no-ppl")
        if a.stock:
            run(f"{a.peer}/llama-perplexity", "-m", a.model, "-f", a.text, "-c", a.context, "--kl-divergence-base", base,
                "--no-repack")
        columns = ["type", "bytes", "llama-quantize", a.method, "ratio (95 %)"]
        columns += ["exact ratio"] if a.exact else []
        columns += ["llama-perplexity", "ratio"] if a.stock else []
        print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
        for name in a.types:
            theirs, ours = folder / "theirs.gguf", folder / "ours.gguf"
            f16 = ["--token-embedding-type", "f16", "--output-tensor-type", "f16"] if a.pure else []
            run(f"{a.peer}/llama-quantize", "--imatrix", imatrix, *(["--pure"] if a.pure else []), *f16, a.model, theirs,
                name.upper(), "2")
            f16 = ["--embedding-type", "f16", "--output-type", "f16", "--pure"] if a.pure else []
            run(a.ggufkit, "quantize", a.model, ours, "--type", name, *f16, "--method", a.method, "--calibration",
                a.calibration, "--calibration-context", a.context, "--calibration-chunks", a.chunks)
            cells = [name, f"{theirs.stat().st_size} / {ours.stat().st_size}"]
            for exact in (False, True) if a.exact else (False,):
                out = run(a.ggufkit, "compare", a.model, theirs, ours, "--text", a.text, "--context", a.context,
                          "--no-floor", "--json", *(["--exact"] if exact else []))
                found = json.loads(out[out.index("{"):])["candidates"]
                kld = [c["summary"]["against"]["kld"]["mean"]["value"] for c in found]
                r = found[1]["ratio_to_first"]
                ratio = f"{r['value']:.3f} ({r['interval']['low']:.3f} to {r['interval']['high']:.3f})"
                cells += [ratio] if exact else [f"{kld[0]:.6f}", f"{kld[1]:.6f}", ratio]
            if a.stock:
                both = [stock(a.peer, base, m, a.text, a.context) for m in (theirs, ours)]
                cells += [f"{both[0]:.6f}, {both[1]:.6f}", f"{both[1] / both[0]:.3f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
