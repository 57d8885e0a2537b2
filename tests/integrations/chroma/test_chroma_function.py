"""The embedding functions by themselves: arguments, prompts, roles, vectors, errors, threads and event loops."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from chromadb.api.types import validate_embedding_function

import embrief.errors
from chroma_embrief import GemmaEmbeddingFunction, Qwen3EmbeddingFunction, Qwen3VLEmbeddingFunction
from embrief import ArgumentError, ArgumentTypeError, Embedder, NonFiniteVectorError, Registry, UnknownModelError
from embrief.runtimes.hashing import HashBackend
from embrief.testing import FakeRuntime

EVERY = pytest.mark.parametrize("kind", [Qwen3EmbeddingFunction, GemmaEmbeddingFunction, Qwen3VLEmbeddingFunction])
COMMIT = "a" * 40


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


def test_defaults_are_the_published_models():
    assert Qwen3EmbeddingFunction().get_config()["model"] == "Qwen/Qwen3-Embedding-0.6B"
    assert GemmaEmbeddingFunction().get_config()["model"] == "google/embeddinggemma-300m"


def test_model_is_the_first_positional_argument_and_the_keyword_model_name(fake):
    assert Qwen3EmbeddingFunction(fake.qwen3) == Qwen3EmbeddingFunction(model_name=fake.qwen3)


@EVERY
def test_chroma_accepts_the_call_signature(kind):
    validate_embedding_function(kind("embrief/hash"))


def test_facade_keywords_reach_the_facade(fake, tmp_path):
    given = {
        "dim": 16, "instruction": "Find", "normalize": False, "device": "cpu", "dtype": "float32", "max_tokens": 9,
        "truncate": "silent", "batch_tokens": 7, "cache_dir": str(tmp_path), "local_files_only": True,
    }  # fmt: skip
    settings = Qwen3EmbeddingFunction(fake.qwen3, **given).embedder.settings
    assert {key: getattr(settings, key) for key in given} == given
    assert GemmaEmbeddingFunction(fake.gemma, task="clustering").embedder.settings.task == "clustering"


@EVERY
def test_an_unknown_keyword_is_an_error(kind):
    with pytest.raises(TypeError, match="batchsize"):
        kind("embrief/hash", batchsize=3)


def test_a_facade_that_exists_is_used_as_it_is(fake):
    embedder = Embedder(fake.qwen3, dim=16)
    assert Qwen3EmbeddingFunction(embedder=embedder).embedder is embedder


def test_a_facade_beside_other_arguments_is_an_error(fake):
    embedder = Embedder(fake.qwen3)
    with pytest.raises(ArgumentError, match="leave out dim"):
        Qwen3EmbeddingFunction(embedder=embedder, dim=16)
    with pytest.raises(ArgumentError, match="leave out model_name"):
        Qwen3EmbeddingFunction(fake.qwen3, embedder=embedder)


def test_a_facade_of_another_type_is_an_error():
    with pytest.raises(ArgumentTypeError, match="not str"):
        Qwen3EmbeddingFunction(embedder="Qwen/Qwen3-Embedding-0.6B")


def test_a_wrong_name_is_refused_at_construction():
    with pytest.raises(UnknownModelError, match="embeddinggemma-300m"):
        GemmaEmbeddingFunction("google/embedding-gemma-300m")


@pytest.mark.parametrize("revision", [None, "main", "abc123"])
def test_a_hub_id_without_a_full_commit_is_refused(revision):
    with pytest.raises(ArgumentError, match="full commit id"):
        Qwen3EmbeddingFunction("someone/some-model", revision=revision)


def test_a_recorded_model_on_a_branch_is_refused():
    with pytest.raises(ArgumentError, match="revision='main'"):
        Qwen3EmbeddingFunction(revision="main")


def test_queries_and_documents_get_their_own_prompts(fake):
    qwen3, gemma = Qwen3EmbeddingFunction(fake.qwen3), GemmaEmbeddingFunction(fake.gemma)
    qwen3(["a document"])
    qwen3.embed_query(["a query"])
    gemma(["a document"])
    gemma.embed_query(input=["a query"])
    assert fake.texts == [
        "a document",
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:a query",
        "title: none | text: a document",
        "task: search result | query: a query",
    ]


def test_per_call_instruction_and_task_win(fake):
    function = Qwen3EmbeddingFunction(fake.qwen3, instruction="Constructor")
    function.embed_query(["q"], instruction="Call")
    function.embed_query(["q"], instruction="")
    function.with_instruction("View").embed_query(["q"])
    function.embed_query(["q"])
    GemmaEmbeddingFunction(fake.gemma).embed_query(["q"], task="fact_checking")
    assert fake.texts == [
        "Instruct: Call\nQuery:q",
        "q",
        "Instruct: View\nQuery:q",
        "Instruct: Constructor\nQuery:q",
        "task: fact checking | query: q",
    ]
    assert fake.loads == 2


def test_titles_reach_gemma(fake):
    GemmaEmbeddingFunction(fake.gemma).embed_documents(["one", "two"], titles=["First", None])
    assert fake.texts == ["title: First | text: one", "title: none | text: two"]


@EVERY
def test_vectors_are_lists_of_float32_arrays_equal_to_the_core(kind):
    function, embedder = kind("embrief/hash", dim=32), Embedder("embrief/hash", dim=32)
    for vectors, expected in (
        (function(["a b", "c"]), embedder.embed_documents(["a b", "c"])),
        (function.embed_query(["a b", "c"]), embedder.embed_queries(["a b", "c"])),
    ):
        assert type(vectors) is list
        assert [(type(v), v.dtype, v.shape) for v in vectors] == [(np.ndarray, np.float32, (32,))] * 2
        np.testing.assert_array_equal(np.stack(vectors), expected)


def test_one_query_is_never_a_flat_array():
    vectors = Qwen3EmbeddingFunction("embrief/hash", dim=32).embed_query(["one"])
    assert type(vectors) is list
    assert vectors[0].shape == (32,)


def test_an_empty_document_is_embedded():
    assert Qwen3EmbeddingFunction("embrief/hash", dim=32)([""])[0].shape == (32,)


def test_a_bare_string_or_an_image_is_an_error():
    function = Qwen3EmbeddingFunction("embrief/hash")
    with pytest.raises(ArgumentTypeError, match="list of strings"):
        function.embed_query("planet")
    with pytest.raises(ArgumentTypeError, match=r"texts\[0\] holds an image"):
        function([np.zeros((2, 2, 3), np.uint8)])


def test_a_nan_query_is_an_error_where_chroma_would_find_nothing(monkeypatch, chroma_client):
    function = Qwen3EmbeddingFunction("embrief/hash", dim=32)
    collection = chroma_client.create_collection("planets", embedding_function=function)
    collection.add(ids=["a"], documents=["Mars is red."])
    run = HashBackend.run

    def broken(self, texts, options):
        encoded = run(self, texts, options)
        encoded.array("dense")[:, 0] = np.nan
        return encoded

    monkeypatch.setattr(HashBackend, "run", broken)
    with pytest.raises(NonFiniteVectorError):
        collection.query(query_texts=["red"])


def test_constructing_loads_nothing(fake):
    function = Qwen3EmbeddingFunction(fake.qwen3)
    function.get_config()
    function.is_legacy()
    assert function.space.dim == 64
    assert fake.loads == 0


def test_eight_threads_load_once_and_never_overlap(fake):
    fake.delay = 0.02
    function = Qwen3EmbeddingFunction(fake.qwen3)
    start = threading.Barrier(8)

    def ask(number):
        start.wait()
        return function.embed_query([f"query {number}"])[0]

    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(ask, range(8)))
    assert fake.loads == 1
    assert not fake.overlapped
    for number, vector in enumerate(vectors):
        np.testing.assert_array_equal(vector, function.embed_query([f"query {number}"])[0])


async def test_async_twins_keep_the_event_loop_free(fake):
    fake.delay = 0.3
    function = GemmaEmbeddingFunction(fake.gemma)
    beats = []

    async def heart():
        while True:
            beats.append(time.perf_counter())
            await asyncio.sleep(0.01)

    task = asyncio.create_task(heart())
    queries = await function.aembed_query(["q"], instruction="find")
    documents = await function.aembed_documents(["d"], titles=["T"])
    task.cancel()
    assert fake.texts == ["task: find | query: q", "title: T | text: d"]
    assert type(queries) is list
    assert documents[0].dtype == np.float32
    assert max(np.diff(beats)) < 0.15
    assert threading.main_thread().name not in fake.threads


def test_pickle_and_deepcopy_carry_the_configuration_only(fake):
    function = Qwen3EmbeddingFunction(fake.qwen3, instruction="Find", dim=32)
    function.embed_query(["load it"])
    data = pickle.dumps(function)
    assert len(data) < 3000
    for twin in (pickle.loads(data), copy.deepcopy(function)):
        assert twin == function
        assert twin.embedder.settings == function.embedder.settings


def test_equality_and_hash_follow_the_configuration(fake):
    one, same = Qwen3EmbeddingFunction(fake.qwen3), Qwen3EmbeddingFunction(fake.qwen3, device="cpu")
    assert one == same
    assert hash(one) == hash(same)
    assert one != Qwen3EmbeddingFunction(fake.qwen3, instruction="Other")
    assert one != GemmaEmbeddingFunction(fake.qwen3)


def test_repr_names_what_matters(fake):
    assert repr(Qwen3EmbeddingFunction("hash", dim=8, instruction="")) == (
        "Qwen3EmbeddingFunction('embrief/hash', dim=8, instruction='')"
    )


def _all_errors():
    kinds = [value for value in vars(embrief.errors).values() if isinstance(value, type)]
    return [kind for kind in kinds if issubclass(kind, embrief.errors.EmbriefError)]


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_survives_chromas_rewriting_of_args(kind, fake, chroma_client):
    extra = {
        "InputTooLongError": {"index": 0, "tokens": 9, "limit": 8},
        "ItemFailedError": {"index": 0},
        "NonFiniteVectorError": {"index": 0},
        "OutOfMemoryError": {"index": 0, "tokens": 9},
        "WrongKindError": {"use": "a reranker"},
    }

    def error():
        return kind("what happened", **extra.get(kind.__name__, {}))

    def fail(texts):
        raise error()

    function = Qwen3EmbeddingFunction(fake.qwen3)
    collection = chroma_client.create_collection("errors", embedding_function=function)
    fake.fault = fail
    for call, where in (
        (lambda: collection.add(ids=["a"], documents=["a"]), "add"),
        (lambda: collection.query(query_texts=["a"]), "query"),
    ):
        with pytest.raises(kind) as caught:
            call()
        # ImportError keeps its message apart from its arguments.
        assert str(caught.value) == str(error()) + (f" in {where}." if not issubclass(kind, ImportError) else "")


@pytest.mark.parametrize("name", ["mine", "hash"])
def test_a_model_that_only_a_configuration_knows_cannot_be_kept(name):
    with Registry() as registry:
        registry.register(name, provider="http-simple", base_url="http://127.0.0.1:1", model_id="x", dim=8)
        with pytest.raises(ArgumentError, match=f"a collection cannot keep a model of a configuration, and '{name}'"):
            Qwen3EmbeddingFunction(embedder=registry.get(name))
