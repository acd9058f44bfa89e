"""Damage to a sound file by chance, with what is known of its format: bytes, GGUF, and other binary formats. Everything follows
from the generator of random numbers that is given."""

import copy
import struct

import formats
from damage_texts import json_file, replace_number
from nasty import FLOATS, NUMBERS, TEXTS

# Bytes of any kind.


def flip(data, rng, places):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(min(len(data), 1 << 16)) if rng.random() < 0.7 else rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
    return bytes(data), "bits are flipped"


def set_field(data, rng, places):
    fields, _ = places
    if not fields:
        return flip(data, rng, places)
    data = bytearray(data)
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, size, end = rng.choice(fields)
        if at + size > len(data):
            continue
        order = "little" if end == "<" else "big"
        old = int.from_bytes(data[at : at + size], order)
        value = rng.choice(
            [*NUMBERS, old + 1, old - 1, old * 2, old // 2, -old, len(data), len(data) - at, old ^ 1 << rng.randrange(8 * size)]
        )
        data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, order)
        said.append(f"the number at {at} is {value}")
    return bytes(data), ", ".join(said)


def cut(data, rng, places):
    _, ends = places
    at = rng.choice(ends) + rng.choice((0, 0, -1, 1)) if ends and rng.random() < 0.7 else rng.randrange(len(data) + 1)
    return data[: max(at, 0)], f"cut at {at}"


def block(data, rng, places):
    """A range of bytes, between ends of parts where these are known."""
    _, ends = places
    if len(ends) > 1 and rng.random() < 0.7:
        a, b = sorted(rng.choices(ends, k=2))
        return a, min(b, a + 4096)
    at = rng.randrange(len(data) + 1)
    return at, min(len(data), at + rng.choice((1, 4, 8, 64, 1000)))


def move(data, rng, places):
    a, b = block(data, rng, places)
    how = rng.choice(("remove", "double", "swap", "zero", "ones", "insert", "repeat"))
    piece = data[a:b]
    if how == "remove":
        data = data[:a] + data[b:]
    elif how == "double":
        data = data[:b] + piece + data[b:]
    elif how == "swap":
        c, d = block(data, rng, places)
        if c < b:
            return data[:a] + piece[::-1] + data[b:], f"bytes {a} to {b} are turned round"
        data = data[:a] + data[c:d] + data[b:c] + piece + data[d:]
    elif how == "zero":
        data = data[:a] + bytes(len(piece)) + data[b:]
    elif how == "ones":
        data = data[:a] + b"\xff" * len(piece) + data[b:]
    elif how == "insert":
        data = data[:a] + rng.choice([*TEXTS, rng.randbytes(16)]) + data[a:]
    else:
        data = data[:a] + piece * rng.choice((3, 100)) + data[b:]
    return data, f"{how} at bytes {a} to {b}"


