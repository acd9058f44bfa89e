#!/usr/bin/env python3
"""Makes tests/golden/sentencepiece: small SentencePiece models, and the token ids that SentencePiece gives for texts. The unit
tests of src/checkpoint/vocab read them. Needs sentencepiece (0.2.x; models of other versions may have other pieces).

    python3 scripts/make_sentencepiece_golden.py
    python3 scripts/make_sentencepiece_golden.py --check    # whether the ids are still those of the models that are there
"""

import argparse
import io
import json
import os

import sentencepiece

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FOLDER = os.path.join(ROOT, "tests/golden/sentencepiece")

SYMBOLS = ["<|user|>", "<|end|>", "foo_bar"]
AS_IS = dict(normalization_rule_name="identity", remove_extra_whitespaces=False)
MERGED = dict(normalization_rule_name="identity")
MODELS = {
    "bpe-symbols": dict(model_type="bpe", byte_fallback=True, user_defined_symbols=SYMBOLS, **AS_IS),
    "bpe-symbols-merged": dict(model_type="bpe", byte_fallback=True, user_defined_symbols=SYMBOLS, **MERGED),
    "unigram-symbols": dict(model_type="unigram", byte_fallback=True, user_defined_symbols=SYMBOLS, **AS_IS),
    "unigram-symbols-merged": dict(model_type="unigram", byte_fallback=True, user_defined_symbols=SYMBOLS, **MERGED),
    "unigram-bare-merged": dict(model_type="unigram", byte_fallback=True, add_dummy_prefix=False, **MERGED),
    "bpe-no-bytes": dict(model_type="bpe", vocab_size=70, **AS_IS),
    "bpe-no-bos": dict(model_type="bpe", byte_fallback=True, bos_id=-1, eos_id=1, **AS_IS),
    "bpe-other-ids": dict(model_type="bpe", byte_fallback=True, pad_id=0, unk_id=1, bos_id=2, eos_id=3, **AS_IS),
}
TEXTS = [
    "the cat sat on the mat",
    "  two  spaces  ",
    "a <|user|>hi  <|user|>  x <|end|>",
    "<|user|>hi<|end|>\n<|user|> foo_bar foo_barfoo_bar",
    "foo_ba foo <|use r|>",
    "你好世界 and é, ½ \u2581 tab\there",
    " ",
    "",
]


def train(options):
    with open(os.path.join(ROOT, "demo/calibration.txt"), encoding="utf-8") as file:
        lines = [line.strip()[:200] for line in file if line.strip()][:150]
    out = io.BytesIO()
    options = {"vocab_size": 320, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, hard_vocab_limit=False, minloglevel=2, num_threads=1, **options
    )
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    os.makedirs(FOLDER, exist_ok=True)
    ids = {}
    for name, options in MODELS.items():
        path = os.path.join(FOLDER, name + ".model")
        if not check:
            with open(path, "wb") as file:
                file.write(train(options))
        with open(path, "rb") as file:
            model = sentencepiece.SentencePieceProcessor(model_proto=file.read())
        ids[name] = {"bos": model.bos_id(), "ids": [model.encode(text) for text in TEXTS]}
    path = os.path.join(FOLDER, "ids.json")
    text = json.dumps({"texts": TEXTS, "models": ids}, ensure_ascii=False, separators=(",", ":")) + "\n"
    if check:
        with open(path, encoding="utf-8") as file:
            if file.read() != text:
                raise SystemExit(f"{path} is not what the script makes")
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
