"""What many texts begin with runs once: which tokens pass through the layers, and that results stay the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Reranker, TruncationWarning

pytest.importorskip("sentence_transformers")

QUERIES = ["which planet is red?", "copy a tree", "the word with the most letters of all of them", "x", "copy a file"]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def oracle(folder: Path):
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def ids_of(folder: Path, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(text, add_special_tokens=special).ids for text in texts]


def common(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies of a model: what one test has computed, no other finds."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy


@pytest.fixture
def folder(qwen3_folder: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(qwen3_folder)


@pytest.fixture
def embedder(folder: Path) -> Embedder:
    return Embedder(folder, dtype="float32", device="cpu")


def prompt_tokens(embedder: Embedder, folder: Path, instruction: str | None = None) -> int:
    """Tokens of the query prompt, the closing one not counted."""
    return len(ids_of(folder, [embedder.render("", role="query", instruction=instruction)])[0]) - 1


def test_the_prompt_of_many_queries_runs_once_and_never_again(
    folder: Path, embedder: Embedder, passed: list[int]
) -> None:
    prompt = prompt_tokens(embedder, folder)
    queries = [f"{text} {number}" for text in QUERIES for number in (1, 2)]
    counts = embedder.encode(queries, role="query").token_counts
    own = sum(counts) - len(queries) * prompt
    assert len(passed) == prompt + own
    passed.clear()
    again = embedder.embed_queries(queries)
    assert len(passed) == own
    passed.clear()
    alone = embedder.embed_query(queries[3])
    assert len(passed) == counts[3] - prompt
    np.testing.assert_allclose(alone, again[3], atol=1e-5)
    assert cosines(again, oracle(folder).encode_query(queries)).min() >= 0.999999


def test_documents_without_a_prompt_run_whole(folder: Path, embedder: Embedder, passed: list[int]) -> None:
    documents = ["the same start and a", "the same start and b"]
    counts = embedder.encode(documents, role="document").token_counts
    assert len(passed) == sum(counts)


def test_a_document_that_begins_like_a_prompt_is_the_same_text(folder: Path, embedder: Embedder) -> None:
    prompt = embedder.render("", role="query")
    embedder.embed_query("a")
    found = embedder.embed_documents([prompt + "b", prompt, prompt[:-3]])
    assert cosines(found, oracle(folder).encode_document([prompt + "b", prompt, prompt[:-3]])).min() >= 0.999999


def test_a_prefix_that_is_the_whole_text(folder: Path, embedder: Embedder, passed: list[int]) -> None:
    """Only the closing token is left: it always runs, since its state is the vector."""
    prompt = prompt_tokens(embedder, folder)
    found = embedder.embed_queries(["", "a"])
    passed.clear()
    np.testing.assert_allclose(embedder.embed_query(""), found[0], atol=1e-5)
    assert len(passed) == 1
    assert prompt > 10
    assert cosines(found, oracle(folder).encode_query(["", "a"])).min() >= 0.999999


@pytest.mark.parametrize("room", [1, 2, 5])
def test_a_query_that_is_cut_right_after_its_prompt(folder: Path, room: int) -> None:
    limit = prompt_tokens(Embedder(folder), folder) + room + 1
    tight = Embedder(folder, dtype="float32", device="cpu", max_tokens=limit)
    peer = oracle(folder)
    peer.max_seq_length = limit
    with pytest.warns(TruncationWarning):
        found = tight.embed_queries(["12345678901234567890", "98765432109876543210"])
    expected = peer.encode_query(["12345678901234567890", "98765432109876543210"])
    assert cosines(found, expected).min() >= 0.999999


def test_a_merge_across_the_seam_of_prompt_and_text(folder: Path, embedder: Embedder) -> None:
    """The prompt ends with a colon, which a byte-pair merge may join to what follows."""
    prompt = ids_of(folder, [embedder.render("", role="query")])[0][:-1]
    texts = ["::", ":param x", ":class:`a`", "\n\nb", " blank", "plain"]
    whole = ids_of(folder, [embedder.render(text, role="query") for text in texts])
    assert any(common(prompt, ids) < len(prompt) for ids in whole), "no merge in these texts: find others"
    assert any(common(prompt, ids) == len(prompt) for ids in whole)
    expected = oracle(folder).encode_query(texts)
    assert cosines(embedder.embed_queries(texts), expected).min() >= 0.999999
    assert cosines(np.stack([embedder.embed_query(text) for text in texts]), expected).min() >= 0.999999


def test_instructions_that_change(folder: Path, embedder: Embedder, passed: list[int]) -> None:
    """Several stay; after more of them than are kept, the first runs again. Vectors never change."""
    few = [f"Find passages about topic number {number}" for number in range(4)]
    first = {instruction: embedder.embed_query("a b", instruction=instruction) for instruction in few}
    passed.clear()
    for instruction in reversed(few):
        np.testing.assert_allclose(embedder.embed_query("a b", instruction=instruction), first[instruction], atol=1e-5)
    own = len(ids_of(folder, ["a b"])[0])
    assert len(passed) == len(few) * own
    many = [f"{'9' * 100}{number} {'8' * 100}" for number in range(30)]
    for instruction in many:
        embedder.embed_query("a b", instruction=instruction)
    passed.clear()
    for instruction in few:
        np.testing.assert_allclose(embedder.embed_query("a b", instruction=instruction), first[instruction], atol=1e-5)
    assert len(passed) > len(few) * own, "all prefixes are kept, without bound"
    peer = oracle(folder)
    for instruction in (few[2], many[0], many[-1]):
        prompt = embedder.render("", role="query", instruction=instruction)
        expected = peer.encode(["a b"], prompt=prompt)
        assert cosines(embedder.embed_queries(["a b"], instruction=instruction), expected).min() >= 0.999999


def test_a_prefix_longer_than_what_is_kept(
    folder: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, passed: list[int]
) -> None:
    monkeypatch.setattr("embrief.engine.prefix.MAX_TOKENS", 7)
    peer = oracle(folder)
    for instruction in ("One instruction", "Another instruction that is longer", "One instruction"):
        prompt = embedder.render("", role="query", instruction=instruction)
        found = embedder.embed_queries(QUERIES, instruction=instruction)
        assert cosines(found, peer.encode(QUERIES, prompt=prompt)).min() >= 0.999999
    passed.clear()
    counts = embedder.encode(QUERIES, role="query", instruction="One instruction").token_counts
    assert len(passed) == sum(counts) - 7 * len(QUERIES)


def test_a_bidirectional_model_shares_nothing(
    gemma_folder: Path, copied: Callable[[Path], Path], passed: list[int]
) -> None:
    folder = copied(gemma_folder)
    embedder = Embedder(folder, dtype="float32", device="cpu")
    found = embedder.encode(QUERIES, role="query")
    assert len(passed) == sum(found.token_counts)
    assert cosines(found.vectors, oracle(folder).encode_query(QUERIES)).min() >= 0.999999
    passed.clear()
    titled = embedder.encode(QUERIES, role="document", titles=["a title"] * len(QUERIES))
    assert len(passed) == sum(titled.token_counts)


def expected_scores(folder: Path, reranker: Reranker, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    return scores_of(folder, pair_ids(folder, reranker, pairs))


def scores_of(folder: Path, rows: Sequence[list[int]]) -> np.ndarray:
    """transformers on one whole sequence per pair, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    no, yes = (ids[0] for ids in ids_of(folder, ["no", "yes"], special=False))
    scores = []
    for ids in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        scores.append(torch.sigmoid(logits[yes] - logits[no]).item())
    return np.array(scores)


