"""The embedding classes: constructors, prompts, views, copies, settings."""

from __future__ import annotations

import asyncio
import copy
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings
from llama_index.core.base.embeddings.base import BaseEmbedding

import embrief.facades.embedder
from embrief import ArgumentError, ArgumentTypeError, Embedder, Reranker, UnknownModelError
from embrief.testing import FakeRuntime
from llama_index_embrief import EmbriefEmbedding, GemmaEmbedding, Qwen3Embedding

QWEN_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


def test_it_is_what_llama_index_expects() -> None:
    for kind in (Qwen3Embedding, GemmaEmbedding):
        assert BaseEmbedding.__name__ in [base.__name__ for base in kind.__mro__]
        assert not kind.__abstractmethods__


def test_class_name_is_set_and_stable() -> None:
    # Without it, LlamaIndex stores every class as "base_component".
    for kind in (Qwen3Embedding, GemmaEmbedding, EmbriefEmbedding):
        assert kind.class_name() == kind.__name__
    assert Qwen3Embedding("embrief/hash").to_dict()["class_name"] == "Qwen3Embedding"


def test_default_models() -> None:
    assert Qwen3Embedding().model_name == "Qwen/Qwen3-Embedding-0.6B"
    assert Qwen3Embedding().embedder.spec.id == "Qwen/Qwen3-Embedding-0.6B"
    assert GemmaEmbedding().model_name == "google/embeddinggemma-300m"


def test_the_model_by_keyword_by_position_and_as_a_facade(fake: FakeRuntime) -> None:
    facade = Embedder(fake.qwen3, dim=16, instruction="Find planets")
    made = [
        Qwen3Embedding(fake.qwen3, dim=16, instruction="Find planets"),
        Qwen3Embedding(model_name=fake.qwen3, dim=16, instruction="Find planets"),
        Qwen3Embedding(embedder=facade),
    ]
    assert made[2].embedder is facade
    assert made[2].model_name == fake.qwen3
    assert made[2].dim == 16
    vectors = [embed_model.get_query_embedding("red") for embed_model in made]
    assert vectors[0] == vectors[1] == vectors[2]
    assert fake.loads == 1


def test_constructing_loads_nothing_and_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from llama_index.core import Settings\n"
        "from llama_index_embrief import Qwen3Embedding, GemmaEmbedding, Qwen3Rerank\n"
        "Settings.embed_model = Qwen3Embedding()\n"
        "GemmaEmbedding(), Qwen3Rerank()\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_keywords_are_errors() -> None:
    # BaseEmbedding ignores them, so a misspelt option would do nothing.
    with pytest.raises(ArgumentTypeError, match=r"Qwen3Embedding has no option dims; it takes .*\bdim\b"):
        Qwen3Embedding("embrief/hash", dims=64)
    with pytest.raises(ArgumentTypeError, match="query_instruction"):
        GemmaEmbedding.from_dict({"model_name": "embrief/hash", "query_instruction": "x"})


def test_the_facades_checks_come_through_with_their_types(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentError, match="dim=65"):
        Qwen3Embedding(fake.qwen3, dim=65)
    with pytest.raises(UnknownModelError):
        Qwen3Embedding("Qwen/Qwen3-Embedding")
    with pytest.raises(ArgumentError, match="stands for no model of its own"):
        EmbriefEmbedding()
    with pytest.raises(ValueError, match="embed_batch_size"):
        Qwen3Embedding(fake.qwen3, embed_batch_size=0)


def test_a_facade_beside_its_options_is_refused(fake: FakeRuntime) -> None:
    facade = Embedder(fake.qwen3)
    with pytest.raises(ArgumentError, match=r"leave out model_name, dim"):
        Qwen3Embedding(fake.qwen3, embedder=facade, dim=16)
    with pytest.raises(ArgumentTypeError, match=r"embedder is an embrief\.Embedder, not Reranker"):
        Qwen3Embedding(embedder=Reranker(fake.reranker))
    # The framework's own options are no contradiction.
    assert Qwen3Embedding(embedder=facade, embed_batch_size=7).embed_batch_size == 7


async def test_all_six_methods_use_the_right_prompt(fake: FakeRuntime) -> None:
    embed_model = GemmaEmbedding(fake.gemma)
    query, document = "task: search result | query: ", "title: none | text: "
    results = [
        embed_model.get_query_embedding("a"),
        embed_model.get_text_embedding("b"),
        *embed_model.get_text_embedding_batch(["c", "d"]),
        await embed_model.aget_query_embedding("e"),
        await embed_model.aget_text_embedding("f"),
        *await embed_model.aget_text_embedding_batch(["g", "h"]),
    ]
    roles = [query, document, document, document] * 2
    assert fake.texts == [prompt + text for prompt, text in zip(roles, "abcdefgh", strict=True)]
    core = Embedder(fake.gemma)
    expected = [
        core.embed_query(text) if prompt == query else core.embed_documents([text])[0]
        for prompt, text in zip(roles, "abcdefgh", strict=True)
    ]
    assert results == [vector.tolist() for vector in expected]
    assert {type(value) for vector in results for value in vector} == {float}


