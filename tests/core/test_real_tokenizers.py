"""Exact token ids with the published tokenizers (shared test data; skipped without them)."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from embrief import Embedder, ModelMismatchError, Reranker, RunOptions
from embrief.facts.prompts import Rendered
from embrief.runtimes import torch_common

transformers = pytest.importorskip("transformers")

QUERY = "What is the capital of China?"


def tokenize(tokenizer, texts: list[str], options: RunOptions) -> torch_common.Tokenized:
    end = torch_common.final_tokens(tokenizer, "probe")
    rendered = [Rendered("", text) for text in texts]
    return torch_common.tokenize(partial(torch_common.encode, tokenizer), end, rendered, options)


@pytest.fixture(scope="module")
def tokenizers(data: Path) -> Path:
    return data / "tokenizers"


def load(folder: Path):
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def ids_of(tokenizer, texts: list[str], max_tokens: int) -> list[list[int]]:
    return [row.tolist() for row in tokenize(tokenizer, texts, RunOptions(max_tokens=max_tokens)).ids]


def test_qwen3_embedding_ends_with_endoftext_also_when_truncated(tokenizers: Path) -> None:
    tokenizer = load(tokenizers / "qwen3-embedding-0.6b")
    torch_common.check_final_token(tokenizer, Embedder().spec)
    assert ids_of(tokenizer, ["test"], 8) == [[1944, 151643]]
    cut = tokenize(tokenizer, ["test " * 50], RunOptions(max_tokens=3))
    assert cut.ids[0][-1] == 151643
    assert len(cut.ids[0]) == 3
    assert cut.counts.tolist() == [52]
    assert cut.truncated.tolist() == [True]


def test_the_query_prompt_is_followed_directly_by_the_text(tokenizers: Path) -> None:
    tokenizer = load(tokenizers / "qwen3-embedding-0.6b")
    ours = ids_of(tokenizer, [Embedder().render(QUERY, role="query")], 99)[0]
    instruction = "Given a web search query, retrieve relevant passages that answer the query"
    assert ours == tokenizer(f"Instruct: {instruction}\nQuery:{QUERY}")["input_ids"]
    assert ours != tokenizer(f"Instruct: {instruction}\nQuery: {QUERY}")["input_ids"], "the blank would be seen"


def test_embeddinggemma_has_both_ends(tokenizers: Path) -> None:
    tokenizer = load(tokenizers / "embeddinggemma-300m")
    spec = Embedder("google/embeddinggemma-300m").spec
    torch_common.check_final_token(tokenizer, spec)
    ids = tokenize(tokenizer, ["hello", "hello " * 99], RunOptions(max_tokens=16)).ids
    assert [(row[0], row[-1]) for row in ids] == [(2, 1), (2, 1)]
    assert len(ids[1]) == 16


def test_the_rerankers_tokenizer_is_not_an_embedders(tokenizers: Path) -> None:
    tokenizer = load(tokenizers / "qwen3-reranker-0.6b")
    assert tokenizer("yes")["input_ids"] == [9693]
    assert tokenizer("no")["input_ids"] == [2152]
    with pytest.raises(ModelMismatchError, match="ends a text"):
        torch_common.check_final_token(tokenizer, Embedder().spec)


@pytest.mark.parametrize(
    "document", ["The capital of China is Beijing.", "", " leading", "\nline\n\n", "日本語 🙂", "<b>"]
)
def test_a_pair_in_two_pieces_has_the_ids_of_the_cards_three(tokenizers: Path, document: str) -> None:
    """The card tokenises prefix, body and suffix apart; we tokenise head with document, and the tail."""
    tokenizer = load(tokenizers / "qwen3-reranker-0.6b")
    pair = Reranker().render(QUERY, document)
    ours = [
        token
        for part in (pair.head + document, pair.tail)
        for token in tokenizer(part, add_special_tokens=False)["input_ids"]
    ]
    prefix, start, rest = pair.head.partition("<Instruct>")
    parts = (prefix, start + rest + document, pair.tail)
    card = [token for part in parts for token in tokenizer(part, add_special_tokens=False)["input_ids"]]
    assert ours == card
    assert ours[-4:] == tokenizer("<think>\n\n</think>\n\n", add_special_tokens=False)["input_ids"]


def test_published_qwen2_ids(tokenizers: Path, data: Path) -> None:
    cases = json.loads((data / "goldens" / "tokenization" / "qwen2_llamacpp.json").read_text("utf-8"))["cases"]
    tokenizer = load(tokenizers / "qwen3-embedding-0.6b")
    ours = ids_of(tokenizer, [case["text"] for case in cases], 10_000)
    for case, row in zip(cases, ours, strict=True):
        assert row == [*case["ids"], 151643], case["text"]
    assert len(cases) > 20


def test_the_published_files_are_what_the_records_say(tokenizers: Path, tmp_path: Path) -> None:
    """Pooling, widths and prompts in the published files against our records, without any weights."""
    from embrief.discovery.plugins import catalog
    from embrief.files.identify import verify_files
    from embrief.files.model_files import read_files

    for folder, name in (
        ("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B"),
        ("embeddinggemma-300m", "google/embeddinggemma-300m"),
        ("qwen3-reranker-0.6b", "Qwen/Qwen3-Reranker-0.6B"),
    ):
        spec = catalog().models[name]
        verify_files(read_files(tokenizers / folder), spec)
        changed = Path(
            shutil.copytree(tokenizers / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.model"))
        )
        config = json.loads((changed / "config.json").read_text("utf-8"))
        (changed / "config.json").write_text(json.dumps({**config, "hidden_size": 7}), "utf-8")
        with pytest.raises(ModelMismatchError, match="hidden_size is 7"):
            verify_files(read_files(changed), spec)


def test_reconstructed_sizes_agree_with_their_records(data: Path) -> None:
    from embrief.discovery.plugins import catalog

    for folder in sorted((data / "configs" / "reconstructed").glob("qwen3-*")):
        if "vl" in folder.name:
            continue
        name = f"Qwen/{folder.name}".replace("qwen3-embedding", "Qwen3-Embedding").replace(
            "qwen3-reranker", "Qwen3-Reranker"
        )
        spec = catalog().find_model(name)
        assert spec is not None
        config = json.loads((folder / "config.json").read_text("utf-8"))
        assert (config["hidden_size"], config["max_position_embeddings"]) == (
            spec.hidden_size,
            spec.context,
        ), name


TRICKY = [
    "test", "", " ", "  leading and trailing  ", "line\n\n\nbreaks\t\ttabs", "日本語のテキスト 🙂",
    "Ünïcödé e\u0301 \u00a0 x", "<|endoftext|>", "a<|im_end|>b<think></think>", "<bos><eos><pad>",
    "<start_of_turn>user", "1234567890", "don't I'LL", "\u200b\ufeff", "a" * 300, "{x: 1} // comment\r\n#!/bin/sh",
    "\ufb01 \u2460 \u00bd \u2167",
]  # fmt: skip


@pytest.mark.parametrize("name", ["qwen3-embedding-0.6b", "embeddinggemma-300m", "qwen3-reranker-0.6b"])
def test_the_engine_has_the_ids_of_transformers(tokenizers: Path, data: Path, name: str) -> None:
    from embrief.engine.tokens import TextTokenizer

    ours, theirs = TextTokenizer(tokenizers / name), load(tokenizers / name)
    cases = json.loads((data / "goldens" / "tokenization" / "qwen2_llamacpp.json").read_text("utf-8"))["cases"]
    texts = [*TRICKY, *(case["text"] for case in cases)]
    for text, whole, plain in zip(texts, ours.whole(texts), ours.plain(texts), strict=True):
        assert whole.tolist() == theirs(text)["input_ids"], text
        assert plain.tolist() == theirs(text, add_special_tokens=False)["input_ids"], text
    if name == "qwen3-reranker-0.6b":
        return
    for limit in (3, 7):
        options = RunOptions(max_tokens=limit)
        rows = torch_common.tokenize(ours.whole, ours.end, [Rendered("", text) for text in texts], options).ids
        for text, row in zip(texts, rows, strict=True):
            assert row.tolist() == theirs(text, truncation=True, max_length=limit)["input_ids"], text