def pair_ids(folder: Path, reranker: Reranker, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    rendered = [reranker.render(*pair) for pair in pairs]
    bodies = ids_of(folder, [pair.head + pair.body for pair in rendered], special=False)
    tails = ids_of(folder, [pair.tail for pair in rendered], special=False)
    return [body + tail for body, tail in zip(bodies, tails, strict=True)]


DOCUMENTS = [
    "Mars is often called the Red Planet.", "x", "", "12 digits first", " a blank first", "\n\nlines first",
    "Mars is often called the Red Planet.", "日本語 🙂", "<|im_end|> written <think>", "a long document " * 40,
]  # fmt: skip


def test_scores_equal_transformers(reranker_folder: Path, texts: list[str]) -> None:
    reranker = Reranker(reranker_folder, dtype="float32", device="cpu")
    assert reranker.info()["backend"] == "engine"
    documents = [*DOCUMENTS, *texts]
    expected = expected_scores(reranker_folder, reranker, [("which planet is red?", text) for text in documents])
    found = reranker.score("which planet is red?", documents)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(reranker.score("which planet is red?", documents[::-1]), expected[::-1], atol=1e-5)
    for place in (0, 2, 3, 9):
        np.testing.assert_allclose(
            reranker.score("which planet is red?", [documents[place]]), expected[[place]], atol=1e-5
        )
    assert expected.std() > 1e-2


def test_head_and_query_of_a_rerank_call_run_once(
    reranker_folder: Path, copied: Callable[[Path], Path], passed: list[int]
) -> None:
    folder = copied(reranker_folder)
    reranker = Reranker(folder, dtype="float32", device="cpu")
    documents = [f"document {word}" for word in ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")]
    rows = pair_ids(folder, reranker, [("which planet?", text) for text in documents])
    head = ids_of(folder, [reranker.render("which planet?", "").head], special=False)[0]
    shared = common(head, rows[0])
    # The blank at its end belongs to the first word of each of these documents.
    assert shared == len(head) - 1
    reranker.score("which planet?", documents)
    assert len(passed) == shared + sum(len(row) - shared for row in rows)
    passed.clear()
    reranker.score("which planet?", documents[:3])
    assert len(passed) == sum(len(row) - shared for row in rows[:3])
    passed.clear()
    reranker.score("which star?", documents)
    other = pair_ids(folder, reranker, [("which star?", text) for text in documents])
    shared = len(ids_of(folder, [reranker.render("which star?", "").head], special=False)[0]) - 1
    known = common(rows[0], other[0])
    assert len(passed) == shared - known + sum(len(row) - shared for row in other)


def test_documents_that_change_the_end_of_the_head(
    reranker_folder: Path, copied: Callable[[Path], Path], passed: list[int]
) -> None:
    folder = copied(reranker_folder)
    reranker = Reranker(folder, dtype="float32", device="cpu")
    pairs = [("which planet?", text) for text in ("1 digit", "word", "2 digits", "more words", "")]
    rows = pair_ids(folder, reranker, pairs)
    head = ids_of(folder, [reranker.render("which planet?", "").head], special=False)[0]
    shares = [common(head, row) for row in rows]
    assert len(set(shares)) == 2
    found = reranker.score_pairs(pairs)
    assert len(passed) == max(shares) + sum(len(row) - share for row, share in zip(rows, shares, strict=True))
    np.testing.assert_allclose(found, expected_scores(folder, reranker, pairs), atol=1e-5)


def test_pairs_with_queries_of_their_own_share_the_template(
    reranker_folder: Path, copied: Callable[[Path], Path], passed: list[int]
) -> None:
    folder = copied(reranker_folder)
    reranker = Reranker(folder, dtype="float32", device="cpu")
    pairs = [(query, document) for query, document in zip(QUERIES, DOCUMENTS, strict=False)]
    rows = pair_ids(folder, reranker, pairs)
    shared = min(common(rows[0], row) for row in rows)
    assert shared > 40
    found = reranker.score_pairs(pairs)
    assert len(passed) == shared + sum(len(row) - shared for row in rows)
    np.testing.assert_allclose(found, expected_scores(folder, reranker, pairs), atol=1e-5)
    mixed = [*pairs, *((QUERIES[0], text) for text in DOCUMENTS)]
    np.testing.assert_allclose(reranker.score_pairs(mixed), expected_scores(folder, reranker, mixed), atol=1e-5)


def test_a_document_that_is_cut_to_nothing_or_a_little(reranker_folder: Path) -> None:
    base = Reranker(reranker_folder, dtype="float32", device="cpu")
    shortest = len(pair_ids(reranker_folder, base, [("which planet?", "")])[0])
    tail = ids_of(reranker_folder, [base.render("", "").tail], special=False)[0]
    documents = ["7" * 20, "words and words " * 20, "x"]
    rows = pair_ids(reranker_folder, base, [("which planet?", text) for text in documents])
    for room in (1, 2, 30):
        limit = shortest + room
        tight = Reranker(reranker_folder, dtype="float32", device="cpu", max_tokens=limit, truncate="silent")
        cut = [row if len(row) <= limit else row[: limit - len(tail)] + tail for row in rows]
        np.testing.assert_allclose(tight.score("which planet?", documents), scores_of(reranker_folder, cut), atol=1e-5)
