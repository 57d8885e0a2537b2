"""Tokenizers that are built from a GGUF file's vocabulary are those of the published tokenizer.json."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from embrief.files.gguf import Vocabulary
from embrief.llama.vocabulary import build

pytestmark = pytest.mark.slow

HARD = (
    "", " ", "  a  b   c\n\n\n\td", "he\u0301llo w\u00f6rld", "日本語のテキスト、句読点。",
    "🙂👩\u200d👩\u200d👧 \x00\x01",
    "<|endoftext|>x<|im_end|>", "<eos>a<bos>", "a<think>b</think>", "\u2581\u2581x \u2581", "1234567 3.14e-5",
    "I'll DON'T we've", "\r\n\r\n  \t x", "x" * 300, "<unused5> <start_of_turn>", "العربية हिन्दी ไทย",
    "\ufeffa\u00a0b\u3000c\u200b", "\ufb01 \u212b \u00c5", "def f(x):\n    return  x\n\n\n\n", "a\t\tt \t\t\u2581t",
)  # fmt: skip


def as_converted(file: Path, rows: int) -> Vocabulary:
    """What llama.cpp's converter writes down of a tokenizer."""
    published = json.loads(file.read_text("utf-8"))
    model, gemma = published["model"], published["model"]["byte_fallback"]
    added = {
        item["id"]: item["special"] or item["content"].startswith("<unused")
        for item in published["added_tokens"]
        if item["id"] < rows
    }
    ids = {**model["vocab"], **{item["content"]: item["id"] for item in published["added_tokens"]}}
    tokens = [f"[PAD{number}]" for number in range(rows)]
    for token, number in ids.items():
        if number < rows:
            written = gemma and number in added and not added[number]
            tokens[number] = token.replace("\u2581", " ") if written else token
    return Vocabulary(
        "llama" if gemma else "gpt2",
        tokens,
        [] if gemma else [" ".join(pair) for pair in model["merges"]],
        array("f", [-1000.0 if number in added else -float(number) for number in range(rows)]),
        added,
        (ids["<bos>"],) if gemma else (),
        (ids["<eos>" if gemma else "<|endoftext|>"],),
    )


@pytest.mark.parametrize(("name", "rows"), [("qwen3-embedding-0.6b", 151936), ("embeddinggemma-300m", 262144)])
def test_hard_texts_have_the_same_tokens(name: str, rows: int, data: Path) -> None:
    file = data / "tokenizers" / name / "tokenizer.json"
    expected, found = Tokenizer.from_file(str(file)), build(as_converted(file, rows))
    texts = [*HARD, *(page.read_text("utf-8") for page in sorted((data / "docs").rglob("*.md"))[:30])]
    assert len(texts) > 40
    assert [found.encode(text).ids for text in texts] == [expected.encode(text).ids for text in texts]
