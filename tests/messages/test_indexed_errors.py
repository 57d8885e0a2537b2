"""An error about one text says where that text is in the caller's list, and leaves the runtime's own words alone."""

import copy
import pickle

import numpy as np
import pytest

from embrief import ArgumentTypeError, Embedder, InputTooLongError, ItemFailedError, NonFiniteVectorError, Reranker
from embrief.errors import ArgumentError, EmbriefError, IndexedError, OutOfMemoryError
from embrief.testing import FakeRuntime

WORDS = "index 0 is out of bounds for axis 0; texts[0] was the text at index 0 of them"


def fails_on(word, error):
    def fault(texts):
        for index, text in enumerate(texts):
            if word in text:
                raise error(index)

    return fault


@pytest.fixture(params=[None, 2], ids=["whole calls", "batches"])
def fake(request):
    with FakeRuntime(batch_tokens=request.param) as found:
        yield found


@pytest.mark.parametrize("call", ["embed", "aembed"])
async def test_the_runtimes_own_words_stay_as_they_are(call):
    with FakeRuntime(batch_tokens=2, fault=fails_on("BAD", lambda index: IndexError(WORDS))) as fake:
        embedder = Embedder(fake.qwen3)
        texts = ["a", "a", "b", "BAD"]
        with pytest.raises(ItemFailedError) as caught:
            embedder.embed_documents(texts) if call == "embed" else await embedder.aembed_documents(texts)
    assert caught.value.index == 3
    assert str(caught.value) == f"the runtime failed on the text at index 3 (1 tokens): IndexError: {WORDS}"
    assert caught.value.args == (str(caught.value),)


def test_an_error_of_ours_is_about_the_callers_text(fake):
    fake.fault = fails_on(
        "BAD",
        lambda index: InputTooLongError(f"the text at index {index} is long: {WORDS}", index=index, tokens=9, limit=8),
    )
    # Equal texts run once, so that the runtime counts another list.
    with pytest.raises(InputTooLongError) as caught:
        Embedder(fake.qwen3).embed_documents(["a", "a", "a", "b", "BAD"])
    assert (caught.value.index, str(caught.value)) == (4, f"the text at index 4 is long: {WORDS}")
    assert (caught.value.tokens, caught.value.limit) == (9, 8)


def test_a_vector_that_is_not_finite_is_named_by_the_callers_place(fake, monkeypatch):
    from embrief.facades import embedder as module

    finish = module.finish_vectors

    def broken(raw, **facts):
        raw = np.array(raw)
        raw[-1] = np.nan
        return finish(raw, **facts)

    monkeypatch.setattr(module, "finish_vectors", broken)
    with pytest.raises(NonFiniteVectorError, match="the text at index 2 ") as caught:
        Embedder(fake.qwen3).embed_documents(["a", "a", "b"])
    assert caught.value.index == 2


def test_a_sentence_follows_its_index_and_nothing_else():
    error = ArgumentTypeError(f"texts[12] is int: {WORDS}, index 12", index=12)
    error.index = 7
    assert str(error) == f"texts[7] is int: {WORDS}, index 12"
    error.index = 30
    assert (str(error), error.index) == (f"texts[30] is int: {WORDS}, index 12", 30)
    # 1 is not in "index 12", and a sentence without its index has nothing to follow.
    error = ArgumentError("index 12 of what the runtime counts", index=1)
    error.index = 5
    assert (str(error), error.index) == ("index 12 of what the runtime counts", 5)


ERRORS = [
    InputTooLongError("the text at index 1 is too long", index=1, tokens=9, limit=8),
    OutOfMemoryError("no memory for the text at index 1", index=1, tokens=9),
    ItemFailedError("the text at index 1 failed", index=1),
    NonFiniteVectorError("NaN for the text at index 1", index=1),
    ArgumentTypeError("texts[1] is int", index=1),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_travel_between_processes(error, twin):
    found = twin(error)
    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))
    found.index = 5
    assert "5" in str(found)
    assert "1" in str(error)
    assert isinstance(found, IndexedError)


def all_errors(kind=EmbriefError):
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


def test_every_error_can_be_pickled():
    kinds = {kind for kind in all_errors() if kind.__module__ == "embrief.errors"}
    assert len(kinds) > 15
    for kind in kinds:
        error = kind.__new__(kind, "a sentence")
        assert str(pickle.loads(pickle.dumps(error))) == "a sentence"


def test_a_rerankers_error_has_the_callers_index():
    fault = fails_on("BAD", lambda index: RuntimeError(WORDS))
    with FakeRuntime(batch_tokens=1, fault=fault) as fake, pytest.raises(ItemFailedError) as caught:
        Reranker(fake.reranker).score("query", ["good", "fine", "BAD"])
    assert caught.value.index == 2
    assert "at index 2 (" in str(caught.value)
    assert str(caught.value).endswith(WORDS)
