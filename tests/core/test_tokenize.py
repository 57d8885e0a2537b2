"""What a model reads, token by token: the ids that are computed with, and where each is in the rendered text."""

from __future__ import annotations

import pytest

from embrief import Embedder, FallbackReranker, Reranker

TEXTS = ["", "two words", "naïve café — 日本語 🙂", "<|im_start|>system"]
TINY, JUDGE = "embrief/tiny-embedding", "embrief/tiny-reranker"


def spelled(tokens, text):
    return all(token.text == text[token.start : token.stop] for token in tokens if token.start is not None)


@pytest.mark.parametrize("backend", ["engine", "sentence-transformers"])
@pytest.mark.parametrize("role", ["document", "query"])
def test_tokens_are_as_many_as_are_counted_and_stand_where_they_say(backend, role):
    embedder = Embedder(TINY, backend=backend)
    found = embedder.tokenize(TEXTS, role=role)
    assert [len(tokens) for tokens in found] == embedder.count_tokens(TEXTS, role=role).tolist()
    for tokens, text in zip(found, TEXTS, strict=True):
        rendered = embedder.render(text, role=role)
        assert spelled(tokens, rendered)
        # Every character that is no blank is in some token.
        covered = {place for token in tokens if token.start is not None for place in range(token.start, token.stop)}
        assert covered >= {place for place, character in enumerate(rendered) if character.strip()}


def test_special_tokens_are_marked_around_the_text_and_in_it():
    (tokens,) = Embedder(TINY).tokenize(["<|endoftext|> plain"], role="document")
    assert [(token.text, token.special, token.start is None) for token in (tokens[0], tokens[-1])] == [
        ("<|endoftext|>", True, False),
        ("<|endoftext|>", True, True),
    ]
    assert not any(token.special for token in tokens[1:-1])


def test_both_runtimes_read_the_same():
    one, other = (Embedder(TINY, backend=backend) for backend in ("engine", "sentence-transformers"))
    assert one.tokenize(TEXTS, role="query") == other.tokenize(TEXTS, role="query")
    assert Embedder(TINY, cache="memory").tokenize(TEXTS, role="query") == one.tokenize(TEXTS, role="query")


def test_pairs_have_head_document_and_tail():
    judge = Reranker(JUDGE)
    found = judge.tokenize("red planet", TEXTS)
    assert [len(tokens) for tokens in found] == judge.count_tokens("red planet", TEXTS).tolist()
    for tokens, text in zip(found, TEXTS, strict=True):
        rendered = judge.render("red planet", text)
        assert spelled(tokens, rendered.text)
        assert tokens[-1].stop == len(rendered.text)
    assert judge.tokenize("red planet", []) == []
    assert FallbackReranker([judge]).tokenize("red planet", TEXTS) == found


def test_a_runtime_that_does_not_tell_says_so():
    assert Embedder("embrief/hash").tokenize(["a"], role="document") is None