async def test_documents_of_qwen_have_no_prompt(fake: FakeRuntime) -> None:
    embed_model = Qwen3Embedding(fake.qwen3)
    embed_model.get_text_embedding("{a}\n b ")
    await embed_model.aget_query_embedding("{a}\n b ")
    assert fake.texts == ["{a}\n b ", QWEN_QUERY + "{a}\n b "]


async def test_empty_lists(fake: FakeRuntime) -> None:
    embed_model = Qwen3Embedding(fake.qwen3)
    assert embed_model.get_text_embedding_batch([]) == []
    assert await embed_model.aget_text_embedding_batch([]) == []
    assert fake.runs == []


async def test_a_big_batch_reaches_the_core_in_one_call(fake: FakeRuntime) -> None:
    # The framework's default would cut it into tens, and the core could not sort by length.
    embed_model = Qwen3Embedding(fake.qwen3)
    texts = [f"text {number}" for number in range(2000)]
    embed_model.get_text_embedding_batch(texts)
    await embed_model.aget_text_embedding_batch([text + "!" for text in texts])
    assert fake.runs == [2000, 2000]


async def test_concurrent_slices_keep_order_and_never_enter_the_model_together(fake: FakeRuntime) -> None:
    fake.delay = 0.002
    embed_model = Qwen3Embedding(fake.qwen3, embed_batch_size=3)
    texts = [f"text {number}" for number in range(20)]
    vectors = await embed_model.aget_text_embedding_batch(texts)
    assert vectors == embed_model.get_text_embedding_batch(texts)
    assert (
        await Qwen3Embedding(fake.qwen3, embed_batch_size=3, num_workers=2).aget_text_embedding_batch(texts) == vectors
    )
    assert not fake.overlapped


async def test_async_never_blocks_the_event_loop(fake: FakeRuntime, heartbeat) -> None:
    fake.delay = 0.3
    embed_model = Qwen3Embedding(fake.qwen3)
    async with heartbeat() as gaps:
        await asyncio.gather(
            embed_model.aget_query_embedding("a"),
            embed_model.aget_text_embedding("b"),
            embed_model.aget_text_embedding_batch(["c", "d"]),
        )
    assert len(gaps) > 20
    assert max(gaps) < 0.2
    assert threading.current_thread().name not in fake.threads


