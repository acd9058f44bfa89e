"""Hostile JSON, templates, recipes, texts and lists that are made on purpose, as in `special_binary`."""

import json
from unicodedata import category

from damage_texts import WORDS
from nasty import TEXTS


def many(text, bulk):
    """`text`, in which {} is a number, as often as it takes for so many bytes."""
    return b"".join(text.replace(b"{}", b"%d" % i) for i in range(max(bulk // (len(text) + 4), 1)))


def nested(bulk):
    for n in (100, 10_000, bulk // 2):
        yield f"[ {n} deep", lambda n=n: b"[" * n
        yield f"[] {n} deep", lambda n=n: b"[" * n + b"]" * n
        yield f"objects {n} deep", lambda n=n: b'{"a":' * (n // 5) + b"1" + b"}" * (n // 5)


def json_files(seed, data, bulk):
    """Every key with a value of every other type, and trees of many small things."""
    value = json.loads(data)
    found = list(nested(bulk))
    for name, text in (
        ("many keys", lambda: b"{" + many(b'"k{}":0,', bulk) + b'"a":0}'),
        ("one key many times", lambda: b"{" + many(b'"a":0,', bulk) + b'"a":0}'),
        ("many numbers", lambda: b"[" + many(b"0,", bulk) + b"0]"),
        ("many small lists", lambda: b"[" + many(b"[],", bulk) + b"[]]"),
        ("many empty texts", lambda: b"[" + many(b'"",', bulk) + b'""]'),
        ("one long text", lambda: b'{"a":"' + b"x" * bulk + b'"}'),
        ("many escapes", lambda: b'{"a":"' + b"\\u0041" * (bulk // 6) + b'"}'),
        ("a long number", lambda: b"[" + b"9" * bulk + b"]"),
        ("spaces", lambda: b" " * bulk + data),
    ):
        found.append((name, text))
    inner = dict(walk(value)) if isinstance(value, dict) else {}
    shapes = (b"null", b"true", b"-1", b"1e300", b"18446744073709551615", b'"x"', b"[]", b"{}", b"[[1]]", b"NaN")
    for path in list(inner)[:60]:
        for text in shapes:
            found.append(
                (f"{'.'.join(map(str, path))} = {text.decode()}", lambda path=path, text=text: replaced(value, path, text))
            )
    # Lists and objects of the file itself with many more of what is in them.
    for path, v in list(inner.items()):
        if isinstance(v, (list, dict)) and v and len(path) < 4:
            found.append((f"many in {'.'.join(map(str, path))}", lambda path=path, v=v: replaced(value, path, grown(v, bulk))))
            found.append(
                (
                    f"many numbers in {'.'.join(map(str, path))}",
                    lambda path=path: replaced(value, path, b"[" + many(b"{},", bulk) + b"0]"),
                )
            )
            for depth in (100, 100_000):
                found.append(
                    (f"deep {'.'.join(map(str, path))}", lambda path=path, d=depth: replaced(value, path, b"[" * d + b"]" * d))
                )
    return found


def walk(value, at=()):
    for key in value:
        yield (*at, key), value[key]
        if isinstance(value[key], dict) and len(value[key]) < 30:
            yield from walk(value[key], (*at, key))


def replaced(value, path, text):
    """A JSON value with the text at a path."""
    value = json.loads(json.dumps(value))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = "@@here@@"
    return json.dumps(value).encode().replace(b'"@@here@@"', text)


def grown(value, bulk):
    """A list or an object of many more of its own elements, with numbers in their keys and texts."""
    if isinstance(value, dict):
        key, v = next(iter(value.items()))
        item = json.dumps({key: v})[1:-1]
        last = json.dumps(key)[1:-1]
        return b"{" + many(item.replace(last, last + "{}", 1).encode() + b",", bulk) + item.encode() + b"}"
    item = json.dumps(value[-1])
    if item.isdigit():
        return b"[" + many(b"{},", bulk) + item.encode() + b"]"
    at = item.find('"', 1) if item.startswith('"') else item.find('"', item.find(': "') + 3) if ': "' in item else -1
    numbered = item[:at] + "{}" + item[at:] if at > 0 else item
    return b"[" + many(numbered.encode() + b",", bulk) + item.encode() + b"]"


def templates(seed, data, bulk):
    for word in WORDS["chat template"]:
        yield f"template {word[:40]!r}", lambda word=word: word
    for chain in (
        b"1+",
        b"not ",
        b"'a'~",
        b"2**",
        b"1 and ",
        b"x|trim ",
        b"a.",
        b"a[",
        b"-",
        b"(",
        b"[",
        b"{'a':",
        b"1 if 1 else ",
        b"a is defined and ",
    ):
        for n in (1000, bulk // len(chain)):
            yield f"{chain!r} {n} times", lambda chain=chain, n=n: b"{{ " + chain * n + b"1 }}"
    yield "many ifs", lambda: b"{% if 1 %}" * (bulk // 10) + b"{% endif %}" * (bulk // 10)
    yield "many elifs", lambda: b"{% if 0 %}" + b"{% elif 0 %}" * (bulk // 12) + b"{% endif %}"
    yield (
        "doubling",
        lambda: b"{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    )
    yield (
        "a list in a list",
        lambda: b"{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}",
    )
    yield "much text", lambda: b"x" * bulk
    yield "many blocks", lambda: b"{{ 1 }}" * (bulk // 7)
    yield "control tokens", lambda: b"</s><s><unk>{{ messages }}" * 50


def recipes(seed, data, bulk):
    head = b'base = "q4_0"\nrules = [\n'
    for pattern in (
        "(a{500}){500}",
        "(?:(?:(?:x{9}){9}){9}){9}",
        "\\\\p{L}{1000}",
        "(" * 5000,
        "a|" * 30_000,
        "[" * 1000,
        "(?P<n>a)" * 1000,
        ".*" * 2000,
        "(.*)*" * 50,
        "\\\\x{110000}",
    ):
        yield f"regex {pattern[:20]}", lambda p=pattern: head + b'{ name = "' + p.encode() + b'", type = "q8_0" },\n]\n'
    yield "many rules", lambda: head + many(b'{ name = "r{}", type = "q8_0" },\n', min(bulk, 1 << 20)) + b"]\n"
    yield "many schemes", lambda: head + b'"q4_k_m",' * (min(bulk, 1 << 20) // 9) + b"]\n"
    yield "many large regexes", lambda: head + many(b'{ name = "{}\\\\p{L}{100}", type = "q8_0" },\n', 1 << 19) + b"]\n"
    yield "many conditions", lambda: head + b"{ when = [" + b'"gqa >= 1",' * 50_000 + b'], type = "q8_0" },\n]\n'
    yield "deep arrays", lambda: b"x = " + b"[" * 100_000 + b"]" * 100_000
    yield "deep tables", lambda: b"x = " + b"{a=" * 100_000
    yield "dotted keys", lambda: b"a." * 100_000 + b"b = 1"
    yield "a long name", lambda: b'name = "' + b"n" * 500_000 + b'"\n' + data
    yield "too long", lambda: b"#" * (bulk * 2) + b"\n" + data


def texts(seed, data, bulk):
    yield "zeros", lambda: bytes(bulk)
    yield "one letter", lambda: b"a" * bulk
    yield "spaces", lambda: b" " * bulk
    yield "newlines", lambda: b"\n" * bulk
    yield "no UTF-8", lambda: b"\xff" * bulk
    yield "marks", lambda: "e\u0301\u0302".encode() * (bulk // 5)
    yield "control tokens", lambda: b"<s></s><unk>" * (bulk // 12)
    yield "almost control tokens", lambda: b"<s" * (bulk // 2)
    yield "all letters", lambda: "".join(chr(i) for i in range(1, 0x30000) if category(chr(i)) != "Cs").encode()
    yield "UTF-16 of half a pair", lambda: b"\xff\xfe" + b"\x00\xd8" * (bulk // 4)
    yield "UTF-32", lambda: b"\xff\xfe\0\0" + b"a\0\0\0" * (bulk // 4)
    yield "a signature", lambda: b"GGUF\3\0\0\0" + data
    yield "many lines", lambda: b"hello\n" * (bulk // 6)


def cards(seed, data, bulk):
    yield (
        "aliases that double",
        lambda: (
            b"---\na: &a [x, x]\n"
            + b"".join(b"%c: &%c [*%c, *%c, *%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i, 97 + i) for i in range(20))
            + b"---\n"
        ),
    )
    yield "deep", lambda: b"---\n" + b"".join(b" " * i + b"a:\n" for i in range(2000)) + b"---\n"
    yield "deep lists", lambda: b"---\nlicense: " + b"[" * (bulk // 2) + b"\n---\n"
    yield "dashes", lambda: b"---\n" + b"- " * (bulk // 2) + b"\n---\n"
    yield "many keys", lambda: b"---\n" + many(b"k{}: 1\n", bulk) + b"---\n"
    yield "many tags", lambda: b"---\ntags:\n" + many(b"- t{}\n", bulk) + b"---\n"
    yield "many languages", lambda: b"---\nlanguage: [" + many(b"l{},", bulk) + b"x]\n---\n"
    yield "many base models", lambda: b"---\nbase_model:\n" + many(b"- a/b{}-7B\n", bulk) + b"---\n"
    yield "a long line", lambda: b"---\nlicense: " + b"x" * bulk + b"\n---\n"
    yield "no end", lambda: b"---\n" + b"a: b\n" * (bulk // 5)
    for text in TEXTS:
        yield (
            f"license {text[:20]!r}",
            lambda text=text: b"---\nlicense: " + text + b"\nlanguage: [" + text + b"]\nbase_model: " + text + b"\n---\n",
        )


def merges(seed, data, bulk):
    yield "many merges", lambda: many(b"a{} b\n", bulk)
    yield "one merge many times", lambda: b"t h\n" * (bulk // 4)
    yield "long merges", lambda: (b"t" * 60_000 + b" " + b"h" * 60_000 + b"\n") * 4
    yield "empty lines", lambda: b"\n" * bulk
    yield "spaces", lambda: b" " * bulk
    yield "three parts", lambda: data + b"a b c\n"


def tiktoken(seed, data, bulk):
    yield "many tokens", lambda: many(b"YWJj {}\n", bulk)
    yield "a long token", lambda: b"YWJj" * (bulk // 4) + b" 1\n"
    yield "ids that repeat", lambda: b"YWJj 1\n" * 1000
