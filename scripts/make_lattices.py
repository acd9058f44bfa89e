#!/usr/bin/env python3
"""Writes formats/src/block/lattice/tables.rs: the points of the lattice types as one 16-bit number each.

    scripts/make_lattices.py iq_grids.safetensors > formats/src/block/lattice/tables.rs

The safetensors file has ggml's tables as numbers: iq2_xxs, iq2_xs, iq2_s [points, 8] and iq3_xxs, iq3_s [points, 4]
of magnitudes, iq1_s [2048, 8] of -1, 0 and 1.
"""

import json
import sys

# Table, its levels, bits of a level.
TABLES = [
    ("iq1_s", [-1, 0, 1], 2),
    ("iq2_xxs", [8, 25, 43], 2),
    ("iq2_xs", [8, 25, 43], 2),
    ("iq2_s", [8, 25, 43], 2),
    ("iq3_xxs", [4, 12, 20, 28, 36, 44, 52, 62], 3),
    ("iq3_s", [1, 3, 5, 7, 9, 11, 13, 15], 3),
]

HEAD = """\
//! The points of the lattices. Made by scripts/make_lattices.py; not to be edited.
//!
//! A number is a point, coordinate j the index of a level in bits 2j and 2j + 1, or 3j to 3j + 2 where there are eight
//! levels. The numbers are data of the formats and come from ggml, which has this notice:
//!
//! MIT License
//!
//! Copyright (c) 2023-2026 The ggml authors
//!
//! Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
//! documentation files (the "Software"), to deal in the Software without restriction, including without limitation
//! the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and
//! to permit persons to whom the Software is furnished to do so, subject to the following conditions:
//!
//! The above copyright notice and this permission notice shall be included in all copies or substantial portions of
//! the Software.
//!
//! THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO
//! THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
//! AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
//! CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS
//! IN THE SOFTWARE.
"""


def main():
    data = open(sys.argv[1], "rb").read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    print(HEAD, end="")
    for name, levels, bits in TABLES:
        info = header[name]
        points, dims = info["shape"]
        first, last = info["data_offsets"]
        values = [v - 256 if info["dtype"] == "I8" and v > 127 else v for v in data[start + first : start + last]]
        packed = [
            sum(levels.index(v) << (bits * j) for j, v in enumerate(values[p * dims : (p + 1) * dims]))
            for p in range(points)
        ]
        print(f"\n/// {dims} coordinates of {levels}.")
        print("#[rustfmt::skip]")
        print(f"pub(super) const {name.upper()}: [u16; {points}] = [")
        for i in range(0, points, 13):
            print("    " + " ".join(f"0x{p:04X}," for p in packed[i : i + 13]))
        print("];")


main()
