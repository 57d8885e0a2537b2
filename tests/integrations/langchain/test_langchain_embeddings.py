"""What reaches the model through LangChain's methods, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from embrief import ArgumentError, ArgumentTypeError, Embedder, InputTooLongError
from embrief.testing import FakeRuntime
from langchain_embrief import GemmaEmbeddings, Qwen3Embeddings

QWEN_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
GEMMA_QUERY = "task: search result | query: "


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


def test_qwen3_roles_reach_the_model(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    embeddings.embed_query("red planet")
    embeddings.embed_documents(["Mars", "Venus"])
    assert fake.texts == [f"{QWEN_QUERY}red planet", "Mars", "Venus"]


def test_gemma_roles_titles_and_tasks_reach_the_model(fake: FakeRuntime) -> None:
    embeddings = GemmaEmbeddings(fake.gemma)
    embeddings.embed_query("red planet")
    embeddings.embed_query("red planet", task="question_answering")
    embeddings.embed_documents(["Mars is red", "Venus"], titles=["Mars", None])
    embeddings.embed_documents(["Mars"], task="clustering")
    assert fake.texts == [
        f"{GEMMA_QUERY}red planet",
        "task: question answering | query: red planet",
        "title: Mars | text: Mars is red",
        "title: none | text: Venus",
        "task: clustering | query: Mars",
    ]


async def test_async_methods_send_the_same_texts(fake: FakeRuntime) -> None:
    qwen, gemma = Qwen3Embeddings(fake.qwen3), GemmaEmbeddings(fake.gemma)
    assert await qwen.aembed_query("a", instruction="Find b") == qwen.embed_query("a", instruction="Find b")
    assert await qwen.aembed_documents(["a"]) == qwen.embed_documents(["a"])
    assert await gemma.aembed_query("a", task="clustering") == gemma.embed_query("a", task="clustering")
    titled = await gemma.aembed_documents(["a"], titles=["T"])
    assert titled == gemma.embed_documents(["a"], titles=["T"])
    assert (await gemma.aembed_documents(["a"], task="clustering")) == gemma.embed_documents(["a"], task="clustering")
    assert fake.texts[0::2] == fake.texts[1::2]
    assert fake.texts[0] == "Instruct: Find b\nQuery:a"


@pytest.mark.parametrize("text", ["two\nlines\r\n\ttab", "  blanks  ", "{braces} %s $A", "日本語 🙂", "", "\n"])
def test_newlines_and_everything_else_pass_unaltered(fake: FakeRuntime, text: str) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    embeddings.embed_query(text)
    embeddings.embed_documents([text])
    assert fake.texts == [QWEN_QUERY + text, text]


def test_instruction_of_a_call_wins_and_is_for_that_call_only(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3, instruction="Find planets")
    embeddings.embed_query("a", instruction="Find moons")
    embeddings.embed_query("a", instruction="")
    embeddings.embed_query("a")
    assert fake.texts == ["Instruct: Find moons\nQuery:a", "a", "Instruct: Find planets\nQuery:a"]


def test_with_instruction_reaches_a_vector_store_and_its_retriever(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3).with_instruction("Find planets")
    store = InMemoryVectorStore(embeddings)
    store.add_documents([Document("Mars")])
    store.similarity_search("red")
    store.as_retriever().invoke("blue")
    assert fake.texts == ["Mars", "Instruct: Find planets\nQuery:red", "Instruct: Find planets\nQuery:blue"]


def test_views_share_one_loaded_model_and_leave_the_original_alone(fake: FakeRuntime) -> None:
    embeddings = GemmaEmbeddings(fake.gemma)
    views = [embeddings.with_instruction("x"), embeddings.with_dim(16), embeddings.with_task("clustering")]
    vectors = [view.embed_query("a") for view in (embeddings, *views)]
    assert fake.loads == 1
    assert [len(vector) for vector in vectors] == [64, 64, 16, 64]
    assert [type(view) for view in views] == [GemmaEmbeddings] * 3
    assert fake.texts == [
        f"{GEMMA_QUERY}a", "task: x | query: a", f"{GEMMA_QUERY}a", "task: clustering | query: a",
    ]  # fmt: skip
    assert (views[1].dim, embeddings.dim) == (16, None)


def test_vectors_are_python_floats_equal_to_the_core(fake: FakeRuntime) -> None:
    embeddings, core = Qwen3Embeddings(fake.qwen3, dim=16), Embedder(fake.qwen3, dim=16)
    query, documents = embeddings.embed_query("Mars"), embeddings.embed_documents(["Mars", "Venus", "Mars"])
    assert {type(value) for row in (query, *documents) for value in row} == {float}
    assert [type(row) for row in (query, documents, *documents)] == [list] * 5
    np.testing.assert_array_equal(np.float32(query), core.embed_query("Mars"))
    np.testing.assert_array_equal(np.float32(documents), core.embed_documents(["Mars", "Venus", "Mars"]))


async def test_no_texts_give_no_vectors(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    assert embeddings.embed_documents([]) == []
    assert await embeddings.aembed_documents([]) == []


def test_wrong_texts_are_refused_with_their_index(fake: FakeRuntime) -> None:
    embeddings = GemmaEmbeddings(fake.gemma)
    with pytest.raises(ArgumentTypeError, match="list of strings"):
        embeddings.embed_documents("one string")
    with pytest.raises(ArgumentTypeError) as caught:
        embeddings.embed_documents(["a", None])  # type: ignore[list-item] # the mistake under test
    assert caught.value.index == 1
    with pytest.raises(ArgumentTypeError, match="one string"):
        embeddings.embed_query(["a"])  # type: ignore[arg-type] # the mistake under test
    with pytest.raises(ArgumentError, match="2 titles for 1"):
        embeddings.embed_documents(["a"], titles=["x", "y"])
    with pytest.raises(TypeError):
        embeddings.embed_query("a", "Find b")  # type: ignore[misc] # options are keyword-only
    assert fake.texts == []


async def test_a_too_long_text_is_named_by_its_index_in_the_call() -> None:
    def fault(texts: Sequence[str]) -> None:
        index = texts.index("long")
        raise InputTooLongError(f"text at index {index} is too long", index=index, tokens=9, limit=3)

    with FakeRuntime(fault=fault) as fake, pytest.raises(InputTooLongError) as caught:
        await Qwen3Embeddings(fake.qwen3, truncate="error").aembed_documents(["a", "a", "long"])
    assert caught.value.index == 2


async def test_embeddings_work_as_a_runnable(fake: FakeRuntime) -> None:
    embeddings = Qwen3Embeddings(fake.qwen3)
    runnable = RunnableLambda(embeddings.embed_query, afunc=embeddings.aembed_query)
    assert runnable.invoke("a") == await runnable.ainvoke("a") == embeddings.embed_query("a")
