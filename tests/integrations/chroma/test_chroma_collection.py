"""Collections: reopening, the guard, concurrent rebuilds, and Chroma's traps."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from chromadb.api import types
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.api.types import EmbeddingFunction
from chromadb.utils.embedding_functions import register_embedding_function

from chroma_embrief import (
    GemmaEmbeddingFunction,
    Qwen3EmbeddingFunction,
    open_collection,
    release_models,
    require_same_space,
    restore_configuration,
)
from embrief import ArgumentError, ArgumentTypeError, Embedder, SpaceMismatchError
from embrief.stores import KEY, stamp
from embrief.testing import FakeRuntime

HANGS = 600
"""Seconds after which a process counts as hanging; a busy machine may take minutes."""


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


def _hash(**changes):
    return Qwen3EmbeddingFunction("embrief/hash", **{"dim": 64, **changes})


def _run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:chromadb", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=HANGS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class Foreign(EmbeddingFunction):
    """Somebody else's function."""

    def __init__(self):
        pass

    def __call__(self, input):
        return [np.ones(64, np.float32) for _ in input]

    @staticmethod
    def name():
        return "foreign"

    @staticmethod
    def build_from_config(config):
        return Foreign()

    def get_config(self):
        return {}


REOPEN = """
import json, sys
import chromadb
from chromadb.config import Settings
if sys.argv[2] == "import":
    import chroma_embrief
client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False))
collection = client.get_collection("planets")
answer = {"count": collection.count()}
try:
    found = collection.query(query_texts=["red planet"], n_results=2)
    answer["ids"], answer["distances"] = found["ids"][0], found["distances"][0]
    collection.upsert(ids=["earth"], documents=["Earth is blue."])
    answer["count"] = collection.count()
except ValueError as error:
    answer["error"] = str(error)
print(json.dumps(answer))
"""


@pytest.fixture
def planets(open_client):
    collection = open_collection(open_client(), "planets", _hash())
    collection.add(ids=["mars", "venus"], documents=["Mars is the red planet.", "Venus is bright."])
    return collection


def test_a_new_process_that_imports_the_package_gets_the_same_answers(planets, tmp_path):
    expected = planets.query(query_texts=["red planet"], n_results=2)
    answer = json.loads(_run(REOPEN, tmp_path / "db", "import"))
    assert answer["ids"] == expected["ids"][0] == ["mars", "venus"]
    assert answer["distances"] == pytest.approx(expected["distances"][0])
    assert answer["count"] == 3


def test_a_new_process_that_does_not_import_the_package_is_told_by_chroma(planets, tmp_path):
    answer = json.loads(_run(REOPEN, tmp_path / "db", "without"))
    assert "embrief-qwen3 not found" in answer["error"]
    assert answer["count"] == 2


def test_a_reopened_collection_asks_with_the_persisted_instruction(fake, open_client):
    function = Qwen3EmbeddingFunction(fake.qwen3, instruction="Find {planets}\n")
    open_collection(open_client(), "planets", function).add(ids=["a"], documents=["Mars"])
    reopened = open_client().get_collection("planets")
    fake.texts.clear()
    reopened.query(query_texts=["red"])
    reopened.add(ids=["b"], documents=["Venus"])
    assert fake.texts == ["Instruct: Find {planets}\n\nQuery:red", "Venus"]


def test_a_reopened_collection_keeps_task_dim_and_normalisation(fake, open_client):
    function = GemmaEmbeddingFunction(fake.gemma, task="question_answering", dim=16, normalize=False)
    open_collection(open_client(), "planets", function).add(ids=["a"], documents=["Mars"])
    reopened = open_client().get_collection("planets")
    reopened.query(query_texts=["red"])
    assert fake.texts[-1] == "task: question answering | query: red"
    kept = reopened.configuration["embedding_function"]
    assert kept == function
    np.testing.assert_array_equal(kept.embed_query(["red"]), function.embed_query(["red"]))


def test_rebuilding_thirty_times_per_call_loads_once(fake, open_client):
    open_collection(open_client(), "planets", Qwen3EmbeddingFunction(fake.qwen3))
    assert fake.loads == 0
    reopened = open_client().get_collection("planets")
    for number in range(5):
        reopened.upsert(ids=[str(number)], documents=[f"text {number}"])
        reopened.query(query_texts=["q"])
    assert fake.loads == 1


def test_eight_threads_on_a_reopened_collection_load_once(fake, open_client):
    fake.delay = 0.01
    open_collection(open_client(), "planets", Qwen3EmbeddingFunction(fake.qwen3)).add(
        ids=["a", "b"], documents=["alpha", "beta"]
    )
    release_models()
    before = fake.loads
    reopened = open_client().get_collection("planets")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reopened.query(query_texts=["alpha"])["distances"], range(16)))
    assert all(item == found[0] for item in found)
    assert fake.loads - before <= 1
    assert not fake.overlapped


