"""Constructing, copying and storing what was configured."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd
from pydantic import BaseModel, ValidationError

from embrief import ArgumentError, ArgumentTypeError, ClosedError, Embedder, Reranker, UnknownModelError
from embrief.testing import FakeRuntime
from langchain_embrief import GemmaEmbeddings, Qwen3Embeddings, Qwen3Reranker

ALL = (Qwen3Embeddings, GemmaEmbeddings, Qwen3Reranker)


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


def test_defaults_are_the_published_models() -> None:
    assert [kind().model for kind in ALL] == [
        "Qwen/Qwen3-Embedding-0.6B", "google/embeddinggemma-300m", "Qwen/Qwen3-Reranker-0.6B",
    ]  # fmt: skip
    assert Qwen3Embeddings().embedder.spec.id == "Qwen/Qwen3-Embedding-0.6B"
    assert GemmaEmbeddings().embedder.spec.id == "google/embeddinggemma-300m"
    assert Qwen3Reranker().reranker.spec.id == "Qwen/Qwen3-Reranker-0.6B"


def test_every_keyword_of_the_facades_is_taken_by_the_same_name_and_default() -> None:
    for kind, facade in ((Qwen3Embeddings, Embedder), (GemmaEmbeddings, Embedder), (Qwen3Reranker, Reranker)):
        parameters = inspect.signature(facade).parameters.values()
        theirs = {item.name: item.default for item in parameters if item.kind is item.KEYWORD_ONLY}
        ours = {name: kind.model_fields[name].default for name in theirs}
        assert ours == theirs
        shown = inspect.signature(kind).parameters
        assert set(theirs) < set(shown)


def test_keywords_reach_the_facade(fake: FakeRuntime, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "dim": 16, "instruction": "x", "normalize": False, "device": "cpu", "dtype": "float32",
        "max_tokens": 7, "truncate": "silent", "batch_tokens": 99, "cache_dir": tmp_path, "local_files_only": True,
    }  # fmt: skip
    expected = asdict(Embedder(fake.qwen3, **options).settings)
    for embeddings in (Qwen3Embeddings(fake.qwen3, **options), Qwen3Embeddings(model=fake.qwen3, **options)):
        assert asdict(embeddings.embedder.settings) == expected == embeddings.model_dump()
    del options["dim"], options["normalize"]
    reranker = Qwen3Reranker(fake.reranker, top_n=2, **options)
    assert asdict(reranker.reranker.settings) == asdict(Reranker(fake.reranker, **options).settings)
    assert GemmaEmbeddings(fake.gemma, task="clustering").embedder.settings.task == "clustering"


def test_constructing_loads_nothing_and_equal_configurations_share_the_model(fake: FakeRuntime) -> None:
    one, other = Qwen3Embeddings(fake.qwen3), Qwen3Embeddings(fake.qwen3, dim=16)
    Qwen3Reranker(fake.reranker)
    one.with_instruction("x").cache_namespace()
    assert fake.loads == 0
    one.embed_query("a")
    other.embed_query("a")
    assert fake.loads == 1


def test_an_existing_facade_is_used_as_it_is(fake: FakeRuntime) -> None:
    embedder, reranker = (
        Embedder(fake.qwen3, dim=16, instruction="x"),
        Reranker(fake.reranker, max_tokens=500),
    )
    embeddings, wrapped = Qwen3Embeddings(embedder=embedder), Qwen3Reranker(reranker=reranker, top_n=1)
    assert embeddings.embedder is embedder
    assert (embeddings.model, embeddings.dim, embeddings.instruction) == (fake.qwen3, 16, "x")
    assert wrapped.reranker is reranker
    assert (wrapped.model, wrapped.max_tokens, wrapped.top_n) == (fake.reranker, 500, 1)
    embedder.close()
    with pytest.raises(ClosedError):
        embeddings.embed_query("a")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("build", ["constructor", "model_validate"])
def test_an_unknown_keyword_is_an_error_that_lists_the_options(kind: type[BaseModel], build: str) -> None:
    make: Callable[..., Any] = kind if build == "constructor" else lambda **data: kind.model_validate(data)
    with pytest.raises(
        ArgumentTypeError, match=rf"{kind.__name__} has no option model_name; it takes .*model, .*device"
    ):
        make(model_name="embrief/hash")


def test_an_embedder_option_is_unknown_to_the_reranker() -> None:
    with pytest.raises(ArgumentTypeError, match="Qwen3Reranker has no option dim, task"):
        Qwen3Reranker(task="x", dim=3)  # type: ignore[call-arg] # the mistake under test


def test_a_facade_and_options_together_are_refused(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentError, match="leave out model, or"):
        Qwen3Embeddings(fake.qwen3, embedder=Embedder(fake.qwen3))
    with pytest.raises(ArgumentError, match="leave out model, dim"):
        Qwen3Embeddings(fake.qwen3, embedder=Embedder(fake.qwen3), dim=16)
    with pytest.raises(ArgumentError, match="leave out device"):
        Qwen3Reranker(reranker=Reranker(fake.reranker), device="cpu")
    with pytest.raises(ArgumentTypeError, match=r"embedder is an embrief\.Embedder, not Reranker"):
        Qwen3Embeddings(embedder=Reranker(fake.reranker))  # type: ignore[arg-type] # the mistake under test


def test_wrong_values_are_refused_when_constructing(fake: FakeRuntime) -> None:
    with pytest.raises(UnknownModelError):
        Qwen3Embeddings("Qwen/Qwen3-Embedding")
    with pytest.raises(ArgumentError, match="dim=7"):
        Qwen3Embeddings(fake.qwen3, dim=7)
    with pytest.raises(ArgumentTypeError, match="True"):
        Qwen3Embeddings(fake.qwen3, dim=True)
    for top_n in (0, -1, True, "3", 1.0):
        with pytest.raises(ValidationError, match="top_n"):
            Qwen3Reranker(fake.reranker, top_n=top_n)  # type: ignore[arg-type] # the mistake under test


@pytest.mark.parametrize("field", ["model", "dim", "instruction", "anything"])
def test_fields_are_read_only(fake: FakeRuntime, field: str) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    with pytest.raises((ValidationError, ValueError)):
        setattr(embeddings, field, "x")


@pytest.mark.parametrize(
    "rebuild",
    [
        lambda it: pickle.loads(pickle.dumps(it)),
        copy.copy,
        copy.deepcopy,
        lambda it: it.model_copy(),
        lambda it: it.model_copy(deep=True),
        lambda it: type(it).model_validate(it.model_dump()),
        lambda it: type(it).model_validate_json(it.model_dump_json()),
        lambda it: type(it)(**it.model_dump(exclude_defaults=True)),
    ],
    ids=["pickle", "copy", "deepcopy", "model_copy", "deep_model_copy", "dump", "json", "constructor"],
)
def test_copies_carry_the_configuration_and_never_the_weights(fake: FakeRuntime, rebuild: Callable[[Any], Any]) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3, dim=16, instruction="Find planets")
    reranker = Qwen3Reranker(fake.reranker, top_n=2, instruction="Is it a planet?")
    vector, scores = embeddings.embed_query("a"), reranker.score([("red", "a red dot")])
    assert len(pickle.dumps(embeddings)) < 3000
    twin, other = rebuild(embeddings), rebuild(reranker)
    assert (twin, other) == (embeddings, reranker)
    assert (hash(twin), hash(other)) == (hash(embeddings), hash(reranker))
    assert twin.embed_query("a") == vector
    assert other.score([("red", "a red dot")]) == scores
    assert other.top_n == 2
    assert fake.texts[-1] == "Instruct: Find planets\nQuery:a"
    assert fake.loads == 2


def test_model_copy_with_an_update_changes_what_is_computed_and_checks_it(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    assert len(embeddings.model_copy(update={"dim": 16}).embed_query("a")) == 16
    with pytest.raises(ArgumentError, match="dim=7"):
        embeddings.model_copy(update={"dim": 7})
    reranker = Qwen3Reranker(fake.reranker, instruction="x").model_copy(update={"top_n": 1})
    assert (reranker.top_n, reranker.instruction, reranker.reranker.settings.instruction) == (1, "x", "x")


def test_other_configurations_are_not_equal(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    assert embeddings == Qwen3Embeddings(fake.qwen3)
    assert embeddings != embeddings.with_dim(16)
    assert embeddings != GemmaEmbeddings(fake.qwen3)
    assert embeddings != "Qwen3Embeddings"


def test_repr_is_short_and_holds_no_secret(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    embeddings = Qwen3Embeddings("embrief/hash", dim=64)
    assert repr(embeddings) == "Qwen3Embeddings(model='embrief/hash', dim=64)"
    assert repr(Qwen3Reranker(top_n=3)) == "Qwen3Reranker(model='Qwen/Qwen3-Reranker-0.6B', top_n=3)"
    assert "hf_secret" not in f"{embeddings!r} {embeddings} {embeddings.model_dump_json()} {dumpd(embeddings)}"


def test_a_pydantic_model_can_hold_them(fake: FakeRuntime) -> None:
    class Pipeline(BaseModel):
        embeddings: Qwen3Embeddings
        reranker: Qwen3Reranker

    pipeline = Pipeline.model_validate(
        {"embeddings": {"model": fake.qwen3, "dim": 16}, "reranker": {"model": fake.reranker, "top_n": 1}}
    )
    assert len(pipeline.embeddings.embed_query("a")) == 16
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline
    assert Pipeline.model_json_schema()["$defs"]["Qwen3Embeddings"]["additionalProperties"] is False
