"""Damage to a sound file: by chance, with what the file's format is known of. Everything follows from the generator of random
numbers that is given."""

import copy
import json
import struct

import formats

NUMBERS = [0, 1, 2, 3, 7, 31, 33, 255, 256, 65535, 65536, 1 << 20, (1 << 24) + 1, (1 << 31) - 1, 1 << 31, (1 << 31) + 1,
           (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 53) + 1, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 32]  # fmt: skip
TEXTS = [
    b"", b"\0", b"a\0b", b"\x1b[2J\x1b]0;x\x07", "\u202e\u2066\u200b\u2028\ufeff".encode(), b"\xff\xfe\x80", b"\xed\xa0\x80",
    b"../../../etc/passwd", b"/etc/passwd", b"..", b".", b"\\\\host\\x", b"a\nb\r\nc", b"x" * 300, b"y" * 70_000, b"%s%n{}{{}}",
    b"<script>alert(1)</script>", b"'\"`$(id)", "e\u0301\U0001f600\u0600".encode(), b"-o", b"--help", b" ", b"\t", b"\xc2\x9b31m",
]  # fmt: skip
FLOATS = [0.0, -0.0, 1e-45, -1.0, 1e38, 3.4e38, float("inf"), float("-inf"), float("nan"), 1e30]


