"""Records of models without files or that only servers run; an end token that is left out; licences; short names."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import embrief
from embrief import (
    ArgumentError,
    BackendError,
    Embedder,
    EmbeddingSpec,
    ModelMismatchError,
    ModelSpec,
    Reranker,
    RerankerSpec,
    UnknownModelError,
    VectorSpace,
    plugins,
)
from embrief.cli import app
from embrief.discovery.catalog import Catalog
from embrief.facts.records import built_in_models
from embrief.facts.records.mistaken import MISTAKEN_NAMES
from embrief.facts.specs import NO_PROMPT, EmbeddingPrompts, Task
from embrief.testing import FakeRuntime, check_model

RECORDS = tuple(built_in_models())
ELSEWHERE = [spec for spec in RECORDS if spec.elsewhere is not None]
HOSTED = {
    "openai/text-embedding-3-small": ("OpenAI", "openai", 1536, 8191, (1, 1536)),
    "openai/text-embedding-3-large": ("OpenAI", "openai", 3072, 8191, (1, 3072)),
    "openai/text-embedding-ada-002": ("OpenAI", "openai", 1536, 8191, None),
    "mistralai/mistral-embed": ("Mistral", "openai", 1024, 8192, None),
}
ON_SERVERS = {
    "nomic-ai/nomic-embed-text-v1.5": "backend='ollama' or backend='tei'",
    "nomic-ai/nomic-embed-text-v2-moe": "backend='ollama' or backend='tei'",
    "Alibaba-NLP/gte-multilingual-base": "backend='tei' or backend='openai'",
    "jinaai/jina-embeddings-v2-base-es": "backend='ollama'",
    "jinaai/jina-embeddings-v4": "backend='openai'",
    "jinaai/jina-reranker-v2-base-multilingual": "backend='rerank-http'",
}
_numbers = itertools.count(1)
pytestmark = pytest.mark.filterwarnings("ignore::embrief.LicenseWarning")


def made(spec: ModelSpec, **options: object) -> Embedder | Reranker:
    return (Reranker if isinstance(spec, RerankerSpec) else Embedder)(spec.id, **options)


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """The catalog, from which what a test registers is taken away again."""
    found = plugins().catalog
    before = set(found.models)
    yield found
    found.remove("none", [name for name in found.models if name not in before])


# Models without files


@pytest.mark.parametrize("name", HOSTED)
def test_what_is_known_of_hosted_models(name: str, facade_of: Callable[..., Embedder]) -> None:
    provider, runtime, dim, tokens, widths = HOSTED[name]
    spec = plugins().catalog.models[name]
    assert isinstance(spec, EmbeddingSpec)
    assert (spec.hosted, spec.dim, spec.max_tokens, spec.license) == (provider, dim, tokens, "proprietary")
    assert (spec.pooling, spec.architecture, spec.padding_side, spec.final_token) == (None, None, None, None)
    assert (spec.mrl[0], spec.mrl[-1]) == widths if widths else not spec.mrl
    assert spec.served_name(runtime) == spec.revision == name.partition("/")[2]
    embedder = facade_of(spec)
    assert embedder.space == VectorSpace(name, spec.revision, "unknown", "", dim, normalize=True)
    assert embedder.info()["pooling"] == "unknown"
    assert VectorSpace.from_json(embedder.space.to_json()) == embedder.space


def test_only_the_newer_ones_of_openai_can_be_cut(facade_of: Callable[..., Embedder]) -> None:
    models = plugins().catalog.models
    assert facade_of(models["openai/text-embedding-3-small"], dim=256).dim == 256
    with pytest.raises(ArgumentError, match="dim"):
        facade_of(models["openai/text-embedding-ada-002"], dim=256)


@pytest.mark.parametrize("spec", ELSEWHERE, ids=lambda spec: spec.id)
def test_this_machine_refuses_what_it_does_not_run_and_says_what_does(spec: ModelSpec) -> None:
    if spec.hosted is not None:
        wanted = f"has no files; it is served by {spec.hosted}: backend={spec.served_names[0][0]!r}"
    else:
        wanted = f"serve it on a server and name the runtime that asks there: {ON_SERVERS[spec.id]}"
    with pytest.raises(BackendError) as refused:
        made(spec)
    assert str(refused.value).startswith(spec.id)
    assert wanted in str(refused.value)
    for backend in ("engine", "sentence-transformers", "hash"):
        with pytest.raises(ArgumentError) as named:
            made(spec, backend=backend)
        assert wanted in str(named.value)


@pytest.mark.parametrize("spec", ELSEWHERE, ids=lambda spec: spec.id)
def test_nothing_is_downloaded_for_them(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embrief.cli.pull.fetch", lambda source: pytest.fail("asked the hub"))
    for extra in ([], ["--revision", "main"]):
        result = CliRunner().invoke(app, ["pull", spec.id, *extra])
        assert result.exit_code == 1
        assert "there is nothing to download" in result.stderr
        assert "backend=" in result.stderr


def test_every_model_is_for_here_or_says_who_runs_it() -> None:
    assert {spec.id for spec in ELSEWHERE} == {*HOSTED, *ON_SERVERS, "cohere/rerank-v3.5"}
    for spec in RECORDS:
        check = getattr(spec, "pooling", "")
        if spec.elsewhere is None:
            assert None not in (spec.architecture, spec.padding_side, check)
        else:
            assert spec.served_names


# Names on servers


@pytest.mark.parametrize(
    ("runtime", "name", "model"),
    [
        ("ollama", "qwen3-embedding:0.6b", "Qwen/Qwen3-Embedding-0.6B"),
        ("ollama", "qwen3-embedding:4b", "Qwen/Qwen3-Embedding-4B"),
        ("ollama", "Qwen3-Embedding:8B", "Qwen/Qwen3-Embedding-8B"),
        ("ollama", "embeddinggemma", "google/embeddinggemma-300m"),
        ("ollama", "embeddinggemma:latest", "google/embeddinggemma-300m"),
        ("ollama", "embeddinggemma:300m", "google/embeddinggemma-300m"),
        ("ollama", "bge-m3", "BAAI/bge-m3"),
        ("ollama", "nomic-embed-text:latest", "nomic-ai/nomic-embed-text-v1.5"),
        ("ollama", "nomic-embed-text-v2-moe", "nomic-ai/nomic-embed-text-v2-moe"),
        ("ollama", "mxbai-embed-large", "mixedbread-ai/mxbai-embed-large-v1"),
        ("ollama", "all-minilm", "sentence-transformers/all-MiniLM-L6-v2"),
        ("ollama", "all-minilm:l6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("ollama", "snowflake-arctic-embed:xs", "Snowflake/snowflake-arctic-embed-xs"),
        ("ollama", "jina/jina-embeddings-v2-base-es", "jinaai/jina-embeddings-v2-base-es"),
        ("ollama", "jina/jina-embeddings-v2-base-es:latest", "jinaai/jina-embeddings-v2-base-es"),
        ("openai", "text-embedding-3-small", "openai/text-embedding-3-small"),
        ("openai", "mistral-embed", "mistralai/mistral-embed"),
        ("rerank-http", "rerank-v3.5", "cohere/rerank-v3.5"),
        ("rerank-http", "jina-reranker-v2-base-multilingual", "jinaai/jina-reranker-v2-base-multilingual"),
        ("tei", "alibaba-nlp/gte-multilingual-base", "Alibaba-NLP/gte-multilingual-base"),
    ],
)
def test_the_record_of_a_name_on_a_server(runtime: str, name: str, model: str) -> None:
    found = plugins().catalog.served(runtime, name)
    assert found is not None
    assert found.id == model


@pytest.mark.parametrize(
    ("runtime", "name"),
    [
        # Other sizes, other models, other runtimes' names; and a tag that means nothing elsewhere.
        ("ollama", "snowflake-arctic-embed"),
        ("ollama", "all-minilm:l12-v2"),
        ("ollama", "qwen3-embedding:0.6b-q8_0"),
        ("ollama", "bge-m3:latest:latest"),
        ("ollama", "text-embedding-3-small"),
        ("openai", "bge-m3"),
        ("openai", "text-embedding-3-small:latest"),
        ("nobody", "bge-m3"),
    ],
)
def test_no_record_is_guessed_from_a_name_on_a_server(runtime: str, name: str) -> None:
    assert plugins().catalog.served(runtime, name) is None


@pytest.mark.parametrize("name", ["qwen3-embedding", "Qwen3-Embedding:latest"])
def test_a_name_that_leaves_the_size_open_is_refused(name: str) -> None:
    with pytest.raises(UnknownModelError, match=r"use qwen3-embedding:0\.6b"):
        plugins().catalog.served("ollama", name)


def test_the_first_of_several_names_is_asked_for() -> None:
    models = plugins().catalog.models
    assert models["google/embeddinggemma-300m"].served_name("ollama") == "embeddinggemma"
    assert models["sentence-transformers/all-MiniLM-L6-v2"].served_name("ollama") == "all-minilm:l6-v2"
    # Of vLLM and Infinity, whose names are the hub's; the second one is Jina's own.
    reranker = models["jinaai/jina-reranker-v2-base-multilingual"]
    assert reranker.served_name("rerank-http") == reranker.id
    assert models["BAAI/bge-m3"].served_name("tei") is None


def test_a_name_on_a_server_belongs_to_one_model() -> None:
    names = [pair for spec in RECORDS for pair in {(runtime, name.lower()) for runtime, name in spec.served_names}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("names", [(("ollama", "x", "y"),), ("ollama", "x"), [("ollama", "x")], (("ollama", 1),)])
def test_served_names_of_another_form_are_refused(names: object, catalog: Catalog) -> None:
    spec = replace(Embedder("embrief/hash").spec, id="acme/served", aliases=(), served_names=names)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="served_names"):
        catalog.add_model(spec)


def test_a_fake_is_no_model_of_a_server() -> None:
    with FakeRuntime() as fake:
        for name in (fake.qwen3, fake.gemma, fake.reranker):
            spec = plugins().catalog.models[name]
            assert (spec.aliases, spec.served_names) == ((), ())


# Short names


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        *((f"qwen3-embedding-{size}", f"Qwen/Qwen3-Embedding-{size}") for size in ("0.6B", "4B", "8B")),
        *((f"qwen3-reranker-{size}".lower(), f"Qwen/Qwen3-Reranker-{size}") for size in ("0.6B", "4B", "8B")),
        ("embeddinggemma-300m", "google/embeddinggemma-300m"),
        ("bge-m3", "BAAI/bge-m3"),
        ("bge-reranker-v2", "BAAI/bge-reranker-v2-m3"),
        ("bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3"),
        ("e5-mistral-embed", "intfloat/e5-mistral-7b-instruct"),
        ("all-mpnet-base-v2", "sentence-transformers/all-mpnet-base-v2"),
        ("openai-3-small", "openai/text-embedding-3-small"),
        ("openai-3-large", "openai/text-embedding-3-large"),
        ("text-embedding-ada-002", "openai/text-embedding-ada-002"),
        ("mistral-embed", "mistralai/mistral-embed"),
    ],
)
def test_short_names_that_circulate(alias: str, model: str) -> None:
    found = plugins().catalog.find_model(alias)
    assert found is not None
    assert found.id == model


def test_the_part_behind_the_slash_is_enough() -> None:
    for spec in RECORDS:
        assert plugins().catalog.find_model(spec.id.partition("/")[2].lower()) is spec


def test_no_name_hides_that_it_is_a_mistake() -> None:
    names = {name.lower() for spec in RECORDS for name in (spec.id, *spec.aliases)}
    assert names.isdisjoint(MISTAKEN_NAMES)


@pytest.mark.parametrize("name", ["qwen3-embedding", "qwen3-reranker", "Qwen3-Next", "nomic-ai/nomic-embed-text-v2"])
def test_short_names_that_are_wrong_stay_wrong(name: str) -> None:
    with pytest.raises(UnknownModelError, match="; use "):
        Embedder(name)


# Licences


def test_which_licences_forbid_commercial_use() -> None:
    assert {spec.id for spec in RECORDS if spec.non_commercial} == {
        "jinaai/jina-embeddings-v4",
        "jinaai/jina-reranker-v2-base-multilingual",
    }


TELL = """
import warnings
import embrief
class Far(embrief.Runtime):
    name = "far"
    def offer(self, spec, ask):
        return embrief.Offer(device="cpu", dtype="float32", leaves_machine=True)
    def load(self, request):
        raise AssertionError