def test_released_models_load_again(fake, open_client):
    open_collection(open_client(), "planets", Qwen3EmbeddingFunction(fake.qwen3))
    reopened = open_client().get_collection("planets")
    for _ in range(2):
        reopened.query(query_texts=["q"])
        release_models()
    assert fake.loads == 2


def test_two_models_of_the_same_width_are_refused_before_anything_is_embedded(fake, open_client):
    open_collection(open_client(), "planets", Qwen3EmbeddingFunction(fake.qwen3))
    other = Qwen3EmbeddingFunction("embrief/hash", dim=64)
    with pytest.raises(SpaceMismatchError, match=r"collection 'planets'.*model="):
        open_collection(open_client(), "planets", other)
    assert fake.texts == []


@pytest.mark.parametrize("changes", [{"dim": 32}, {"normalize": False}])
def test_another_width_or_normalisation_is_refused(changes, planets, open_client):
    with pytest.raises(SpaceMismatchError, match=next(iter(changes))):
        open_collection(open_client(), "planets", _hash(**changes))


def test_another_document_prompt_is_refused(fake, open_client):
    open_collection(open_client(), "planets", GemmaEmbeddingFunction(fake.gemma))
    with pytest.raises(SpaceMismatchError, match="document_prompt"):
        open_collection(open_client(), "planets", GemmaEmbeddingFunction(fake.gemma, task="clustering"))


def test_another_instruction_device_or_limit_is_the_same_space(fake, open_client):
    open_collection(open_client(), "planets", Qwen3EmbeddingFunction(fake.qwen3)).add(ids=["a"], documents=["a"])
    other = Qwen3EmbeddingFunction(fake.qwen3, instruction="Other", device="cpu", max_tokens=99, task=None)
    open_collection(open_client(), "planets", other).query(query_texts=["q"])
    assert fake.texts[-1] == "Instruct: Other\nQuery:q"


def test_the_guard_works_where_only_chroma_created_the_collection(fake, open_client):
    open_client().create_collection("planets", embedding_function=Qwen3EmbeddingFunction(fake.qwen3))
    open_collection(open_client(), "planets", Qwen3EmbeddingFunction(fake.qwen3))
    with pytest.raises(SpaceMismatchError):
        open_collection(open_client(), "planets", _hash())


def test_a_stamp_of_another_integration_is_respected(open_client):
    space = Embedder("embrief/hash", dim=64).space
    open_client().create_collection("planets", metadata={**stamp(space)}, embedding_function=None)
    open_collection(open_client(), "planets", _hash())
    with pytest.raises(SpaceMismatchError):
        open_collection(open_client(), "planets", _hash(normalize=False))


def test_a_collection_of_another_function_is_refused(open_client):
    foreign = register_embedding_function(Foreign)
    open_client().create_collection("planets", embedding_function=foreign())
    for adopt in (False, True):
        with pytest.raises(SpaceMismatchError, match="belongs to the embedding function 'foreign'"):
            open_collection(open_client(), "planets", _hash(), adopt=adopt)


def test_a_stamp_is_added_to_the_users_metadata(open_client):
    open_collection(open_client(), "planets", _hash(), metadata={"owner": "me"})
    metadata = open_client().get_collection("planets").metadata
    assert metadata["owner"] == "me"
    assert json.loads(metadata[KEY])["model"] == "embrief/hash"


def test_opening_twice_gives_equal_collections_and_keeps_the_documents(planets, open_client):
    again = open_collection(open_client(), "planets", _hash())
    assert again == planets
    assert again.count() == 2


def test_modify_stores_what_it_refuses_and_the_next_opening_notices(planets, open_client):
    with pytest.raises(SpaceMismatchError):
        planets.modify(configuration={"embedding_function": _hash(normalize=False)})
    kept = open_client().get_collection("planets").configuration["embedding_function"]
    assert kept == _hash(normalize=False), "Chroma has learned to check first: simplify the guard"
    with pytest.raises(SpaceMismatchError, match="restore_configuration"):
        open_collection(open_client(), "planets", _hash())
    with pytest.raises(SpaceMismatchError):
        open_collection(open_client(), "planets", _hash(normalize=False))


def test_a_replaced_configuration_can_be_put_back(planets, open_client):
    with pytest.raises(SpaceMismatchError):
        planets.modify(configuration={"embedding_function": _hash(normalize=False)})
    with pytest.raises(SpaceMismatchError):
        restore_configuration(open_client(), "planets", _hash(normalize=False))
    restore_configuration(open_client(), "planets", _hash())
    assert open_collection(open_client(), "planets", _hash()) == planets
    found = open_client().get_collection("planets").query(query_texts=["red planet"], n_results=1)
    assert found["ids"] == [["mars"]]


def test_the_wrong_function_is_never_put_back(planets, open_client):
    with pytest.raises(SpaceMismatchError):
        restore_configuration(open_client(), "planets", _hash(normalize=False))
    assert open_client().get_collection("planets").configuration["embedding_function"] == _hash()