def long_nesting(rng, most):
    return rng.choice([n for n in (2, 20, 127, 129, 1000, 30_000, 500_000, 3_000_000) if n <= most])


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
        value = rng.choice([*NUMBERS, old + 1, old - 1, old * 2, old // 2, -old, len(data), len(data) - at, old ^ 1 << rng.randrange(8 * size)])
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
    more = {"itself": data, "a half": data[len(data) // 2 :], "zeros": bytes(rng.choice((1, 8, 5000))), "noise": rng.randbytes(100)}[how]
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
        how = rng.choice(("value", "value", "value", "kind", "remove", "double", "rename", "nest", "add", "dims", "dims", "type", "offset",
                          "name", "lose", "twin", "counts", "order", "alignment", "split"))  # fmt: skip
        key = pair[0].decode("utf-8", "replace")[:60] if pair else ""
        if how == "value" and pair:
            said.append(f"{how} of {key}")
            pair[2] = any_value(pair[1], pair[2], rng)
        elif how == "kind" and pair:
            pair[1:] = rng.choice([[formats.U32, 7], [formats.STRING, rng.choice(TEXTS)], [formats.F32, 0.5], [formats.BOOL, 2], [formats.U8, 1],
                                   [formats.ARRAY, [formats.U32, [1, 2]]], [formats.ARRAY, [formats.STRING, [b"a"]]], [formats.U64, 1 << 63]])  # fmt: skip
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
            counts["raw"] = struct.pack(end + "I", 9) + depth * (struct.pack(end + "I", 9) + struct.pack(end + ("I" if version == 1 else "Q"), 1))
        elif how == "add":
            arch = next((v for k, _, v in g.metadata if k == b"general.architecture"), b"llama")
            name = rng.choice((b"expert_count", b"rope.scaling.factor", b"attention.sliding_window", b"rope.dimension_count", b"attention.key_length",
                               b"attention.value_length", b"rope.scaling.original_context_length", b"vocab_size", b"rope.scale_linear"))  # fmt: skip
            kind, value = rng.choice([(formats.U32, rng.choice(NUMBERS)), (formats.F32, rng.choice(FLOATS)), (formats.STRING, rng.choice(TEXTS))])
            g.metadata.append([arch + b"." + name, kind, value & 0xFFFFFFFF if kind == formats.U32 else value])
            said.append(f"{name.decode()} = {value!r:.40}")
        elif how == "dims" and tensor:
            tensor[1] = rng.choice([
                [rng.choice(NUMBERS) for _ in tensor[1]], tensor[1][::-1], tensor[1] + [1], tensor[1][:-1], [d + 1 for d in tensor[1]],
                [1 << 32, 1 << 32], [1 << 62, 4], [0] * len(tensor[1]), [2] * rng.choice((5, 60, 64, 1000)), [tensor[1][0] * 2, *tensor[1][1:]],
            ])  # fmt: skip
            said.append(f"dimensions of {tensor[0][:40]!r}: {tensor[1][:6]}")
        elif how == "type" and tensor:
            tensor[2] = rng.choice([*range(45), 94, 99, 1000, 0xFFFFFFFF])
            said.append(f"type of {tensor[0][:40]!r}: {tensor[2]}")
        elif how == "offset" and tensor:
            tensor[3] = rng.choice([*NUMBERS, tensor[3] + 1, tensor[3] + 32, g.tensors[0][3], len(g.data), len(g.data) + 32, tensor[3] - 32])
            said.append(f"offset of {tensor[0][:40]!r}: {tensor[3]}")
        elif how == "name" and tensor:
            old = tensor[0]
            tensor[0] = rng.choice([*TEXTS, old.replace(b"blk.0", b"blk.9"), old.replace(b"blk.", b"blk.18446744073709551615"), b"token_embd.weight",
                                    old.replace(b".weight", b".bias"), b"blk.0.attn_q.scale", b"blk.-1.attn_q.weight", b"v.blk.0.attn_q.weight"])  # fmt: skip
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
            return rng.choice([[formats.U32, [1] * len(values)], [formats.STRING, [b"x"] * len(values)], [formats.F32, [0.5] * len(values)],
                               [formats.ARRAY, [[formats.U32, [1]]] * len(values)], [formats.U8, [255] * len(values)]])  # fmt: skip
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


# JSON.

RAW = ["1e999", "-1e999", "-0", "0.1e-999", "18446744073709551616", "9" * 1000, "-9223372036854775809", "NaN", "-Infinity", "1.0", "1e3",
       '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\u001b[2J"', '"\\u202e"', "'a'", "tru", "01", "+1", ".5", "1.", "0x10", "/**/1", "",
       '"\\x"', '"\n"', "[1,]", '{"a":1,}', "{1:2}", "nul", "\ufeff1"]  # fmt: skip


def paths(value, at=()):
    """The places of all values in a JSON value."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*at, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 12)):
            yield from paths(value[i], (*at, i))


def shape(value, rng, texts):
    """Something else than a JSON value. What JSON cannot say is put into `texts`, and stands for itself under its mark."""
    def raw(text):
        texts.append(text)
        return f"@@{len(texts) - 1}@@"

    how = rng.choice(("type", "type", "number", "raw", "raw", "text", "nest", "empty", "twice", "long"))
    if how == "type":
        others = [None, True, False, 0, -1, 1, 2.5, "x", "", [], {}, [1, "a", None], {"a": {}}, [[]], [None], "1", [{}]]
        return rng.choice([o for o in others if type(o) is not type(value)])
    if how == "number":
        return rng.choice([*NUMBERS, *[-n for n in NUMBERS], *[x for x in FLOATS if x == x and abs(x) < 1e300]])
    if how == "raw":
        return raw(rng.choice(RAW).encode())
    if how == "text":
        text = rng.choice(TEXTS)
        return raw(b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"') if rng.random() < 0.3 else text.decode("utf-8", "replace")
    if how == "nest":
        n = long_nesting(rng, 30_000)
        return raw(rng.choice((b"[" * n + b"]" * n, b'{"a":' * n + b"1" + b"}" * n, b"[" * n, b'[{"":' * (n // 2))))
    if how == "empty":
        return type(value)() if value is not None else {}
    if how == "twice" and isinstance(value, (list, str)):
        return value * rng.choice((2, 50))
    return [value] * rng.choice((2, 3000))


def json_file(data, rng):
    """JSON of another form."""
    value = json.loads(data)
    texts, said = [], []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        everything = list(paths(value))
        # What is deep inside a list is mostly one of many: places near the root are taken more often.
        near = [p for p in everything if len(p) <= 2]
        path = rng.choice(near if rng.random() < 0.6 else everything)
        if not path:
            if rng.random() < 0.2:
                value = shape(value, rng, texts)
                said.append("another root")
                break
            path = rng.choice(everything)
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        key, how = path[-1], rng.random()
        said.append(".".join(map(str, path))[:80])
        if how < 0.7:
            parent[key] = shape(parent[key], rng, texts)
        elif how < 0.8 and isinstance(parent, dict):
            parent["@@twin@@" + key] = shape(parent[key], rng, texts)
        elif how < 0.9 and isinstance(parent, dict):
            parent[rng.choice(TEXTS).decode("utf-8", "replace")] = parent.pop(key)
        else:
            del parent[key]
    out = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1))).encode("utf-8", "surrogatepass")
    out = out.replace(b'"@@twin@@', b'"')
    for i, text in enumerate(texts):
        out = out.replace(f'"@@{i}@@"'.encode(), text)
    return out, "JSON: " + ", ".join(said)


# Texts.

WORDS = {
    "README.md": [b"---\n", b"- - - - a\n", b"a: &x [*x, *x]\n", b"!!python/object/apply:os.system [id]\n", b"? |\n", b"key: >+9\n", b"<<: *x\n",
                  b"%YAML 1.2\n", b"license: [\n", b'base_model: {a: "b\n', b"\t- x\n", b"'a': 'b''c'\n", b"x: !!binary aGk=\n", b"...\n"],
    "chat template": [b"{% for i in range(1000000000) %}x{% endfor %}", b"{{ 'x' * 1000000000 }}", b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
                      b"{% set x = [] %}{% for i in range(99999) %}{% set _ = x.append(x) %}{% endfor %}", b"{{ '%1000000000d' % 1 }}", b"{{ 2 ** 10000000 }}",
                      b"{% include '/etc/passwd' %}", b"{{ messages.__class__ }}", b"{{ raise_exception('\x1b[2J') }}", b"{{ ((((", b"{% if", b"{#", b"{{ 1/0 }}",
                      b"{{ '\\ud800' }}", b"{{ messages|tojson(indent=1000000) }}", b"{% raw %}", b"{%- set ns = namespace(x=1) -%}", b"{{ 9**99**9 }}",
                      b"{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", b"{{ ('a'|list * 9999999)|join }}", b"{{ strftime_now('%' ~ 'Y' * 999999) }}"],
    "recipe": [b"[[rules]]\n", b"base = 1\n", b'rules = ["mine"]\n', b"a.b.c.d = 1\n", b'rules = [{ name = "(a{1000}){1000}", type = "q8_0" }]\n',
               b'rules = [{ layers = "first 99999999999999999999", type = "q8_0" }]\n', b'x = """\n', b"= 1\n", b"base = 1979-05-27T07:32:00Z\n",
               b'rules = [{ layers = "first 1/0", type = "q8_0" }]\n', b'rules = [{ when = "gqa >= 1e999", type = "q8_0" }]\n', b"[x]\n[x]\n",
               b'name = "\\u001b[2J\\u202E"\n', b'base = "i2_s"\n', b'rules = [{ when = ["a"], type = "keep" }]\n', b"file_type = -1\n"],
    "merges.txt": [b"a\n", b"a b c\n", b" \n", b"\xff \xff\n", b"Q Q\n" * 50, b"#version: 9\n"],
    "tiktoken": [b"YQ==\n", b"YQ== 99999999999999999999\n", b"=== 1\n", b"YQ== -1\n", b"!!!! 1\n"],
    "text": [b"<s></s><unk>", b"\xff\xfe", b"\xef\xbb\xbf", b"\0" * 9, b"a" * 5000, "\u0301".encode() * 500, b"\r", "\ud7ff\ufffd\U0010ffff".encode()],
}  # fmt: skip


def text_file(data, rng, kind):
    """A text of other lines."""
    said = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        how = rng.choice(("word", "word", "word", "remove", "double", "swap", "cut", "text", "long", "encode", "indent", "number", "nest"))
        said.append(how)
        if how == "word":
            place = rng.randrange(len(data) + 1) if rng.random() < 0.5 else len(b"\n".join(lines[:at]))
            data = data[:place] + rng.choice(WORDS.get(kind, TEXTS)) + data[place:]
        elif how == "remove":
            data = b"\n".join(lines[:at] + lines[at + 1 :])
        elif how == "double":
            data = b"\n".join(lines[:at] + [lines[at]] * rng.choice((2, 300)) + lines[at + 1 :])
        elif how == "swap":
            data = b"\n".join(rng.sample(lines, len(lines)))
        elif how == "cut":
            data = data[: rng.randrange(len(data) + 1)]
        elif how == "text":
            place = rng.randrange(len(data) + 1)
            data = data[:place] + rng.choice(TEXTS) + data[place:]
        elif how == "long":
            lines[at] += rng.choice((b"x", b" ", b"[", b"(", b"{", b"-", b"a: ", b"a.", b'"')) * rng.choice((300, 70_000))
            data = b"\n".join(lines)
        elif how == "encode":
            data = data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-be", "utf-32", "utf-8-sig")))
        elif how == "indent":
            lines[at] = rng.choice((b" ", b"\t", b"  ")) * rng.choice((1, 3, 500)) + lines[at].lstrip()
            data = b"\n".join(lines)
        elif how == "number":
            data = replace_number(data, rng)
        else:
            left, right = rng.choice(((b"[", b"]"), (b"(", b")"), (b"{", b"}"), (b"{a: ", b"}"), (b"- ", b""), (b"{% if 1 %}", b"{% endif %}")))
            n = long_nesting(rng, 30_000)
            place = rng.randrange(len(data) + 1)
            data = data[:place] + left * n + right * n + data[place:]
    return data, "text: " + ", ".join(said)


def replace_number(data, rng):
    """One of the numbers in a text is another."""
    places = [i for i, b in enumerate(data) if 48 <= b < 58]
    if not places:
        return data
    at = rng.choice(places)
    return data[:at] + str(rng.choice(NUMBERS)).encode() + data[at + 1 :]


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
            fields[at] = formats.piece(rng.choice(TEXTS), rng.choice(FLOATS), rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 1 << 31, (1 << 64) - 1)))
        elif how == "remove":
            del fields[at]
        elif how == "double":
            fields.insert(at, fields[at])
        elif how == "wire":
            fields[at] = (number, rng.choice((0, 1, 3, 4, 5, 6, 7)), rng.choice(NUMBERS)) if rng.random() < 0.5 else (rng.choice((0, 1 << 28)), 2, b"x")
            if fields[at][1] != 0 and not isinstance(fields[at][2], bytes):
                fields[at] = (*fields[at][:2], bytes(8 if fields[at][1] == 1 else 4 if fields[at][1] == 5 else 0))
        elif how == "inner" and wire == 2 and value:
            try:
                inner = formats.read_protobuf(value)
                place = rng.randrange(len(inner))
                n, w, v = inner[place]
                inner[place] = (n, 0, rng.choice(NUMBERS)) if w == 0 else (n, w, rng.choice(TEXTS) if w == 2 else struct.pack("<f", rng.choice(FLOATS))[: len(v)])
                fields[at] = (number, 2, formats.protobuf(inner))
            except (IndexError, ValueError, struct.error):
                fields[at] = (number, 2, flip(value, rng, None)[0])
        elif how == "overlong":
            out = formats.protobuf(fields[:at]) + rng.choice((b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a" + b"\x80" * 20 + b"\1", b"\xff" * 11))
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
        op = rng.choice((b"\x80\x02", b"}", b"]", b"(", b"t", b"R", b"Q", b"0", b"1", b"2", b"\x85", b"\x86", b"\x87", b"e", b"u", b"b", b"\x93", b".",
                         b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8, b"\x8b\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\xff", b"h\xff", b"\x95" + b"\xff" * 8,
                         b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\xff" * 8, b"cos\nsystem\n", b"N", b"\x88", b"K\0", b"M\xff\xff", b"\x94", b"q\0", b"h\0"))  # fmt: skip
        # Replaced in place: the archive's lengths stay right.
        program[at : at + len(op)] = op[: len(program) - at]
        said.append(f"{op!r} at {at}")
    return data[:start] + bytes(program) + data[end:], "pickle: " + ", ".join(said)


def with_checksum(data, rng, places):
    """A file of a state folder with a right checksum over wrong bytes."""
    data, said = rng.choice(ANY)(data[:-8], rng, places)
    return data + struct.pack("<Q", formats.siphash(data)), said + ", with its checksum"
