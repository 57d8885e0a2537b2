"""What a runtime raises by itself reaches the caller as an error of ours, wrapped once, with its cause."""

import pytest

from embrief import BackendError, Embedder, EmbriefError, Reranker
from embrief.discovery.plugins import catalog
from embrief.testing import FakeRuntime


class Odd(Exception):
    """An exception of a library that we know nothing about."""


def broken(*_, **__):
    raise Odd("its own words\nand a second line")


def wrapped_once(error, *words):
    assert isinstance(error, BackendError)
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, Odd)
    assert error.__cause__.__cause__ is None
    assert "Odd: its own words" in str(error)
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


CALLS = {
    "load": lambda embedder, reranker: (embedder.load, reranker.load),
    "run": lambda embedder, reranker: (lambda: embedder.embed_query("a"), lambda: reranker.score("a", ["b"])),
    "many": lambda embedder, reranker: (
        lambda: embedder.embed_documents(["a", "b", "c"]),
        lambda: reranker.rerank("a", ["b", "c"]),
    ),
}


@pytest.fixture(params=[None, 8], ids=["whole calls", "batches"])
def fake(request):
    with FakeRuntime(batch_tokens=request.param) as found:
        yield found


def replace_backend(fake, **changes):
    for name, method in changes.items():
        setattr(catalog().backends[fake._name], name, method)


@pytest.mark.parametrize("call", CALLS)
def test_on_load(fake, call):
    replace_backend(fake, load=broken)
    runs = CALLS[call](Embedder(fake.qwen3), Reranker(fake.reranker))
    for model, run in zip((fake.qwen3, fake.reranker), runs, strict=True):
        with pytest.raises(EmbriefError) as caught:
            run()
        wrapped_once(caught.value, "failed to load", model, fake._name)


@pytest.mark.parametrize("call", ["run", "many"])
def test_on_run(fake, call):
    fake.fault = broken
    for run in CALLS[call](Embedder(fake.qwen3), Reranker(fake.reranker)):
        with pytest.raises(EmbriefError) as caught:
            run()
        wrapped_once(caught.value)


@pytest.mark.parametrize("where", ["load", "run"])
async def test_the_same_for_event_loops(fake, where):
    if where == "load":
        replace_backend(fake, load=broken)
    else:
        fake.fault = broken
    with pytest.raises(EmbriefError) as caught:
        await Embedder(fake.qwen3).aembed_documents(["a", "b"])
    wrapped_once(caught.value)
    with pytest.raises(EmbriefError) as caught:
        await Reranker(fake.reranker).ascore("a", ["b", "c"])
    wrapped_once(caught.value)


async def test_on_tokenising(monkeypatch):
    with FakeRuntime(batch_tokens=8) as fake:
        embedder = Embedder(fake.qwen3).load()
        monkeypatch.setattr(type(embedder._shared.model.load()), "prepare", broken)
        with pytest.raises(EmbriefError) as caught:
            embedder.embed_query("a")
        wrapped_once(caught.value, "tokenise")
        with pytest.raises(EmbriefError) as caught:
            await embedder.aembed_query("a")
        wrapped_once(caught.value, "tokenise")


def test_on_choosing_a_device(fake):
    offer = catalog().backends[fake._name].offer
    replace_backend(fake, offer=lambda spec, ask: broken() if ask.final else offer(spec, ask))
    for run in (Embedder(fake.qwen3).info, Embedder(fake.qwen3).load, lambda: Embedder(fake.qwen3).embed_query("a")):
        with pytest.raises(EmbriefError) as caught:
            run()
        wrapped_once(caught.value, "device", fake.qwen3)


def test_an_error_of_ours_is_not_wrapped(fake):
    ours = BackendError("what a runtime of ours has to say")

    def load(request):
        raise ours

    replace_backend(fake, load=load)
    with pytest.raises(BackendError) as caught:
        Embedder(fake.qwen3).load()
    assert caught.value is ours


def test_what_the_caller_passes_raises_its_own_errors(fake):
    """Guards the others: only the runtime's errors are wrapped, never those of the caller's own code."""
    with pytest.raises(Odd):
        Reranker(fake.reranker).rerank_items("a", ["b"], text=broken)
    with pytest.raises(Odd):
        Embedder(fake.qwen3).embed_documents(broken() for _ in range(2))
