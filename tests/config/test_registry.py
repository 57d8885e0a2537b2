"""The registry: each model made once and only when wanted, by many threads, in forked children, and on event loops."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from embrief import (
    ArgumentError,
    ArgumentTypeError,
    ClosedError,
    ConfigError,
    DuplicateNameError,
    Embedder,
    FallbackReranker,
    Health,
    Registry,
    Reranker,
    UnknownModelError,
    use_config,
)
from embrief.testing import FakeRuntime

LONG = 60.0
"""Seconds against hangs."""


@pytest.fixture
def fake():
    with FakeRuntime() as fake:
        yield fake


@pytest.fixture
def registry(read, fake):
    config = read(
        f"default_model: one\nreranker: judge\nfallback_chain: [one, two]\nmodels:\n"
        f"  one: {{model_id: {fake.qwen3}, dim: 32}}\n  two: {{model_id: {fake.gemma}}}\n"
        f"  judge: {{model_id: {fake.reranker}}}\n  small: {{provider: hash, dim: 64, max_tokens: 9}}\n"
    )
    with Registry(config) as registry:
        yield registry


def test_get_makes_a_model_when_it_is_asked_for_and_the_same_one_later(registry, fake):
    assert fake.loads == 0
    one = registry.get("one")
    assert one.dim == 32
    assert registry.get("one") is one
    assert fake.loads == 0, "weights load with the first text"
    one.embed_query("q")
    assert registry.default() is one
    assert registry.reranker("judge") is registry.reranker()
    assert registry.config.fallback_chain == ("one", "two")
    assert "one" in registry
    assert "nobody" not in registry
    assert len(registry) == 4
    assert repr(registry).startswith("<Registry of 4 models, from ")


def test_unknown_names_and_wrong_kinds(registry):
    for name in ("nobody", "hash", "embrief/hash", "tei:http://127.0.0.1:1", "", "/etc", None, 7, [], "x" * 5000):
        with pytest.raises(UnknownModelError, match="it has one, two, judge, small") as caught:
            registry.get(name)
        assert len(str(caught.value)) < 300
    with pytest.raises(ArgumentError, match=r"'judge' is a reranker; use reranker\('judge'\)"):
        registry.get("judge")
    with pytest.raises(ArgumentError, match=r"'one' is an embedding model; use get\('one'\)"):
        registry.reranker("one")


def test_list_tells_what_is_known_and_makes_nothing(registry, fake, monkeypatch):
    monkeypatch.setattr("embrief.registry._facade", lambda entry: pytest.fail("made one"))
    rows = {row.name: row for row in registry.list()}
    assert list(rows) == ["one", "two", "judge", "small"]
    assert (rows["one"].kind, rows["one"].provider, rows["one"].model, rows["one"].dim) == (
        "embedding", "native", fake.qwen3, 32,
    )  # fmt: skip
    assert rows["two"].dim == 64
    assert (rows["judge"].kind, rows["judge"].dim) == ("reranker", None)
    assert (rows["small"].provider, rows["small"].model, rows["small"].max_tokens) == ("hash", "embrief/hash", 9)


def test_list_of_servers(read, servers):
    rows = Registry(read(
        "models:\n  a: {provider: tei, base_url: 'http://127.0.0.1:1'}\n  b: {provider: vllm, dim: 7, max_tokens: 5}\n"
        "  c: {provider: cohere, model_id: x}\n  d: {model_id: 'tei:http://127.0.0.1:1#BAAI/bge-m3'}\n"
        "  e: {model_id: qwen2.5-embed}\n"
    )).list()  # fmt: skip
    assert [(row.kind, row.model, row.dim, row.max_tokens) for row in rows] == [
        ("embedding", "a", None, None),
        ("embedding", "b", 7, 5),
        ("reranker", "x", None, None),
        ("embedding", "BAAI/bge-m3", 1024, 8192),
        ("embedding", "qwen2.5-embed", None, None),
    ]


def slow(registry, name, started, go):
    """Make the making of one model wait for a sign."""
    slot = registry._slots[name]
    made = []
    real = slot.make

    def make():
        made.append(threading.get_ident())
        started.set()
        assert go.wait(LONG)
        return real()

    slot.make = make
    return made


def test_many_callers_make_one_and_others_never_wait(registry):
    started, go = threading.Event(), threading.Event()
    made = slow(registry, "one", started, go)
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(registry.get, "one") for _ in range(200)]
        assert started.wait(LONG)
        assert registry.get("two").dim == 64, "another one does not wait"
        assert not any(future.done() for future in waiting)
        assert next(row.name for row in registry.list()) == "one"
        go.set()
        found = {id(future.result(LONG)) for future in waiting}
    assert len(found) == 1
    assert len(made) == 1


def test_a_thousand_coroutines_load_one_model_once(registry, fake):
    async def main():
        embedders = await asyncio.gather(*(registry.aget("one") for _ in range(1000)))
        assert len(set(map(id, embedders))) == 1
        await asyncio.gather(*(embedder.aembed_query("q") for embedder in embedders))

    asyncio.run(main())
    assert fake.loads == 1


def test_a_failure_is_everybodys_who_waited_and_nobodys_later(registry):
    started, go = threading.Event(), threading.Event()
    slot = registry._slots["one"]
    real, calls = slot.make, []

    def fails():
        calls.append(1)
        started.set()
        assert go.wait(LONG)
        raise ArgumentError("no")

    slot.make = fails
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(registry.get, "one") for _ in range(8)]
        assert started.wait(LONG)
        # All are inside by now, or will find the flight over and try for themselves.
        time.sleep(0.2)
        go.set()
        for future in waiting:
            with pytest.raises(ArgumentError, match="no"):
                future.result(LONG)
    assert len(calls) < 8
    slot.make = real
    assert registry.get("one").dim == 32


def test_who_is_interrupted_takes_nobody_with_him(registry):
    started, go = threading.Event(), threading.Event()
    slot = registry._slots["one"]
    real = slot.make

    def interrupted():
        started.set()
        assert go.wait(LONG)
        slot.make = real
        raise KeyboardInterrupt

    slot.make = interrupted
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(registry.get, "one")
        assert started.wait(LONG)
        second = pool.submit(registry.get, "one")
        time.sleep(0.1)
        go.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(LONG)
        assert second.result(LONG).dim == 32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_waits_for_no_thread_of_its_parent(registry):
    started, go = threading.Event(), threading.Event()
    real = registry._slots["one"].make
    slow(registry, "one", started, go)
    two = registry.get("two")
    thread = threading.Thread(target=partial(registry.get, "one"))
    thread.start()
    assert started.wait(LONG)
    with registry._lock:
        child = os.fork()
        if child == 0:
            registry._slots["one"].make = real
            done = threading.Thread(
                target=lambda: (registry.get("one").dim == 32 and registry.get("two") is two) and os._exit(7)
            )
            done.start()
            done.join(20)
            os._exit(1)
    go.set()
    thread.join(LONG)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_health(registry, fake):
    found = registry.health()
    assert list(found) == ["one", "two", "judge", "small"]
    assert all(health.ok and health.seconds >= 0 and health.reason == "" for health in found.values())
    assert list(registry.health("small")) == ["small"]

    def fault(texts):
        raise RuntimeError("out of order")

    fake.fault = fault
    found = registry.health()
    assert found["small"].ok
    for name in ("one", "two", "judge"):
        assert (found[name].ok, found[name].seconds) == (False, None)
        assert "out of order" in found[name].reason
        assert "anybody" not in found[name].reason
    assert asyncio.run(registry.ahealth()).keys() == found.keys()
    assert asyncio.run(registry.ahealth("small"))["small"].ok
    with pytest.raises(UnknownModelError):
        registry.health("nobody")


def test_health_of_what_cannot_be_made(read):
    registry = Registry(read("models: {a: {model_id: nobody}, b: {provider: hash}}"))
    found = registry.health()
    assert found["a"] == Health(False, None, found["a"].reason)
    assert found["a"].reason.startswith("UnknownModelError: no model has the name 'nobody'")
    assert found["b"].ok


def test_preload_and_unload(registry, fake):
    registry.preload("one")
    assert fake.loads == 1
    with pytest.raises(UnknownModelError):
        registry.preload("two", "nobody")
    assert fake.loads == 1
    registry.preload()
    assert fake.loads == 3
    asyncio.run(registry.apreload())
    assert fake.loads == 3
    one = registry.get("one")
    registry.unload("one")
    with pytest.raises(ClosedError):
        one.embed_query("q")
    assert registry.get("one") is not one
    registry.get("one").embed_query("q")
    assert fake.loads == 4
    registry.unload()
    asyncio.run(registry.apreload("one", "two"))
    assert fake.loads == 6


def test_a_closed_registry(registry, fake):
    one = registry.get("one")
    registry.close()
    registry.close()
    with pytest.raises(ClosedError):
        one.embed_query("q")
    for call in (
        lambda: registry.get("two"), registry.default, registry.reranker, registry.health, registry.preload,
        registry.unload, lambda: registry.register("x", provider="hash"),
    ):  # fmt: skip
        with pytest.raises(ClosedError, match="this Registry is closed"):
            call()


def test_what_is_made_while_it_is_unloaded_is_not_kept(registry):
    started, go = threading.Event(), threading.Event()
    made = slow(registry, "one", started, go)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(registry.get, "one")
        assert started.wait(LONG)
        registry.unload("one")
        go.set()
        assert first.result(LONG).dim == 32
    assert registry.get("one") is not first.result()
    assert len(made) == 2


def test_register(fake):
    with Registry() as registry:
        registry.register("small", provider="hash", dimensions=16)
        registry.register("mine", Embedder(fake.qwen3, dim=8))
        registry.register("judge", Reranker(fake.reranker))
        registry.register("far", provider="local", base_url="http://127.0.0.1:1", text_endpoint={"path": "/e"}, dim=3,
                          normalize=False)  # fmt: skip
        assert registry.get("small").dim == 16
        assert registry.get("mine").dim == 8
        assert registry.reranker("judge").spec.id == fake.reranker
        assert [(row.name, row.kind, row.provider, row.dim) for row in registry.list()] == [
            ("small", "embedding", "hash", 16), ("mine", "embedding", "program", 8),
            ("judge", "reranker", "program", None), ("far", "embedding", "local", 3),
        ]  # fmt: skip
        assert list(registry.config.models) == ["small", "far"]
        assert registry.config.models["far"].settings["text_endpoint"] == "/e"
        assert registry.config.models["far"].settings["normalize"] is False
        with pytest.raises(DuplicateNameError, match="has a model 'small' already"):
            registry.register("small", provider="hash")
        registry.unload("mine")
        with pytest.raises(ClosedError, match="registered as 'mine' was unloaded"):
            registry.get("mine")


def test_mistakes_with_register():
    registry = Registry()
    with pytest.raises(ConfigError, match="small has no setting 'dimm'; did you mean"):
        registry.register("small", provider="hash", dimm=3)
    with pytest.raises(ConfigError, match="a model cannot be called 'a/b'"):
        registry.register("a/b", provider="hash")
    with pytest.raises(ArgumentError, match="give settings such as model_id=, or a facade"):
        registry.register("small")
    with pytest.raises(ArgumentError, match="the facade has its own settings; leave out dim"):
        registry.register("small", Embedder("hash"), dim=3)
    with pytest.raises(ArgumentTypeError, match="an Embedder or a Reranker, not str"):
        registry.register("small", "hash")
    with pytest.raises(ArgumentTypeError, match="is a string, not int"):
        registry.register(7, provider="hash")
    with pytest.raises(ArgumentTypeError, match=r"for a file: Registry\.from_config"):
        Registry("embrief.yaml")
    assert len(registry) == 0


def test_from_config(write, monkeypatch):
    assert len(Registry.from_config()) == 0
    path = write("models: {a: {provider: hash}}")
    assert "a" in Registry.from_config(path)
    monkeypatch.setenv("EMBRIEF_CONFIG", str(path))
    assert "a" in Registry.from_config()


def test_the_default_of_a_registry(read, monkeypatch, use):
    use("default_model: hash\n")
    registry = Registry(read("models: {a: {provider: hash, dim: 8}}\n"))
    assert registry.default().settings.model == "Qwen/Qwen3-Embedding-0.6B", "not that of another configuration"
    monkeypatch.setenv("EMBRIEF_DEFAULT_EMBEDDING_MODEL", "a")
    assert registry.default() is registry.get("a")
    monkeypatch.setenv("EMBRIEF_DEFAULT_EMBEDDING_MODEL", "local:hash")
    first = registry.default()
    assert first.settings.model == "embrief/hash"
    assert registry.default() is first
    registry.unload()
    assert registry.default() is not first
    monkeypatch.setenv("EMBRIEF_RERANKER_MODEL", "embrief/tiny-reranker")
    assert registry.reranker().spec.id == "embrief/tiny-reranker"


def test_a_registry_is_not_the_process(read, servers, use):
    """What another configuration says of a model plays no part."""
    use("models: {far: {provider: tei, base_url: 'http://127.0.0.1:1', model_id: BAAI/bge-m3}}\n"
        "runs: {BAAI/bge-m3: far}\n")  # fmt: skip
    mine = Registry(read("models: {near: {model_id: BAAI/bge-m3}}"))
    assert mine.get("near").settings.backend is None
    assert Embedder("BAAI/bge-m3").settings.backend is not None
    with pytest.raises(UnknownModelError):
        Embedder("near")
    use_config(mine.config)
    assert Embedder("near").settings.backend is None


def test_a_configuration_and_its_registry_travel(read):
    config = read(
        "default_model: a\nmodels:\n  a: {provider: hash, dim: 64, batch_size: 3}\n  b: {model_id: BAAI/bge-m3}\n"
        "fallback_chain: [a]\nruns: {BAAI/bge-m3: b}\n"
    )
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config)):
        assert again == config
        assert again.notes == config.notes
        with pytest.raises(TypeError):
            again.models["c"] = again.models["a"]
    with Registry(config) as registry:
        registry.register("small", provider="hash", dim=32)
        for again in (pickle.loads(pickle.dumps(registry)), copy.deepcopy(registry)):
            with again:
                assert [row.name for row in again.list()] == ["a", "b", "small"]
                assert again.get("small").embed_query("q").shape == (32,)
                assert again.default().dim == 64
        registry.register("mine", Embedder("hash"))
        with pytest.raises(ArgumentTypeError, match="no place for the facade 'mine'; register it with settings"):
            pickle.dumps(registry)


def test_a_configured_chain_of_rerankers(read, fake):
    registry = Registry(
        read(
            f"models:\n  a: {{model_id: {fake.reranker}}}\n  b: {{model_id: embrief/tiny-reranker}}\n"
            "  e: {provider: hash}\nreranker_chain: [a, b]\n"
        )
    )
    chain = registry.reranker_chain()
    assert isinstance(chain, FallbackReranker)
    assert [member.partition(" ")[0] for member in chain.members] == [fake.reranker, "embrief/tiny-reranker"]
    events = []
    last = registry.reranker_chain(last_resort="input-order", on_event=events.append)
    assert len(last.rerank("q", ["a", "b"])) == 2
    assert len(events) == 1
    assert asyncio.run(registry.areranker_chain()).members == chain.members
    with pytest.raises(ArgumentError, match="no reranker_chain is configured"):
        Registry().reranker_chain()
    with pytest.raises(ArgumentError, match="'e' is an embedding model"):
        Registry(read("models: {e: {provider: hash}}\nreranker_chain: [e]\n")).reranker_chain()
    with pytest.raises(ConfigError, match="reranker_chain: 'c' is not known"):
        read("models: {e: {provider: hash}}\nreranker_chain: [c]\n")


def test_twins_for_event_loops(read):
    registry = Registry(
        read(
            "default_model: a\nmodels: {a: {provider: hash, dim: 32}, b: {provider: hash, dim: 32}}\n"
            "fallback_chain: [a, b]\n"
        )
    )

    async def use_them():
        first = await registry.adefault()
        assert first is registry.get("a")
        assert (await registry.achain()).dim == 32
        await registry.aunload("a")
        with pytest.raises(ClosedError):
            first.embed_query("q")
        await registry.aclose()
        with pytest.raises(ClosedError, match="this Registry is closed"):
            await registry.adefault()

    asyncio.run(use_them())
