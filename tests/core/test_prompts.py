"""The bytes that reach the tokenizer, for every family, task and role (golden strings from the model cards)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embrief import ArgumentError, ArgumentTypeError, Embedder, EmbeddingSpec, ModelSpec, Reranker
from embrief.discovery.plugins import catalog
from embrief.facts.records import built_in_models

# What the model cards prescribe, for a query "Q", a document "D", a title "T" and an instruction "I"; no code
# makes it from the records.
GOLDENS = {
    model: golden
    for golden in json.loads((Path(__file__).parent / "goldens" / "prompts.json").read_text("utf-8"))
    for model in golden["models"]
}
QWEN = "Qwen/Qwen3-Embedding-0.6B"
GEMMA = "google/embeddinggemma-300m"
AWKWARD = [
    "",
    " leading",
    "trailing ",
    "{title} {instruction} {query} {0} %s $A",
    "a\nb\r\n\tc",
    "日本語 🙂 e\u0301",
]


def test_every_record_has_golden_prompts() -> None:
    """Adding a model means adding what its card prescribes to goldens/prompts.json."""
    assert set(GOLDENS) == {spec.id for spec in built_in_models()}


@pytest.mark.parametrize("spec", built_in_models(), ids=lambda spec: spec.id)
@pytest.mark.filterwarnings("ignore::embrief.LicenseWarning")
def test_the_prompts_of_every_record(spec: ModelSpec, facade_of: Callable[..., Embedder | Reranker]) -> None:
    golden = GOLDENS[spec.id]
    facade = facade_of(spec)
    if isinstance(facade, Embedder):
        check_embedder(facade, golden)
    else:
        check_reranker(facade, golden)


def check_embedder(embedder: Embedder, golden: dict) -> None:
    tasks = embedder.spec.prompts.tasks
    assert [task.name for task in tasks] == list(golden["tasks"]), "the first is the default"
    for name, expected in golden["tasks"].items():
        assert embedder.render("Q", role="query", task=name) == expected["query"]
        assert embedder.render("D", role="document", task=name) == expected["document"]
        if "titled" in expected:
            assert embedder.render("D", role="document", task=name, title="T") == expected["titled"]
        else:
            with pytest.raises(ArgumentError, match="no place for a title"):
                embedder.render("D", role="document", task=name, title="T")
    default = golden["tasks"][tasks[0].name]
    assert embedder.render("Q", role="query") == default["query"]
    assert embedder.render("D", role="document") == default["document"]
    if "instructed" in golden:
        assert embedder.render("Q", role="query", instruction="I") == golden["instructed"]
    else:
        with pytest.raises(ArgumentError, match="not trained with instructions"):
            embedder.with_instruction("I")


def check_reranker(reranker: Reranker, golden: dict) -> None:
    pair = reranker.render("Q", "D")
    assert [pair.head, pair.body, pair.tail] == golden["pair"]
    if "instructed" in golden:
        assert reranker.render("Q", "D", instruction="I").head == golden["instructed"]
    else:
        with pytest.raises(ArgumentError, match="no place for an instruction"):
            reranker.with_instruction("I")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("Retrieval-query", "retrieval"), ("Retrieval-document", "retrieval"), ("Retrieval", "retrieval"),
        ("Reranking", "retrieval"), ("query", "retrieval"), ("document", "retrieval"),
        ("BitextMining", "bitext_mining"), ("Clustering", "clustering"), ("Classification", "classification"),
        ("MultilabelClassification", "classification"), ("InstructionRetrieval", "code_retrieval"),
        ("PairClassification", "sentence_similarity"), ("STS", "sentence_similarity"),
        ("Summarization", "summarization"),
    ],
)  # fmt: skip
def test_every_prompt_name_of_the_gemma_card_is_known(name: str, task: str) -> None:
    embedder = Embedder(GEMMA)
    assert embedder.render("q", role="query", task=name) == embedder.render("q", role="query", task=task)


def test_every_record_keeps_the_default_instruction_in_its_default_prompt() -> None:
    for spec in catalog().models.values():
        if isinstance(spec, EmbeddingSpec) and spec.prompts.default_instruction:
            assert spec.prompts.default_instruction in spec.prompts.tasks[0].query.head


def test_precedence_call_over_constructor_over_record() -> None:
    default = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:q"
    plain, told = Embedder(QWEN), Embedder(QWEN, instruction="From the constructor")
    assert plain.render("q", role="query") == default
    assert told.render("q", role="query") == "Instruct: From the constructor\nQuery:q"
    assert told.render("q", role="query", instruction="From the call") == "Instruct: From the call\nQuery:q"
    assert told.render("q", role="query", task="sentence_similarity").startswith("Instruct: Retrieve semantically")
    assert told.render("q", role="query", instruction=None) == told.render("q", role="query"), "None is 'not given'"
    assert told.render("q", role="query", instruction="") == "q", "'' is 'none'"
    assert Embedder(QWEN, instruction="").render("q", role="query") == "q"
    assert Embedder(QWEN, instruction="").render("q", role="query", instruction="X") == "Instruct: X\nQuery:q"
    tasked = Embedder(GEMMA, task="clustering")
    assert tasked.render("d", role="document") == "task: clustering | query: d"
    assert tasked.render("q", role="query", instruction="own words") == "task: own words | query: q"


def test_an_instruction_beside_a_task_leaves_the_documents_alone() -> None:
    symmetric = Embedder(GEMMA, task="sentence_similarity")
    told = symmetric.with_instruction("own words")
    assert told.render("q", role="query") == "task: own words | query: q"
    assert told.render("d", role="document") == symmetric.render("d", role="document")
    assert told.space == symmetric.space
    assert told.settings == Embedder(GEMMA, task="sentence_similarity", instruction="own words").settings
    assert told.with_task("clustering").render("q", role="query") == "task: clustering | query: q"


def test_an_instruction_never_reaches_a_document() -> None:
    told = Embedder(QWEN, instruction="Only for queries")
    assert told.render("d", role="document") == "d"
    with pytest.raises(ArgumentError, match="is for queries"):
        told.encode(["d"], role="document", instruction="x")


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_passes_unaltered(text: str) -> None:
    qwen, gemma, reranker = Embedder(QWEN), Embedder(GEMMA), Reranker()
    assert qwen.render(text, role="document") == text
    assert qwen.render(text, role="query", instruction="{query} {instruction}") == (
        "Instruct: {query} {instruction}\nQuery:" + text
    )
    assert gemma.render(text, role="document", title="{title}{text}") == "title: {title}{text} | text: " + text
    pair = reranker.render("{instruction}{query}" + text, text, instruction="{query}")
    assert f"<Instruct>: {{query}}\n<Query>: {{instruction}}{{query}}{text}\n<Document>: " in pair.head
    assert pair.body == text


def test_rerank_instruction_precedence() -> None:
    reranker = Reranker(instruction="From the constructor")
    assert "<Instruct>: From the constructor\n" in reranker.render("q", "d").head
    assert "<Instruct>: From the call\n" in reranker.render("q", "d", instruction="From the call").head
    assert "<Instruct>: \n" in reranker.render("q", "d", instruction="").head
    assert "Given a web search" in reranker.with_instruction(None).render("q", "d").head


def test_a_classifier_takes_a_query_as_it_is_and_no_instruction() -> None:
    reranker = Reranker("BAAI/bge-reranker-v2-m3")
    pair = reranker.render("q {query}", "d")
    assert (pair.head, pair.body, pair.tail) == ("q {query}", "d", "")
    with pytest.raises(ArgumentError, match="no place for an instruction"):
        reranker.score("q", ["d"], instruction="x")


def test_choices_that_cannot_be_followed() -> None:
    with pytest.raises(ArgumentError, match="give one"):
        Embedder(QWEN).embed_query("q", instruction="a", task="retrieval")
    with pytest.raises(ArgumentError, match=r"has no task 'retreival'; use one of .* did you mean 'retrieval'"):
        Embedder(QWEN, task="retreival")
    with pytest.raises(ArgumentError, match="no place for a title"):
        Embedder(QWEN).embed_documents(["d"], titles=["T"])
    with pytest.raises(ArgumentError, match="a query has none"):
        Embedder(GEMMA).encode(["q"], role="query", titles=["T"])
    with pytest.raises(ArgumentTypeError, match="instruction is a string or None"):
        Embedder(QWEN).embed_query("q", instruction=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="role='doc'"):
        Embedder(QWEN).encode(["q"], role="doc")  # type: ignore[arg-type]


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Embedder(QWEN).spec.dim = 1  # type: ignore[misc]
