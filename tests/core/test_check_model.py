"""`embrief.testing.check_model`: right records pass, each kind of wrong one is refused with its reason."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from embrief import (
    ArgumentError,
    Embedder,
    EmbeddingPrompts,
    EmbeddingSpec,
    Reranker,
    RerankerSpec,
    Task,
    Template,
    WeightsUnavailableError,
    plugins,
)
from embrief.facts.records import built_in_models
from embrief.facts.values import Dense
from embrief.runtimes.built_in import Engine
from embrief.runtimes.engine import EngineEmbedder
from embrief.testing import FakeRuntime, check_model

FACTS = {"license": "apache-2.0", "source": "this test"}


@pytest.fixture
def qwen3(qwen3_folder: Path) -> EmbeddingSpec:
    return replace(Embedder(qwen3_folder).spec, id="acme/qwen3", revision="v1", **FACTS)


@pytest.fixture
def reranker(reranker_folder: Path) -> RerankerSpec:
    return replace(Reranker(reranker_folder).spec, id="acme/reranker", revision="v1", **FACTS)


def test_right_records_pass(qwen3: EmbeddingSpec, qwen3_folder: Path, gemma_folder: Path) -> None:
    check_model(qwen3, qwen3_folder)
    check_model(qwen3, str(qwen3_folder))
    check_model(replace(qwen3, folder=qwen3_folder))
    check_model(replace(Embedder(gemma_folder).spec, id="acme/gemma", revision="v1", **FACTS), gemma_folder)


def test_right_rerankers_pass(reranker: RerankerSpec, reranker_folder: Path, classifier_folder: Path) -> None:
    check_model(reranker, reranker_folder)
    check_model(replace(Reranker(classifier_folder).spec, revision="v1", **FACTS), classifier_folder)


def test_a_published_model_and_those_that_come_with_embrief(minilm_folder: Path) -> None:
    check_model(Embedder("sentence-transformers/all-MiniLM-L6-v2").spec, minilm_folder)
    for spec in built_in_models():
        if spec.folder is not None or spec.architecture == "hash":
            check_model(spec)


def test_every_built_in_record_is_sound_by_itself() -> None:
    """The files are asked for after that, of models that have some here."""
    for spec in built_in_models():
        if spec.elsewhere is not None:
            check_model(spec)
        elif spec.architecture != "hash":
            with pytest.raises(WeightsUnavailableError):
                check_model(spec, "no such folder")


def test_a_record_needs_no_registration() -> None:
    with FakeRuntime() as fake:
        spec = replace(Embedder(fake.gemma).spec, id="never/registered")
        check_model(spec)
        assert plugins().catalog.find_model("never/registered") is None


def task(query: str) -> Task:
    return Task("retrieval", Template(query), Template())


QWEN_TASK = task("Instruct: Find\nQuery:")
FIRST = Embedder("Qwen/Qwen3-Embedding-0.6B").spec.prompts.tasks[0]


def prompts(*tasks: Task, **rest: object) -> dict[str, object]:
    return {"prompts": EmbeddingPrompts(tasks=tasks, **rest)}


WRONG = {
    "hidden_size": ({"hidden_size": 64}, "hidden_size is 48, recorded is 64"),
    "dim": ({"dim": 32, "mrl": ()}, "dim is 48, recorded is 32"),
    "pooling": ({"pooling": "mean"}, "pooling is 'last', recorded is 'mean'"),
    "architecture": ({"architecture": "gemma3_text", "final_token": None}, "model_type is 'qwen3'"),
    "query prompt": (prompts(task("query: ")), "the prompt 'query' is 'Instruct: "),
    "document prompt": (prompts(replace(FIRST, document=Template("text: "))), "the prompt 'document' is '', recorded"),
    "final token": ({"final_token": "<|im_end|>"}, "im_end"),
    "context": ({"context": 2048, "max_tokens": 1024}, "context=2048, and its config.json has 1024 positions"),
    "more tokens than context": ({"max_tokens": 1025, "context": 1024}, "max_tokens=1025 is more than context=1024"),
    "wide mrl": ({"mrl": (16, 96)}, "widths that are not between 1 and dim=48"),
    "no revision": ({"revision": ""}, "it has no revision"),
    "no source": ({"source": ""}, "it has no source"),
    "no licence": ({"license": ""}, "it has no license"),
    "no task": (prompts(), "it has no task"),
    "two tasks of one name": (
        prompts(QWEN_TASK, Task("sts", Template(), Template(), aliases=("retrieval",))), "two tasks have",
    ),
    "no place in titled": (prompts(replace(task(""), titled=Template("title: "))), "needs {title} once"),
    "a place in a query": (prompts(task("Instruct: {instruction}")), "a place that nothing fills"),
    "no place in instructed": (prompts(QWEN_TASK, instructed=Template("Instruct: ")), "needs {instruction} once"),
    "another default": (
        prompts(QWEN_TASK, instructed=Template("Instruct: {instruction}\nQuery:"), default_instruction="Look"),
        "is not the first task's query prompt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_record_is_refused(what: str, qwen3: EmbeddingSpec, qwen3_folder: Path) -> None:
    changes, message = WRONG[what]
    with pytest.raises(AssertionError) as failure:
        check_model(replace(qwen3, **changes), qwen3_folder)
    assert message in str(failure.value)


WRONG_RERANKERS = {
    "no place for the query": ({"template": Template("<Query>: ")}, "needs {query} once"),
    "one answer": ({"false_token": "yes"}, "true_token and false_token are the same"),
    "no place for the instruction": (
        {"template": Template("{query}"), "default_instruction": "Find"}, "has no place {instruction}",
    ),
    "an answer of many tokens": ({"true_token": "affirmative"}, "affirmative"),
    "architecture": ({"architecture": "bert"}, "model_type is 'qwen3', recorded is 'bert'"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_RERANKERS)
def test_a_wrong_reranker_is_refused(what: str, reranker: RerankerSpec, reranker_folder: Path) -> None:
    changes, message = WRONG_RERANKERS[what]
    with pytest.raises(AssertionError) as failure:
        check_model(replace(reranker, **changes), reranker_folder)
    assert message in str(failure.value)


def test_files_of_another_kind(
    qwen3: EmbeddingSpec, reranker: RerankerSpec, tmp_path: Path, qwen3_folder: Path
) -> None:
    with pytest.raises(AssertionError, match="describes an embedder"):
        check_model(reranker, qwen3_folder)
    bare = shutil.copytree(qwen3_folder, tmp_path / "bare")
    (bare / "modules.json").unlink()
    with pytest.raises(AssertionError, match="the pooling is a guess"):
        check_model(qwen3, bare)


def test_files_that_are_missing(qwen3: EmbeddingSpec, tmp_path: Path, qwen3_folder: Path) -> None:
    with pytest.raises(ArgumentError, match="give the folder"):
        check_model(qwen3)
    with pytest.raises(WeightsUnavailableError):
        check_model(qwen3, tmp_path / "nothing")
    cut = shutil.copytree(qwen3_folder, tmp_path / "cut")
    (cut / "model.safetensors").unlink()
    with pytest.raises(WeightsUnavailableError, match="safetensors"):
        check_model(qwen3, cut)


DISAGREE = "the runtimes differs and sentence-transformers give different results for acme/qwen3"


@pytest.mark.parametrize(
    ("fault", "message"),
    [("prompt", DISAGREE), ("cut", DISAGREE), ("order", "the runtime must give equal texts with equal vectors")],
)
def test_runtimes_that_do_something_else(fault: str, message: str, qwen3: EmbeddingSpec, qwen3_folder: Path) -> None:
    """A changed prompt or cut keeps the contract: it shows only beside another runtime."""

    class Differs(EngineEmbedder):
        def prepare(self, inputs, options):  # type: ignore[no-untyped-def]
            if fault == "prompt":
                inputs = [replace(item, head=item.head.removeprefix("Instruct: ")) for item in inputs]
            elif fault == "cut":
                few = options.max_tokens < 20
                inputs = [replace(item, body=item.body[-options.max_tokens :]) if few else item for item in inputs]
            return super().prepare(inputs, options)

        def run_rows(self, rows, kinds):  # type: ignore[no-untyped-def]
            values = super().run_rows(rows, kinds)
            return {"dense": Dense(values["dense"].array[::-1])} if fault == "order" else values

    class Other(Engine):
        name = "differs"
        preference = Engine.preference + 1

        def load(self, request):  # type: ignore[no-untyped-def]
            return Differs(request)

    catalog = plugins().catalog
    engine = catalog.backends["engine"]
    catalog.backends.pop("engine")
    catalog.add_backend(Other())
    try:
        with pytest.raises(AssertionError, match=message):
            check_model(qwen3, qwen3_folder)
    finally:
        catalog.remove("differs", [])
        catalog.backends = {"engine": engine, **catalog.backends}


def test_only_facts_of_the_record_are_read(qwen3: EmbeddingSpec, qwen3_folder: Path, tmp_path: Path) -> None:
    """A folder's own query prompt counts: a record with another one describes another model."""
    other = shutil.copytree(qwen3_folder, tmp_path / "other")
    file = other / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "search: ", "document": ""}}), "utf-8")
    with pytest.raises(AssertionError, match="the prompt 'query' is 'search: '"):
        check_model(qwen3, other)