embrief.plugins().catalog.add_backend(Far())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    embrief.plugins().catalog.models["jinaai/jina-embeddings-v4"]
    embrief.Embedder("embrief/hash")
    assert not caught
    for _ in range(2):
        embrief.Embedder("jinaai/jina-embeddings-v4", backend="far").with_dim(128).dim
        embrief.Reranker("jina-reranker-v2-base-multilingual", backend="far")
for item in caught:
    assert item.category is embrief.LicenseWarning and issubclass(item.category, UserWarning)
    assert item.filename == "<string>", item.filename
    print(str(item.message))
"""


def test_a_licence_that_forbids_commercial_use_warns_once_per_process() -> None:
    done = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line, name in zip(
        lines, ("jinaai/jina-embeddings-v4", "jinaai/jina-reranker-v2-base-multilingual"), strict=True
    ):
        assert name in line
        assert "cc-by-nc-4.0, forbids commercial use" in line


def test_no_default_is_a_model_with_such_a_licence() -> None:
    from embrief.config.offline import offline_models

    models = plugins().catalog
    defaults = [inspect.signature(facade).parameters["model"].default for facade in (Embedder, Reranker)]
    offline = offline_models()
    found = [models.find_model(name) for name in (*defaults, offline.embedding, offline.reranker) if name is not None]
    assert found
    assert all(spec is not None and not spec.non_commercial and spec.elsewhere is None for spec in found)
    assert not [spec.id for spec in RECORDS if spec.defines_family and spec.non_commercial]


def test_the_list_of_models_has_the_licences(tmp_path: Path) -> None:
    import json

    result = CliRunner().invoke(app, ["models", "--cache-dir", str(tmp_path)], env={"COLUMNS": "140"})
    rows = {line.split()[0]: line.split() for line in result.output.splitlines() if "/" in line}
    assert rows["jinaai/jina-embeddings-v4"][-3:] == ["cc-by-nc-4.0", "no", "server"]
    assert rows["openai/text-embedding-3-small"][-3:] == ["proprietary", "no", "hosted"]
    told = json.loads(CliRunner().invoke(app, ["models", "--json", "--cache-dir", str(tmp_path)]).output)["models"]
    told = {row["id"]: row for row in told}
    assert {name for name, row in told.items() if row["non_commercial"]} == {
        "jinaai/jina-embeddings-v4",
        "jinaai/jina-reranker-v2-base-multilingual",
    }
    small = told["openai/text-embedding-3-small"]
    assert (small["hosted"], small["needs_download"]) == ("OpenAI", False)
    assert small["served_names"] == [["openai", "text-embedding-3-small"]]
    assert told["jinaai/jina-embeddings-v4"]["needs_server"]
    assert told["BAAI/bge-m3"]["needs_server"] is None


# Records by themselves


def test_records_of_models_elsewhere_are_checked_alone() -> None:
    for spec in ELSEWHERE:
        check_model(spec)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"served_names": ()}, "served_names names none"),
        ({"mrl": (0, 1536)}, "mrl has widths"),
        ({"source": ""}, "it has no source"),
        ({"hosted": None}, "it has no pooling"),
    ],
)
def test_wrong_records_of_models_elsewhere_are_found(changes: dict, problem: str) -> None:
    spec = replace(plugins().catalog.models["openai/text-embedding-3-small"], **changes)
    with pytest.raises(AssertionError, match=problem):
        check_model(spec)


def test_a_record_that_leaves_the_pooling_open_runs_nowhere_here(catalog: Catalog) -> None:
    spec = EmbeddingSpec(
        id="acme/open", revision="v1", license="mit", architecture="bert", dim=8, max_tokens=8, context=8, pooling=None,
        padding_side="right", final_token=None, prompts=EmbeddingPrompts((Task("retrieval", NO_PROMPT, NO_PROMPT),)),
    )  # fmt: skip
    catalog.add_model(spec)
    with pytest.raises(ArgumentError, match="pooling is known"):
        Embedder(spec.id, backend="sentence-transformers")


# An end token that the published tokenizer leaves out


@pytest.fixture
def e5_mistral(mistral_folder: Path, catalog: Catalog) -> Callable[..., Embedder]:
    """Make an embedder on that folder by the record of e5-mistral, changed as a test wants it."""
    real = catalog.models["intfloat/e5-mistral-7b-instruct"]
    assert isinstance(real, EmbeddingSpec)

    def make(**changes: object) -> Embedder:
        # Facades of one name share a model, in the next test too.
        name = f"acme/e5-mistral-{next(_numbers)}"
        settings: dict = {
            "id": name, "revision": "v1", "aliases": (), "folder": mistral_folder, "dim": 48,
            "hidden_size": 48, "max_tokens": 256, "context": 512, **changes,
        }  # fmt: skip
        catalog.add_model(replace(real, **settings))
        return Embedder(name, device="cpu", dtype="float32")

    return make


def oracle(folder: Path, text: str, limit: int) -> np.ndarray:
    """What transformers makes of one text between `<s>` and an explicit `</s>`."""
    import torch
    from tokenizers import Tokenizer
    from transformers import MistralModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [1, *tokenizer.encode(text, add_special_tokens=False).ids[: limit - 2], 2]
    model = MistralModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        last = model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].numpy()
    return last / np.linalg.norm(last)


def test_an_end_token_that_is_left_out_is_appended(
    e5_mistral: Callable[..., Embedder], mistral_folder: Path, texts: list[str]
) -> None:
    from tokenizers import Tokenizer

    embedder = e5_mistral()
    result = embedder.encode(texts, role="document")
    tokenizer = Tokenizer.from_file(str(mistral_folder / "tokenizer.json"))
    plain = [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    assert result.token_counts is not None
    assert result.token_counts.tolist() == [count + 2 for count in plain]
    expected = np.stack([oracle(mistral_folder, text, 256) for text in texts])
    np.testing.assert_allclose(result.vectors, expected, atol=1e-5)
    prompt = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
    np.testing.assert_allclose(
        embedder.embed_query(texts[0]), oracle(mistral_folder, prompt + texts[0], 256), atol=1e-5
    )


def test_a_text_that_is_cut_keeps_it(e5_mistral: Callable[..., Embedder], mistral_folder: Path) -> None:
    embedder = e5_mistral(max_tokens=12)
    text = "a text that is longer than twelve tokens by far, as one can see " * 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", embrief.TruncationWarning)
        vector = embedder.embed_documents([text])[0]
    np.testing.assert_allclose(vector, oracle(mistral_folder, text, 12), atol=1e-5)


def test_it_is_appended_only_where_the_record_says_so(e5_mistral: Callable[..., Embedder]) -> None:
    with pytest.raises(ModelMismatchError, match="trained with '</s>'"):
        e5_mistral(final_token_left_out=False).load()


def test_it_is_not_appended_twice(
    e5_mistral: Callable[..., Embedder], mistral_folder: Path, tmp_path: Path, texts: list[str]
) -> None:
    """A tokenizer that was saved again with the token."""
    import shutil

    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path / "saved-again"
    shutil.copytree(mistral_folder, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    vectors = e5_mistral(folder=folder).embed_documents(texts)
    expected = np.stack([oracle(mistral_folder, text, 256) for text in texts])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_fine_tune_is_read_like_it(mistral_folder: Path, texts: list[str]) -> None:
    embedder = Embedder(mistral_folder, like="e5-mistral-embed", device="cpu", dtype="float32")
    assert embedder.spec.final_token_left_out
    assert embedder.render("q", role="query", instruction="I") == "Instruct: I\nQuery: q"
    np.testing.assert_allclose(embedder.embed_documents(texts[:1])[0], oracle(mistral_folder, texts[0], 512), atol=1e-5)


# Architectures that no other record has


def test_the_architecture_of_all_mpnet_runs(mpnet_folder: Path, texts: list[str]) -> None:
    import torch
    from transformers import AutoTokenizer, MPNetModel

    real = plugins().catalog.models["sentence-transformers/all-mpnet-base-v2"]
    assert isinstance(real, EmbeddingSpec)
    check_model(replace(real, dim=32, hidden_size=32, max_tokens=48, context=64), mpnet_folder)
    vectors = Embedder(mpnet_folder, device="cpu", dtype="float32").embed_documents(texts[:3])
    tokenizer, model = AutoTokenizer.from_pretrained(mpnet_folder), MPNetModel.from_pretrained(mpnet_folder).eval()
    for text, vector in zip(texts[:3], vectors, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert ids[0, -1] == tokenizer.convert_tokens_to_ids("</s>")
        with torch.inference_mode():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_the_record_of_e5_mistral_fits_its_architecture(mistral_folder: Path) -> None:
    real = plugins().catalog.models["intfloat/e5-mistral-7b-instruct"]
    assert isinstance(real, EmbeddingSpec)
    check_model(replace(real, dim=48, hidden_size=48, max_tokens=256, context=512), mistral_folder)