def append(data, rng, places):
    how = rng.choice(("itself", "a half", "zeros", "noise"))
    more = {
        "itself": data,
        "a half": data[len(data) // 2 :],
        "zeros": bytes(rng.choice((1, 8, 5000))),
        "noise": rng.randbytes(100),
    }[how]
    return (data + more, f"followed by {how}") if rng.random() < 0.8 else (more + data, f"preceded by {how}")


ANY = (flip, set_field, set_field, set_field, cut, move, move, append)


# GGUF.


def gguf(data, rng):
    """A GGUF whose parts are wrong though they can be read."""
    parsed, version, end, _ = formats.read_gguf(data)
    g = copy.deepcopy(parsed)
    said, counts = [], {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        pair = rng.choice(g.metadata) if g.metadata else None
        tensor = rng.choice(g.tensors) if g.tensors else None
        how = rng.choice(
            (
                "value",
                "value",
                "value",
                "kind",
                "remove",
                "double",
                "rename",
                "nest",
                "add",
                "dims",
                "dims",
                "type",
                "offset",
                "name",
                "lose",
                "twin",
                "counts",
                "order",
                "alignment",
                "split",
            )
        )
        key = pair[0].decode("utf-8", "replace")[:60] if pair else ""
        if how == "value" and pair:
            said.append(f"{how} of {key}")
            pair[2] = any_value(pair[1], pair[2], rng)
        elif how == "kind" and pair:
            pair[1:] = rng.choice(
                [
                    [formats.U32, 7],
                    [formats.STRING, rng.choice(TEXTS)],
                    [formats.F32, 0.5],
                    [formats.BOOL, 2],
                    [formats.U8, 1],
                    [formats.ARRAY, [formats.U32, [1, 2]]],
                    [formats.ARRAY, [formats.STRING, [b"a"]]],
                    [formats.U64, 1 << 63],
                ]
            )
            said.append(f"type of {key}")
        elif how == "remove" and pair:
            g.metadata.remove(pair)
            said.append(f"no {key}")
        elif how == "double" and pair:
            g.metadata.append(copy.deepcopy(pair))
            said.append(f"two {key}")
        elif how == "rename" and pair:
            pair[0] = rng.choice([*TEXTS, key.encode() + b"x", b"general.architecture"])
            said.append(f"other name for {key}")
        elif how == "nest":
            depth = rng.choice((1, 3, 5, 63, 65, 1000, 100_000))
            value = [formats.U32, [1]]
            g.metadata.append([b"deep", formats.ARRAY, value])
            said.append(f"an array {depth} deep")
            counts["raw"] = struct.pack(end + "I", 9) + depth * (
                struct.pack(end + "I", 9) + struct.pack(end + ("I" if version == 1 else "Q"), 1)
            )
        elif how == "add":
            arch = next((v for k, _, v in g.metadata if k == b"general.architecture"), b"llama")
            name = rng.choice(
                (
                    b"expert_count",
                    b"rope.scaling.factor",
                    b"attention.sliding_window",
                    b"rope.dimension_count",
                    b"attention.key_length",
                    b"attention.value_length",
                    b"rope.scaling.original_context_length",
                    b"vocab_size",
                    b"rope.scale_linear",
                )
            )
            kind, value = rng.choice(
                [(formats.U32, rng.choice(NUMBERS)), (formats.F32, rng.choice(FLOATS)), (formats.STRING, rng.choice(TEXTS))]
            )
            g.metadata.append([arch + b"." + name, kind, value & 0xFFFFFFFF if kind == formats.U32 else value])
            said.append(f"{name.decode()} = {value!r:.40}")
        elif how == "dims" and tensor:
            tensor[1] = rng.choice(
                [
                    [rng.choice(NUMBERS) for _ in tensor[1]],
                    tensor[1][::-1],
                    tensor[1] + [1],
                    tensor[1][:-1],
                    [d + 1 for d in tensor[1]],
                    [1 << 32, 1 << 32],
                    [1 << 62, 4],
                    [0] * len(tensor[1]),
                    [2] * rng.choice((5, 60, 64, 1000)),
                    [tensor[1][0] * 2, *tensor[1][1:]],
                ]
            )
            said.append(f"dimensions of {tensor[0][:40]!r}: {tensor[1][:6]}")
        elif how == "type" and tensor:
            tensor[2] = rng.choice([*range(45), 94, 99, 1000, 0xFFFFFFFF])
            said.append(f"type of {tensor[0][:40]!r}: {tensor[2]}")
        elif how == "offset" and tensor:
            tensor[3] = rng.choice(
                [*NUMBERS, tensor[3] + 1, tensor[3] + 32, g.tensors[0][3], len(g.data), len(g.data) + 32, tensor[3] - 32]
            )
            said.append(f"offset of {tensor[0][:40]!r}: {tensor[3]}")
        elif how == "name" and tensor:
            old = tensor[0]
            tensor[0] = rng.choice(
                [
                    *TEXTS,
                    old.replace(b"blk.0", b"blk.9"),
                    old.replace(b"blk.", b"blk.18446744073709551615"),
                    b"token_embd.weight",
                    old.replace(b".weight", b".bias"),
                    b"blk.0.attn_q.scale",
                    b"blk.-1.attn_q.weight",
                    b"v.blk.0.attn_q.weight",
                ]
            )
            said.append(f"{old[:40]!r} is called {tensor[0][:40]!r}")
        elif how == "lose" and tensor:
            g.tensors.remove(tensor)
            said.append(f"no {tensor[0][:40]!r}")
        elif how == "twin" and tensor:
            g.tensors.append(copy.deepcopy(tensor))
            said.append(f"two {tensor[0][:40]!r}")
        elif how == "counts":
            counts[rng.choice(("said_tensors", "said_pairs"))] = rng.choice(NUMBERS)
            said.append("counts")
        elif how == "order":
            end, version = rng.choice("<>"), rng.choice((1, 2, 3, 3))
            said.append(f"as version {version}, {end}")
        elif how == "alignment":
            value = rng.choice((0, 1, 3, 8, 64, 4096, 1 << 30, 1 << 31, 0xFFFFFFFF))
            g.metadata.append([b"general.alignment", formats.U32, value])
            said.append(f"alignment {value}")
        elif how == "split":
            for name in (b"split.no", b"split.count", b"split.tensors.count"):
                g.metadata.append([name, rng.choice((2, 4, 5)), rng.choice((0, 1, 2, 3, 65535))])
            said.append("part of a split")
    raw = counts.pop("raw", None)
    try:
        out = g.write(version, end, **{k: v & (0xFFFFFFFF if version == 1 else (1 << 64) - 1) for k, v in counts.items()})
    except (struct.error, OverflowError):
        out = g_clipped(g, version, end)
    if raw:
        mark = b"deep"
        at = out.rfind(mark) + len(mark)
        out = out[:at] + raw + out[at + 4 :]
    return out, "; ".join(said) or "as it was"


def g_clipped(g, version, end):
    """The file with numbers cut to the bits that they have."""

    def clip(kind, v):
        if kind == formats.ARRAY:
            return [v[0], [clip(v[0], x) for x in v[1]]]
        if kind in formats.KINDS and isinstance(v, int):
            letter = formats.KINDS[kind]
            if letter in "fd":
                return float(v)
            bits = 8 * struct.calcsize(letter)
            v &= (1 << bits) - 1
            return v - (1 << bits) if letter.islower() and v >> bits - 1 else v
        return v

    g.metadata = [[k, kind, clip(kind, v)] for k, kind, v in g.metadata]
    mask = 0xFFFFFFFF if version == 1 else (1 << 64) - 1
    g.tensors = [[n, [d & mask for d in dims], t & 0xFFFFFFFF, o & (1 << 64) - 1] for n, dims, t, o in g.tensors]
    return g.write(version, end)


def any_value(kind, value, rng):
    if kind == formats.STRING:
        return rng.choice([*TEXTS, value[: len(value) // 2], value * 3, b"llama", b"qwen3moe", b"bert", b"gpt2", b"unigram"])
    if kind == formats.ARRAY:
        inner, values = value
        how = rng.choice(("shorter", "longer", "one", "none", "all", "shuffle", "kind"))
        if how == "shorter":
            return [inner, values[: len(values) // 2]]
        if how == "longer":
            return [inner, values * 3]
        if how == "none":
            return [inner, []]
        if how == "shuffle":
            return [inner, rng.sample(values, len(values))]
        if how == "kind":
            return rng.choice(
                [
                    [formats.U32, [1] * len(values)],
                    [formats.STRING, [b"x"] * len(values)],
                    [formats.F32, [0.5] * len(values)],
                    [formats.ARRAY, [[formats.U32, [1]]] * len(values)],
                    [formats.U8, [255] * len(values)],
                ]
            )
        values = list(values)
        for at in range(len(values)) if how == "all" else [rng.randrange(len(values))] if values else []:
            values[at] = any_value(inner, values[at], rng)
        return [inner, values]
    letter = formats.KINDS.get(kind, "I")
    if letter in "fd":
        return rng.choice([x for x in FLOATS if letter == "d" or abs(x) <= 3.4e38 or x != x or abs(x) == float("inf")])
    bits = 8 * struct.calcsize(letter)
    value = rng.choice([*NUMBERS, value + 1, value - 1, value * 2]) & (1 << bits) - 1
    return value - (1 << bits) if letter.islower() and value >> bits - 1 else value


# Kinds of their own.


def safetensors(data, rng):
    """A header that says something else, with its length right."""
    (n,) = struct.unpack_from("<Q", data)
    header, said = json_file(data[8 : 8 + n], rng)
    if rng.random() < 0.3:
        header = replace_number(header, rng)
        said += ", a number"
    return formats.safetensors_of(header, data[8 + n :]), said


def protobuf(data, rng):
    """A SentencePiece model of other fields."""
    fields, said = formats.read_protobuf(data), []
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(fields))
        number, wire, value = fields[at]
        how = rng.choice(("piece", "piece", "remove", "double", "wire", "inner", "inner", "overlong", "deep", "swap"))
        said.append(f"{how} at field {at}")
        if how == "piece":
            fields[at] = formats.piece(
                rng.choice(TEXTS), rng.choice(FLOATS), rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 1 << 31, (1 << 64) - 1))
            )
        elif how == "remove":
            del fields[at]
        elif how == "double":
            fields.insert(at, fields[at])
        elif how == "wire":
            fields[at] = (
                (number, rng.choice((0, 1, 3, 4, 5, 6, 7)), rng.choice(NUMBERS))
                if rng.random() < 0.5
                else (rng.choice((0, 1 << 28)), 2, b"x")
            )
            if fields[at][1] != 0 and not isinstance(fields[at][2], bytes):
                fields[at] = (*fields[at][:2], bytes(8 if fields[at][1] == 1 else 4 if fields[at][1] == 5 else 0))
        elif how == "inner" and wire == 2 and value:
            try:
                inner = formats.read_protobuf(value)
                place = rng.randrange(len(inner))
                n, w, v = inner[place]
                inner[place] = (
                    (n, 0, rng.choice(NUMBERS))
                    if w == 0
                    else (n, w, rng.choice(TEXTS) if w == 2 else struct.pack("<f", rng.choice(FLOATS))[: len(v)])
                )
                fields[at] = (number, 2, formats.protobuf(inner))
            except (IndexError, ValueError, struct.error):
                fields[at] = (number, 2, flip(value, rng, None)[0])
        elif how == "overlong":
            out = formats.protobuf(fields[:at]) + rng.choice(
                (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a" + b"\x80" * 20 + b"\1", b"\xff" * 11)
            )
            return out + formats.protobuf(fields[at:]), ", ".join(said)
        elif how == "deep":
            inner = b""
            for _ in range(rng.choice((3, 100, 5000))):
                inner = formats.protobuf([(1, 2, inner)])
            fields[at] = (number, 2, inner)
        elif how == "swap":
            other = rng.randrange(len(fields))
            fields[at], fields[other] = fields[other], fields[at]
        if not fields:
            break
    return formats.protobuf(fields), ", ".join(said)


def pickle(data, rng):
    """PyTorch's archive with other operations in its pickle, stored as it should be."""
    head = data.rfind(b"PK\3\4", 0, data.find(b"data.pkl"))
    name, extra = struct.unpack_from("<HH", data, head + 26)
    start = head + 30 + name + extra
    end = min(at for at in (data.find(mark, start) for mark in (b"PK\7\x08", b"PK\3\4", b"PK\1\2")) if at > 0)
    program = bytearray(data[start:end])
    if not program:
        return flip(data, rng, None)
    said = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(program))
        op = rng.choice(
            (
                b"\x80\x02",
                b"}",
                b"]",
                b"(",
                b"t",
                b"R",
                b"Q",
                b"0",
                b"1",
                b"2",
                b"\x85",
                b"\x86",
                b"\x87",
                b"e",
                b"u",
                b"b",
                b"\x93",
                b".",
                b"X\xff\xff\xff\x7f",
                b"\x8d" + b"\xff" * 8,
                b"\x8b\xff\xff\xff\x7f",
                b"j\xff\xff\xff\x7f",
                b"r\xff\xff\xff\xff",
                b"h\xff",
                b"\x95" + b"\xff" * 8,
                b"J\xff\xff\xff\xff",
                b"\x8a\x08" + b"\xff" * 8,
                b"cos\nsystem\n",
                b"N",
                b"\x88",
                b"K\0",
                b"M\xff\xff",
                b"\x94",
                b"q\0",
                b"h\0",
            )
        )
        # Replaced in place: the archive's lengths stay right.
        program[at : at + len(op)] = op[: len(program) - at]
        said.append(f"{op!r} at {at}")
    return data[:start] + bytes(program) + data[end:], "pickle: " + ", ".join(said)


def with_checksum(data, rng, places):
    """A file of a state folder with a right checksum over wrong bytes."""
    data, said = rng.choice(ANY)(data[:-8], rng, places)
    return data + struct.pack("<Q", formats.siphash(data)), said + ", with its checksum"