def test_nothing_is_put_back_without_a_proof(open_client):
    open_client().create_collection("planets", embedding_function=_hash())
    with pytest.raises(SpaceMismatchError, match="no stamp"):
        restore_configuration(open_client(), "planets", _hash())


def test_modify_to_another_instruction_is_allowed(fake, open_client):
    collection = open_collection(open_client(), "planets", Qwen3EmbeddingFunction(fake.qwen3))
    collection.modify(configuration={"embedding_function": Qwen3EmbeddingFunction(fake.qwen3, instruction="New")})
    open_client().get_collection("planets").query(query_texts=["q"])
    assert fake.texts == ["Instruct: New\nQuery:q"]


def test_a_tampered_configuration_on_disk_is_refused(planets, open_client, tmp_path):
    import sqlite3

    del planets
    with sqlite3.connect(tmp_path / "db" / "chroma.sqlite3") as database:
        # Which column holds it depends on the version of Chroma.
        known = {row[1] for row in database.execute("pragma table_info(collections)")}
        replaced = 0
        for column in sorted(known & {"config_json_str", "schema_str"}):
            (text,) = database.execute(f"select {column} from collections").fetchone()
            replaced += text.count('"max_tokens":null')
            text = text.replace('"max_tokens":null', '"max_tokens":null,"trust_remote_code":true')
            database.execute(f"update collections set {column} = ?", (text,))
    assert replaced
    SharedSystemClient.clear_system_cache()
    collection = open_client().get_collection("planets")
    with pytest.raises(ValueError, match="trust_remote_code"):
        collection.query(query_texts=["q"])
    with pytest.raises(ArgumentError, match="trust_remote_code"):
        open_collection(open_client(), "planets", _hash())


def test_a_schema_keeps_the_function_too(open_client):
    if not hasattr(types, "Schema"):
        pytest.skip("this chromadb has no schemas")
    schema = types.Schema()
    schema.create_index(config=types.VectorIndexConfig(embedding_function=_hash()))
    open_client().create_collection("planets", schema=schema)
    collection = open_client().get_collection("planets")
    collection.add(ids=["mars", "venus"], documents=["Mars is red.", "Venus is bright."])
    assert collection.query(query_texts=["red"], n_results=1)["ids"] == [["mars"]]
    vector_index = collection.schema.keys["#embedding"].float_list.vector_index.config
    assert (vector_index.embedding_function, vector_index.space) == (_hash(), "cosine")


def test_one_function_too_many_is_an_error(open_client):
    with pytest.raises(ArgumentError, match="pass it once"):
        open_collection(open_client(), "planets", _hash(), configuration={"embedding_function": _hash()})


def test_a_function_that_is_not_ours_is_an_error(open_client):
    with pytest.raises(ArgumentTypeError, match="not function"):
        open_collection(open_client(), "planets", lambda input: input)


def test_an_asynchronous_client_is_an_error_that_says_what_to_do(open_client):
    class AsyncClient:
        async def get_collection(self, name, embedding_function=None):
            """Never called."""

    with pytest.raises(ArgumentTypeError, match="require_same_space"):
        open_collection(AsyncClient(), "planets", _hash())


def test_the_guard_by_itself(planets):
    require_same_space(planets, _hash())
    with pytest.raises(SpaceMismatchError):
        require_same_space(planets, _hash(normalize=False))


def test_a_query_with_an_instruction_of_its_own(fake, open_client):
    function = Qwen3EmbeddingFunction(fake.qwen3)
    collection = open_collection(open_client(), "planets", function)
    collection.add(ids=["a", "b"], documents=["alpha", "beta"])
    found = collection.query(query_embeddings=function.embed_query(["alpha"], instruction="Greek"), n_results=1)
    assert found["ids"] == [["a"]]
    assert fake.texts[-1] == "Instruct: Greek\nQuery:alpha"


def test_the_other_class_is_told_to_use_the_one_that_the_collection_keeps(tmp_path):
    import chromadb

    from chroma_embrief import GemmaEmbeddingFunction, Qwen3EmbeddingFunction, open_collection

    client = chromadb.PersistentClient(str(tmp_path))
    open_collection(client, "texts", Qwen3EmbeddingFunction("embrief/hash", dim=64))
    with pytest.raises(ArgumentError, match="was made with Qwen3EmbeddingFunction"):
        open_collection(client, "texts", GemmaEmbeddingFunction("embrief/hash", dim=64))


def test_views_for_another_task_and_width():
    from chroma_embrief import GemmaEmbeddingFunction

    with FakeRuntime() as fake:
        function = GemmaEmbeddingFunction(fake.gemma)
        assert function.with_dim(16).embed_query(["q"])[0].shape == (16,)
        function.with_task("clustering")(["d"])
        function.embed_documents(["d"], task="classification")
        assert fake.texts[1:] == ["task: clustering | query: d", "task: classification | query: d"]
        assert fake.loads == 1
