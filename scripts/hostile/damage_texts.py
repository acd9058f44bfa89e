"""Damage to JSON and other texts by chance."""

import json

from nasty import FLOATS, NUMBERS, TEXTS


def long_nesting(rng, most):
    return rng.choice([n for n in (2, 20, 127, 129, 1000, 30_000, 500_000, 3_000_000) if n <= most])


# JSON.

RAW = [
    "1e999",
    "-1e999",
    "-0",
    "0.1e-999",
    "18446744073709551616",
    "9" * 1000,
    "-9223372036854775809",
    "NaN",
    "-Infinity",
    "1.0",
    "1e3",
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\\u001b[2J"',
    '"\\u202e"',
    "'a'",
    "tru",
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
    "/**/1",
    "",
    '"\\x"',
    '"\n"',
    "[1,]",
    '{"a":1,}',
    "{1:2}",
    "nul",
    "\ufeff1",
]


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
        return (
            raw(b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
            if rng.random() < 0.3
            else text.decode("utf-8", "replace")
        )
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
    "README.md": [
        b"---\n",
        b"- - - - a\n",
        b"a: &x [*x, *x]\n",
        b"!!python/object/apply:os.system [id]\n",
        b"? |\n",
        b"key: >+9\n",
        b"<<: *x\n",
        b"%YAML 1.2\n",
        b"license: [\n",
        b'base_model: {a: "b\n',
        b"\t- x\n",
        b"'a': 'b''c'\n",
        b"x: !!binary aGk=\n",
        b"...\n",
    ],
    "chat template": [
        b"{% for i in range(1000000000) %}x{% endfor %}",
        b"{{ 'x' * 1000000000 }}",
        b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        b"{% set x = [] %}{% for i in range(99999) %}{% set _ = x.append(x) %}{% endfor %}",
        b"{{ '%1000000000d' % 1 }}",
        b"{{ 2 ** 10000000 }}",
        b"{% include '/etc/passwd' %}",
        b"{{ messages.__class__ }}",
        b"{{ raise_exception('\x1b[2J') }}",
        b"{{ ((((",
        b"{% if",
        b"{#",
        b"{{ 1/0 }}",
        b"{{ '\\ud800' }}",
        b"{{ messages|tojson(indent=1000000) }}",
        b"{% raw %}",
        b"{%- set ns = namespace(x=1) -%}",
        b"{{ 9**99**9 }}",
        b"{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        b"{{ ('a'|list * 9999999)|join }}",
        b"{{ strftime_now('%' ~ 'Y' * 999999) }}",
    ],
    "recipe": [
        b"[[rules]]\n",
        b"base = 1\n",
        b'rules = ["mine"]\n',
        b"a.b.c.d = 1\n",
        b'rules = [{ name = "(a{1000}){1000}", type = "q8_0" }]\n',
        b'rules = [{ layers = "first 99999999999999999999", type = "q8_0" }]\n',
        b'x = """\n',
        b"= 1\n",
        b"base = 1979-05-27T07:32:00Z\n",
        b'rules = [{ layers = "first 1/0", type = "q8_0" }]\n',
        b'rules = [{ when = "gqa >= 1e999", type = "q8_0" }]\n',
        b"[x]\n[x]\n",
        b'name = "\\u001b[2J\\u202E"\n',
        b'base = "i2_s"\n',
        b'rules = [{ when = ["a"], type = "keep" }]\n',
        b"file_type = -1\n",
    ],
    "merges.txt": [b"a\n", b"a b c\n", b" \n", b"\xff \xff\n", b"Q Q\n" * 50, b"#version: 9\n"],
    "tiktoken": [b"YQ==\n", b"YQ== 99999999999999999999\n", b"=== 1\n", b"YQ== -1\n", b"!!!! 1\n"],
    "text": [
        b"<s></s><unk>",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\0" * 9,
        b"a" * 5000,
        "\u0301".encode() * 500,
        b"\r",
        "\ud7ff\ufffd\U0010ffff".encode(),
    ],
}


def text_file(data, rng, kind):
    """A text of other lines."""
    said = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        how = rng.choice(
            ("word", "word", "word", "remove", "double", "swap", "cut", "text", "long", "encode", "indent", "number", "nest")
        )
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
            left, right = rng.choice(
                ((b"[", b"]"), (b"(", b")"), (b"{", b"}"), (b"{a: ", b"}"), (b"- ", b""), (b"{% if 1 %}", b"{% endif %}"))
            )
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
