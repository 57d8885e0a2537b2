"""A runtime answers one question, with options of its own: what they identify, where they travel, and who is asked."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from embrief import (
    ArgumentError,
    ArgumentTypeError,
    Artifact,
    BackendError,
    DuplicateNameError,
    Embedder,
    LoadRequest,
    MissingDependencyError,
    Offer,
    Output,
    Refusal,
    Reranker,
    Runtime,
    RuntimeOptions,
    WeightsUnavailableError,
    plugins,
)
from embrief.serving.choosing import to_fetch
from embrief.stores import stored_model
from embrief.testing import FakeRuntime

QWEN = "Qwen/Qwen3-Embedding-0.6B"
FILES = Artifact("gguf", "acme/x", "a" * 40, ("x.gguf",))


@dataclass(frozen=True, kw_only=True)
class Far(RuntimeOptions):
    base_url: str = "http://localhost:1"
    key_env: str | None = "FAR_KEY"
    retries: tuple[int, ...] = (1, 2)


class Vectors:
    """Vectors that tell which options made them."""

    def __init__(self, request: LoadRequest) -> None:
        assert isinstance(request.options, Far)
        self._width = request.spec.dim  # type: ignore[attr-defined] # of an embedding model
        self._port = int(request.options.base_url.rpartition(":")[2])

    def run(self, texts, options):  # type: ignore[no-untyped-def]
        count = len(texts)
        vectors = np.ones((count, self._width), np.float32)
        vectors[:, 0] = self._port
        return Output.dense(vectors, np.ones(count, np.int64), np.zeros(count, np.bool_))

    def close(self) -> None:
        """Nothing is held."""


class FarRuntime(Runtime):
    """Sends texts to another machine, or would."""

    name = "far"
    preference = 99
    dtypes = ("float32", "q8_0")
    Options = Far

    def __init__(self) -> None:
        self.offers: list[bool] = []
        self.loaded: list[LoadRequest] = []
        self.leaves = True
        self.identity = ""

    def offer(self, spec, ask):  # type: ignore[no-untyped-def]
        self.offers.append(ask.final)
        assert isinstance(ask.options, Far)
        if spec.architecture != "qwen3":
            return Refusal("serves qwen3")
        dtype = ask.dtype if not ask.final or ask.dtype != "auto" else "float32"
        return Offer(device="cpu", dtype=dtype, leaves_machine=self.leaves, identity=self.identity)

    def load(self, request):  # type: ignore[no-untyped-def]
        self.loaded.append(request)
        return Vectors(request)


@pytest.fixture
def far() -> Iterator[FarRuntime]:
    runtime = FarRuntime()
    plugins().catalog.add_backend(runtime)
    yield runtime
    plugins().catalog.remove("far", [])


def port(embedder: Embedder) -> float:
    vector = embedder.embed_query("q")
    return round(float(vector[0] / vector[1]))


def test_other_options_are_another_model_and_equal_ones_the_same(far: FarRuntime) -> None:
    one, two = Embedder(QWEN, backend=Far(base_url="http://a:7")), Embedder(QWEN, backend=Far(base_url="http://b:8"))
    again = Embedder(QWEN, backend=Far(base_url="http://a:7"), dim=64)
    assert [port(one), port(two), port(again)] == [7, 8, 7]
    assert [request.options.base_url for request in far.loaded] == ["http://a:7", "http://b:8"]
    assert one.space == two.space, "where a model runs is no part of its space"
    assert one.info()["backend"] == "far"
    assert far.offers.count(True) == 2, "what may be heavy is asked once per model"


def test_a_name_is_the_default_options(far: FarRuntime) -> None:
    assert port(Embedder(QWEN, backend="far")) == 1
    assert far.loaded[0].options == Far()


def test_an_embedder_with_options_travels_whole(far: FarRuntime) -> None:
    embedder = Embedder(QWEN, backend=Far(base_url="http://a:7"), dim=64)
    for twin in (pickle.loads(pickle.dumps(embedder)), copy.copy(embedder), copy.deepcopy(embedder)):
        assert twin.settings == embedder.settings
        assert port(twin) == 7
    assert len(far.loaded) == 1
    assert "backend=Far(base_url='http://a:7', key_env='FAR_KEY'" in repr(embedder)
    assert embedder.settings.backend.to_json() == {"base_url": "http://a:7", "key_env": "FAR_KEY", "retries": (1, 2)}
    assert json.loads(json.dumps(embedder.settings.backend.to_json()))


def test_options_hold_plain_values_and_no_secret() -> None:
    with pytest.raises(ArgumentTypeError, match=r"Far\(retries=...\) takes plain values .* not list"):
        Far(retries=[1])  # type: ignore[arg-type] # the mistake
    with pytest.raises(ArgumentTypeError, match="not object"):
        Far(base_url=object())  # type: ignore[arg-type] # the mistake
    for address in ("http://me:secret@host", "HTTPS://token@host:80/x"):
        with pytest.raises(ArgumentError, match="has a password in the address") as caught:
            Far(base_url=address)
        assert "secret" not in str(caught.value)
    with pytest.raises(ArgumentError, match="has a password"):
        Far(key_env=None, retries=("http://me:secret@host",))  # type: ignore[arg-type] # hidden in a tuple
    assert Far(base_url="http://host/a@b")


def test_mistakes_with_backend(far: FarRuntime) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Nobodys(RuntimeOptions): ...

    for nobodys in (Nobodys(), RuntimeOptions()):
        with pytest.raises(ArgumentError, match=f"no installed plugin has the options {type(nobodys).__name__}"):
            Embedder(QWEN, backend=nobodys)
    with pytest.raises(ArgumentTypeError, match=r"backend is Far\(\.\.\.\), an instance"):
        Embedder(QWEN, backend=Far)  # type: ignore[arg-type] # the mistake
    with pytest.raises(ArgumentTypeError, match="backend is a string or None, not int"):
        Embedder(QWEN, backend=7)  # type: ignore[arg-type] # the mistake
    with pytest.raises(ArgumentError, match="'far' cannot run google/embeddinggemma-300m: it serves qwen3; those that"):
        Embedder("google/embeddinggemma-300m", backend=Far())

    class Other(FarRuntime):
        name = "other"

    with pytest.raises(DuplicateNameError, match="options Far already belong to the backend 'far'"):
        plugins().catalog.add_backend(Other())


def test_a_runtime_without_default_options_is_named_with_them() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needs(RuntimeOptions):
        base_url: str

    class Needing(FarRuntime):
        name = "needing"
        Options = Needs  # type: ignore[assignment] # options of its own

        def offer(self, spec, ask):  # type: ignore[no-untyped-def]
            return Offer(device="cpu", dtype="float32")

    plugins().catalog.add_backend(Needing())
    try:
        assert Embedder(QWEN).info()["backend"] != "needing"
        assert Embedder(QWEN, backend=Needs(base_url="http://a:7")).info()["backend"] == "needing"
        with pytest.raises(ArgumentTypeError, match=r"backend=Needs\(\.\.\.\).*base_url"):
            Embedder(QWEN, backend="needing")
    finally:
        plugins().catalog.remove("needing", [])


def test_what_sends_texts_away_runs_only_where_it_is_named(far: FarRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(type(plugins()), "preferred_backend", lambda self, spec, available: asked.append(available))
    assert Embedder(QWEN).info()["backend"] == "engine"
    assert all("far" not in available for available in asked)
    assert to_fetch(plugins().catalog, Embedder(QWEN).spec) == Embedder(QWEN).spec.safetensors
    spec = replace(Embedder(QWEN).spec, id="acme/only-far", aliases=(), architecture="qwen3", pooling="cls")
    monkeypatch.setattr(
        type(plugins().catalog.backends["sentence-transformers"]), "offer", lambda *_: Refusal("not now")
    )
    plugins().catalog.add_model(spec)
    try:
        with pytest.raises(BackendError, match=r"not run on this machine; name backend='far', which sends"):
            Embedder("acme/only-far")
        assert port(Embedder("acme/only-far", backend="far")) == 1
    finally:
        plugins().catalog.remove("", ["acme/only-far"])
    far.leaves = False
    assert Embedder(QWEN, device="cpu").info()["backend"] == "far", "guards the above: only leaving kept it away"


def test_a_format_that_one_runtime_knows_is_asked_of_that_one(far: FarRuntime) -> None:
    far.leaves = False
    assert Embedder(QWEN, dtype="q8_0").info()["dtype"] == "q8_0"
    with pytest.raises(ArgumentError, match=r"dtype='q3_0' is not known; use one of .*'q8_0'"):
        Embedder(QWEN, dtype="q3_0")
    with pytest.raises(
        ArgumentError, match=r"'engine' cannot run .* has no dtype='q8_0', which gguf and far have; it has 'float32'"
    ):
        Embedder(QWEN, dtype="q8_0", backend="engine")
    far.leaves = True
    with pytest.raises(ArgumentError, match="cannot run so: the backend 'engine' has no dtype='q8_0'"):
        Reranker(dtype="q8_0")


def test_the_identity_of_an_offer_is_part_of_the_fingerprint(far: FarRuntime) -> None:
    plain = Embedder(QWEN, backend="far").fingerprint
    far.identity = "server 2"
    other = Embedder(QWEN, backend=Far(base_url="http://a:9"))
    assert other.fingerprint != plain
    assert other.space == Embedder(QWEN, backend="far").space


def test_options_that_fail_and_unknown_words_harm_no_other_runtime(far: FarRuntime) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Picky(RuntimeOptions):
        url: str = ""

        def __post_init__(self) -> None:
            if not self.url:
                raise ArgumentError("give a url")

    class PickyRuntime(FarRuntime):
        name = "picky"
        Options = Picky  # type: ignore[assignment] # options of its own
        dtypes = ("float32",)

        def offer(self, spec, ask):  # type: ignore[no-untyped-def]
            return Offer(device="cpu", dtype={"auto": "float32", "float32": "float32"}[ask.dtype])

    plugins().catalog.add_backend(PickyRuntime())
    try:
        assert Embedder("embrief/hash").embed_query("q").shape == (1024,)
        assert Embedder(QWEN, dtype="int8").info()["backend"] == "engine"
        with pytest.raises(ArgumentTypeError, match=r"'picky' needs options: backend=Picky\(\.\.\.\) \(give a url\)"):
            Embedder(QWEN, backend="picky")
        with pytest.raises(ArgumentError, match="has no dtype='int8'"):
            Embedder(QWEN, backend=Picky(url="x"), dtype="int8")
    finally:
        plugins().catalog.remove("picky", [])


def test_a_final_offer_keeps_to_what_was_decided(far: FarRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = far.offer
    for changed, told in (
        (Offer(device="cpu", dtype="float32"), "changed leaves_machine"),
        (Offer(device="cpu", dtype="float32", leaves_machine=True, artifact=FILES), "changed artifact"),
        (None, "offered a NoneType"),
    ):
        monkeypatch.setattr(far, "offer", lambda spec, ask, changed=changed: changed if ask.final else offer(spec, ask))
        with pytest.raises(BackendError, match=told):
            Embedder(QWEN, backend=Far(base_url=f"http://{told[0]}:1")).load()


def test_a_folder_of_another_format_is_named_by_the_files_that_run(far: FarRuntime, tmp_path: Path) -> None:
    spec = replace(Embedder(QWEN).spec, id="acme/own", aliases=(), folder=tmp_path, artifacts=(FILES,))
    plugins().catalog.add_model(spec)
    far.offer = lambda spec, ask: Offer(device="cpu", dtype="float32", artifact=FILES)  # type: ignore[method-assign]
    try:
        found = []
        for content in ("one", "two", "one"):
            (tmp_path / "x.gguf").write_text(content, "utf-8")
            found.append(Embedder("acme/own", backend=Far(base_url=f"http://{len(found)}:1")).space.weights)
        assert found[0] == found[2] != found[1]
        assert port(Embedder("acme/own", backend=Far(base_url="http://a:7"))) == 7
        assert far.loaded[-1].folder == tmp_path
        (tmp_path / "x.gguf").unlink()
        with pytest.raises(WeightsUnavailableError, match=r"lacks x\.gguf"):
            _ = Embedder("acme/own", backend=Far(base_url="http://b:7")).space
    finally:
        plugins().catalog.remove("", ["acme/own"])


def test_one_that_is_not_installed_says_so() -> None:
    class Absent(FarRuntime):
        name = "absent"
        requires = ("a_package_that_nobody_has",)
        install = "pip install it"
        Options = RuntimeOptions  # type: ignore[assignment] # none of its own

        def offer(self, spec, ask):  # type: ignore[no-untyped-def]
            return Offer(device="cpu", dtype="float32")

    plugins().catalog.add_backend(Absent())
    try:
        with pytest.raises(MissingDependencyError, match="a_package_that_nobody_has: pip install it"):
            Embedder(QWEN, backend="absent")
    finally:
        plugins().catalog.remove("absent", [])


HOSTILE = [
    ("/etc", None), ("~/x", None), ("../x", None), ("https://evil.example/x", None), ("hash", None),
    ("qwen3", None), ("tei:http://evil", None), ("evil/model", None), ("evil/model", "main"), ("evil/model", "a" * 39),
    ("owner/name/more", "a" * 40), (QWEN, "refs/pr/13"), (QWEN, "main"),
    (7, None), (None, None), ({"model": "x"}, "a" * 40), ("", "a" * 40),
]  # fmt: skip


@pytest.mark.parametrize(("model", "revision"), HOSTILE)
def test_what_comes_from_a_store_names_published_weights_or_nothing(model: object, revision: object) -> None:
    with pytest.raises(ArgumentError, match="what comes from a store may only be"):
        stored_model(model, revision, where="the store")


def test_recorded_ids_and_commits_come_through() -> None:
    assert stored_model(QWEN, None, where="the store") == QWEN
    assert stored_model("owner/name", "a" * 40, where="the store") == "owner/name"


@pytest.mark.parametrize(("model", "revision"), HOSTILE)
def test_a_hostile_llama_index_configuration(model: object, revision: object) -> None:
    llama = pytest.importorskip("llama_index_embrief")
    with FakeRuntime() as fake:
        data = llama.Qwen3Embedding(fake.qwen3).to_dict()
        with pytest.raises(ArgumentError, match="the stored Qwen3Embedding names"):
            llama.Qwen3Embedding.from_dict({**data, "model_name": model, "revision": revision})
        rerank = llama.Qwen3Rerank(fake.reranker).to_dict()
        with pytest.raises(ArgumentError, match="the stored Qwen3Rerank names"):
            llama.Qwen3Rerank.from_dict({**rerank, "model": model, "revision": revision})
        # What this program says itself is its own business.
        assert llama.Qwen3Embedding.from_dict(data, model_name="hash").model_name == "embrief/hash"


def test_a_stored_llama_index_configuration_runs_no_code() -> None:
    llama = pytest.importorskip("llama_index_embrief")
    data = llama.Qwen3Embedding("embrief/hash").to_dict()
    hostile = {**data, "model_name": "evil/model", "revision": "a" * 40, "trust_remote_code": True}
    for mine in ({}, {"model_name": "embrief/hash"}):
        with pytest.raises(ArgumentError, match="asks to run code that comes with the model"):
            llama.Qwen3Embedding.from_dict(hostile, **mine)


def test_llama_index_keeps_the_name_of_a_runtime(far: FarRuntime) -> None:
    llama = pytest.importorskip("llama_index_embrief")
    model = llama.Qwen3Embedding(QWEN, backend=Far(base_url="http://a:7"))
    assert port(model.embedder) == 7
    data = model.to_dict()
    assert data["backend"] == "far"
    assert "a:7" not in json.dumps(data)
    # Where texts go is for this program to say, and not for what was stored.
    with pytest.raises(ArgumentError, match="'far', which hands texts to a server"):
        llama.Qwen3Embedding.from_dict(data)
    again = llama.Qwen3Embedding.from_dict(data, backend=Far(base_url="http://b:8"))
    assert port(again.embedder) == 8
    assert port(pickle.loads(pickle.dumps(model)).embedder) == 7
    assert port(model.model_copy(update={"dim": 64}).embedder) == 7
    with pytest.raises(ArgumentTypeError, match="backend is a string or None, not dict"):
        llama.Qwen3Embedding.from_dict({**data, "backend": {"base_url": "http://evil"}})


@pytest.mark.parametrize("backend", ["openai", "tei", "ollama", "rerank-http", "http-simple", "hf-inference"])
def test_a_stored_llama_index_configuration_sends_no_text_away(backend: str) -> None:
    """With a recorded model, and a key in the environment, this is all that it would take."""
    llama = pytest.importorskip("llama_index_embrief")
    data = llama.Qwen3Embedding("embrief/hash").to_dict()
    for model in ("openai/text-embedding-3-small", QWEN):
        with pytest.raises(ArgumentError, match="hands texts to a server"):
            llama.Qwen3Embedding.from_dict({**data, "model_name": model, "dim": None, "backend": backend})
    rerank = llama.Qwen3Rerank("embrief/tiny-reranker").to_dict()
    with pytest.raises(ArgumentError, match="hands texts to a server"):
        llama.Qwen3Rerank.from_dict({**rerank, "backend": backend})
    assert llama.Qwen3Embedding.from_dict({**data, "backend": "hash"}).embedder.settings.backend == "hash"


def test_langchain_keeps_the_name_of_a_runtime(far: FarRuntime) -> None:
    langchain = pytest.importorskip("langchain_embrief")
    from langchain_core.load import dumps, loads

    model = langchain.Qwen3Embeddings(QWEN, backend=Far(base_url="http://a:7"))
    assert port(model.embedder) == 7
    assert json.loads(model.model_dump_json())["backend"] == "far"
    assert type(model).model_validate_json(model.model_dump_json()).embedder.settings.backend == "far"
    assert port(pickle.loads(pickle.dumps(model)).embedder) == 7
    assert port(model.model_copy(update={"dim": 64}).embedder) == 7
    written = dumps(model)
    with pytest.raises(NotImplementedError):
        loads(written, allowed_objects="all")
    with pytest.raises(ArgumentTypeError, match="backend is a string or None, not dict"):
        type(model).model_validate({"model": QWEN, "backend": {"base_url": "http://evil"}})


def test_a_hostile_chroma_configuration() -> None:
    chroma = pytest.importorskip("chroma_embrief")
    config = chroma.Qwen3EmbeddingFunction("embrief/hash").get_config()
    for model, revision in (("hash", config["revision"]), ("evil/model", "main")):
        with pytest.raises(Exception, match=r"what comes from a store may only be|vector space"):
            chroma.Qwen3EmbeddingFunction.build_from_config({**config, "model": model, "revision": revision})(["text"])