async def test_conversion_to_floats_is_off_the_loop_too(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    class Spied(np.ndarray):
        def tolist(self) -> Any:
            threads.append(threading.current_thread().name)
            return super().tolist()

    real = embrief.facades.embedder.finish_vectors
    monkeypatch.setattr(
        embrief.facades.embedder, "finish_vectors", lambda *given, **options: real(*given, **options).view(Spied)
    )
    embed_model = Qwen3Embedding(fake.qwen3)
    await embed_model.aget_query_embedding("a")
    await embed_model.aget_text_embedding("b")
    await embed_model.aget_text_embedding_batch(["c"])
    assert len(threads) == 3
    assert threading.current_thread().name not in threads


async def test_instruction_per_call(fake: FakeRuntime) -> None:
    embed_model = Qwen3Embedding(fake.qwen3, instruction="Find planets")
    embed_model.get_query_embedding("q")
    embed_model.get_query_embedding("q", instruction="Find moons")
    await embed_model.aget_query_embedding("q", instruction="")
    embed_model.get_query_embedding("q")
    planets = "Instruct: Find planets\nQuery:q"
    assert fake.texts == [planets, "Instruct: Find moons\nQuery:q", "q", planets]


async def test_views_share_the_loaded_model_and_keep_framework_options(fake: FakeRuntime) -> None:
    embed_model = Qwen3Embedding(fake.qwen3, embed_batch_size=5, num_workers=2)
    embed_model.get_query_embedding("q")
    view = embed_model.with_instruction("Find moons").with_dim(16)
    assert len(view.get_query_embedding("q")) == view.dim == 16
    assert view.instruction == "Find moons"
    assert (view.embed_batch_size, view.num_workers) == (5, 2)
    assert view.callback_manager is embed_model.callback_manager
    assert embed_model.dim is None
    assert fake.texts[-1] == "Instruct: Find moons\nQuery:q"
    view.with_task("code_retrieval").get_query_embedding("q")
    assert "coding" in fake.texts[-1]
    view.with_instruction(None).get_query_embedding("q")
    assert fake.texts[-1] == QWEN_QUERY + "q"
    assert fake.loads == 1


def test_fields_that_define_vectors_cannot_be_assigned(fake: FakeRuntime) -> None:
    # The loaded model would not follow.
    embed_model = Qwen3Embedding(fake.qwen3)
    for name in ("model_name", "dim", "instruction", "embeddings_cache"):
        with pytest.raises(ValueError, match="frozen"):
            setattr(embed_model, name, None)


def test_model_copy_update_is_checked_and_takes_effect(fake: FakeRuntime) -> None:
    # pydantic's own would accept anything, and change the field but not the model.
    embed_model = Qwen3Embedding(fake.qwen3, embed_batch_size=5)
    copied = embed_model.model_copy(update={"dim": 16})
    assert len(copied.get_query_embedding("q")) == 16
    assert copied.embed_batch_size == 5
    assert len(embed_model.model_copy().get_query_embedding("q")) == 64
    with pytest.raises(ArgumentTypeError, match="dims"):
        embed_model.model_copy(update={"dims": 16})
    with pytest.raises(ArgumentError):
        embed_model.model_copy(update={"dim": 1000})


def test_pickles_without_weights_and_works_after(fake: FakeRuntime) -> None:
    embed_model = GemmaEmbedding(fake.gemma, dim=16, task="fact_checking", title_metadata_key="t", embed_batch_size=9)
    vector = embed_model.get_query_embedding("q")
    data = pickle.dumps(embed_model)
    assert len(data) < 5000
    again = pickle.loads(data)
    assert again.to_dict() == embed_model.to_dict()
    assert again.get_query_embedding("q") == vector
    assert fake.loads == 1  # same configuration, same process: same model


def test_pickle_travels_to_another_process() -> None:
    embed_model = Qwen3Embedding("embrief/hash", dim=32, truncate="silent")
    code = (
        "import pickle, sys\n"
        "embed_model = pickle.load(sys.stdin.buffer)\n"
        "print(embed_model.truncate, sum(embed_model.get_text_embedding('red planet')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(embed_model), capture_output=True, timeout=600, check=True
    )
    assert done.stdout.decode().strip() == f"silent {sum(embed_model.get_text_embedding('red planet'))}"


def test_unpickling_where_the_model_is_missing_says_so(minilm_folder: Path, tmp_path: Path) -> None:
    # LlamaIndex's fallback would hand out an object without its model.
    pytest.importorskip("sentence_transformers", reason="a folder needs the runtime that serves it")
    folder = shutil.copytree(minilm_folder, tmp_path / "model")
    data = pickle.dumps(EmbriefEmbedding(folder))
    folder.rename(tmp_path / "gone")
    with pytest.raises(UnknownModelError, match="no model folder"):
        pickle.loads(data)


def test_deepcopy_shares_the_weights(fake: FakeRuntime) -> None:
    embed_model = Qwen3Embedding(fake.qwen3, dim=16)
    vector = embed_model.get_query_embedding("q")
    copied = copy.deepcopy(embed_model)
    assert copied.to_dict() == embed_model.to_dict()
    assert copied.get_query_embedding("q") == vector
    assert fake.loads == 1


def test_from_dict_of_to_dict_restores_everything(fake: FakeRuntime, tmp_path) -> None:
    options = {
        "dim": 16, "instruction": "Find planets", "normalize": False, "max_tokens": 100, "truncate": "error",
        "batch_tokens": 500, "device": "cpu", "dtype": "float32", "cache_dir": str(tmp_path), "local_files_only": True,
        "embed_batch_size": 9, "num_workers": 3, "title_metadata_key": "title",
    }  # fmt: skip
    embed_model = Qwen3Embedding(fake.qwen3, **options)
    for again in (
        Qwen3Embedding.from_dict(embed_model.to_dict()),
        Qwen3Embedding.from_json(embed_model.to_json()),
        Qwen3Embedding.from_dict(embed_model.model_dump()),
    ):
        assert {name: getattr(again, name) for name in options} == options
        assert again.embedder.settings == embed_model.embedder.settings
        assert again.get_query_embedding("q") == embed_model.get_query_embedding("q")


def test_settings_global(fake: FakeRuntime) -> None:
    embed_model = Qwen3Embedding(fake.qwen3)
    Settings.embed_model = embed_model
    assert Settings.embed_model is embed_model
    assert len(Settings.embed_model.get_query_embedding("q")) == 64


def test_rate_limiter_is_asked(fake: FakeRuntime) -> None:
    asked: list[int] = []

    class Limiter:
        def acquire(self) -> None:
            asked.append(1)

    limiter = Limiter()
    if "rate_limiter" not in BaseEmbedding.model_fields:  # the oldest llama-index-core that we support
        with pytest.raises(ArgumentTypeError, match="no option rate_limiter"):
            Qwen3Embedding(fake.qwen3, rate_limiter=limiter)
        return
    embed_model = Qwen3Embedding(fake.qwen3, rate_limiter=limiter, embed_batch_size=2)
    embed_model.get_query_embedding("q")
    embed_model.with_instruction("x").get_text_embedding_batch(["a", "b", "c"])
    assert len(asked) == 3


def test_aggregated_queries_have_the_query_prompt(fake: FakeRuntime) -> None:
    Qwen3Embedding(fake.qwen3).get_agg_embedding_from_queries(["a", "b"])
    assert fake.texts == [QWEN_QUERY + "a", QWEN_QUERY + "b"]


def test_one_text_for_many_is_refused(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentTypeError):
        Qwen3Embedding(fake.qwen3).get_query_embedding(["a"])
    with pytest.raises(ArgumentTypeError) as caught:
        Qwen3Embedding(fake.qwen3).get_text_embedding_batch(["a", None])
    assert caught.value.index == 1
