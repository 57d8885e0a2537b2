"""Our own remote backends, asked of our own server: the vectors of this process, and never two prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embrief import Embedder, FallbackEmbedder, Reranker, check_parity, plugins
from embrief.errors import ArgumentError, InputTooLongError, ModelMismatchError, UnavailableError
from embrief.parity import kept
from embrief.server.app import create_app
from embrief.server.models import ServedModels
from embrief.servers.options import HttpSimple, Ollama, OpenAI, RerankHttp, Tei
from embrief.testing import FakeRuntime

TINY, RANK = "embrief/tiny-embedding", "embrief/tiny-reranker"
LONG = "blue whale " * 400
TEXTS = ["red planet", LONG, "", " x ", "日本 \n"]
DOCUMENTS = ["mars is red", "whales are blue", ""]

# Each finds the model by its id, or by the name that it is served by; none is told of roles but the last, whose route
# says nothing of itself.
KINDS = {
    "openai": lambda url: OpenAI(base_url=f"{url}/v1"),
    "openai, named, floats": lambda url: OpenAI(base_url=f"{url}/v1", model="tiny", encoding="float"),
    "openai, named with its role": lambda url: OpenAI(base_url=f"{url}/v1", model="tiny:plain"),
    "tei": lambda url: Tei(base_url=url),
    "tei, named": lambda url: Tei(base_url=url, model="tiny"),
    "ollama": lambda url: Ollama(base_url=url, model="tiny"),
    "encode": lambda url: HttpSimple(base_url=url, model="tiny:plain"),
    "txt/embed": lambda url: HttpSimple(base_url=url, text_endpoint="/txt/embed", model="tiny:plain"),
    "generate": lambda url: HttpSimple(
        base_url=url, text_endpoint="/v1/embeddings/generate", field="text", model="tiny:plain"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_counts_and_cuts_are_those_of_this_process(server, kind):
    here, there = Embedder(TINY, truncate="silent"), Embedder(TINY, backend=KINDS[kind](server.url), truncate="silent")
    assert there.space == here.space
    for role in ("query", "document"):
        own, found = here.encode(TEXTS, role=role), there.encode(TEXTS, role=role)
        # Batches of other sizes round otherwise; a prompt more or less moves vectors a thousand times as far.
        np.testing.assert_allclose(found.vectors, own.vectors, atol=2e-3)
        assert found.token_counts.tolist() == own.token_counts.tolist()
        assert found.truncated.tolist() == own.truncated.tolist()
        assert own.truncated.tolist()[:2] == [False, True]


@pytest.fixture(scope="module")
def prompted(module_socket):
    """A server of a model whose documents have a prompt too, and the model: its vectors hang on every letter."""
    with FakeRuntime() as fake:
        own = Embedder(fake.gemma)
        with module_socket(create_app(ServedModels({"tiny": own, "hash": Embedder(fake.qwen3)}))) as found:
            yield found, own, fake


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_is_put_there_twice(prompted, kind):
    server, own, fake = prompted
    there = Embedder(own.settings.model, backend=KINDS[kind](server.url))
    fake.texts.clear()
    for role in ("query", "document"):
        found = there.encode(["red planet"], role=role, titles=["Mars"] if role == "document" else None)
        expected = own.encode(["red planet"], role=role, titles=["Mars"] if role == "document" else None)
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
    assert set(fake.texts) == {"task: search result | query: red planet", "title: Mars | text: red planet"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_is_too_long_is_the_same_error(server, kind):
    there = Embedder(TINY, backend=KINDS[kind](server.url), truncate="error")
    with pytest.raises(InputTooLongError) as caught:
        there.embed_documents(["red", LONG])
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (1, 802, 512)


def test_an_instruction_is_put_there_once(server):
    here = Embedder(TINY, instruction="Find the planet")
    there = Embedder(TINY, instruction="Find the planet", backend=KINDS["openai"](server.url))
    np.testing.assert_allclose(there.embed_query("red"), here.embed_query("red"), atol=2e-3)
    assert float(there.embed_query("red") @ Embedder(TINY).embed_query("red")) < 0.99


@pytest.mark.parametrize(
    "backend",
    [
        lambda url: OpenAI(base_url=f"{url}/v1", model="tiny:query"),
        lambda url: OpenAI(base_url=f"{url}/v1", model="tiny:document"),
        lambda url: Ollama(base_url=url, model="tiny:document"),
        lambda url: Tei(base_url=url, model="tiny:query"),
        lambda url: HttpSimple(base_url=url, model="tiny"),
        lambda url: HttpSimple(base_url=url, model="tiny:query"),
        lambda url: HttpSimple(base_url=url, text_endpoint="/txt/embed"),
    ],
)
def test_a_second_prompt_is_refused(server, backend):
    with pytest.raises(ModelMismatchError, match=r"prompt.*tiny"):
        Embedder(TINY, backend=backend(server.url)).embed_query("red")


@pytest.mark.parametrize("backend", [OpenAI, Tei])
def test_another_model_is_refused(server, backend):
    base = f"{server.url}/v1" if backend is OpenAI else server.url
    with pytest.raises(ModelMismatchError, match="embrief/hash"):
        Embedder(TINY, backend=backend(base_url=base, model="hash")).embed_query("red")
    with pytest.raises(ModelMismatchError, match=r"'moon'.*'tiny', 'hash'"):
        Embedder(TINY, backend=backend(base_url=base, model="moon")).embed_query("red")
    with pytest.raises(ModelMismatchError, match="no embedding model 'rank'"):
        Embedder(TINY, backend=backend(base_url=base, model="rank")).embed_query("red")


def test_without_a_tokenizer_here_the_servers_word_counts(on_socket):
    with FakeRuntime(batch_tokens=64) as fake:
        app = create_app(ServedModels({"fake": Embedder(fake.qwen3, max_tokens=30)}))
        with on_socket(app) as server:
            for backend in (OpenAI(base_url=server.openai_url), Tei(base_url=server.url)):
                there = Embedder(fake.qwen3, backend=backend)
                np.testing.assert_allclose(
                    there.embed_queries(["red", "blue"]), Embedder(fake.qwen3).embed_queries(["red", "blue"]), atol=1e-6
                )
                with pytest.raises(InputTooLongError) as caught:
                    there.embed_documents(["red", "word " * 50, "blue"])
                assert (caught.value.index, caught.value.tokens, caught.value.limit) == (1, 50, 30)
            there = Embedder(fake.qwen3, backend=HttpSimple(base_url=server.url, model="fake:plain"))
            assert there.embed_query("red").shape == (64,)
            with pytest.raises(InputTooLongError) as caught:
                there.embed_documents(["red", "word " * 50, "blue"])
            assert caught.value.index == 1
        # The hash of what was embedded would hide it from nobody: the prompt stands in each query once.
        asked = [text for text in fake.texts if text.endswith("red")]
        assert {text.count("Instruct:") for text in asked} <= {0, 1}
        assert max(text.count("Instruct:") for text in asked) == 1


@pytest.mark.parametrize(
    "backend",
    [lambda url: RerankHttp(base_url=f"{url}/v1"), lambda url: RerankHttp(base_url=f"{url}/v1", model="rank")],
)
def test_scores_are_those_of_this_process(server, backend):
    there = Reranker(RANK, backend=backend(server.url))
    own = Reranker(RANK).score("red planet", DOCUMENTS)
    np.testing.assert_allclose(there.score("red planet", DOCUMENTS), own, atol=2e-3)
    ranked = there.rerank("red planet", DOCUMENTS, top_n=2)
    assert [item.index for item in ranked] == np.argsort(-own, kind="stable")[:2].tolist()


def test_a_second_template_is_refused(server):
    with pytest.raises(ModelMismatchError, match="template='client'"):
        Reranker(RANK, backend=RerankHttp(base_url=server.openai_url, template="client")).score("red", ["blue"])
    with pytest.raises(ArgumentError, match="no template"):
        Reranker(RANK, backend=Tei(base_url=server.url))


def test_a_pair_that_is_too_long_is_the_same_error(server):
    there = Reranker(RANK, backend=RerankHttp(base_url=server.openai_url), truncate="error")
    with pytest.raises(InputTooLongError) as caught:
        there.score("red", ["mars", LONG])
    with pytest.raises(InputTooLongError) as own:
        Reranker(RANK, truncate="error").score("red", ["mars", LONG])
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (
        own.value.index,
        own.value.tokens,
        own.value.limit,
    )


def test_tei_scores_with_a_classifier(on_socket):
    """A reranker without a template, which is what Tei asks for. Its log-odds go over the wire and come back."""
    with FakeRuntime(batch_tokens=64) as fake:
        catalog = plugins().catalog
        name = f"{fake.reranker}-classifier"
        catalog.add_model(replace(catalog.models[fake.reranker], id=name, scoring="classifier"))
        try:
            app = create_app(ServedModels({"tiny": Embedder(fake.qwen3)}, {"pair": Reranker(name)}))
            with on_socket(app) as server:
                there = Reranker(name, backend=Tei(base_url=server.url))
                own = Reranker(name).score("red planet", ["red", "a red planet", "blue"])
                np.testing.assert_allclose(there.score("red planet", ["red", "a red planet", "blue"]), own, atol=1e-6)
        finally:
            catalog.remove("none", [name])


@pytest.mark.parametrize("kind", ["openai", "tei", "ollama", "encode"])
def test_parity_is_equal(server, kind):
    report = check_parity(Embedder(TINY, backend=KINDS[kind](server.url)), Embedder(TINY), tolerance=0.999)
    assert report.verdict == "equal", str(report)


@pytest.mark.parametrize(
    ("reference", "facade"),
    [
        ("tei:{url}", Embedder),
        ("openai:{url}/v1#" + TINY, Embedder),
        ("openai:{url}/v1", Reranker),
    ],
)
def test_an_address_is_enough(server, reference, facade):
    """What the server serves is asked for where only its address is given."""
    made = facade(reference.format(url=server.url))
    if facade is Embedder:
        np.testing.assert_allclose(made.embed_query("red"), Embedder(TINY).embed_query("red"), atol=2e-3)
    else:
        np.testing.assert_allclose(made.score("red", ["blue"]), Reranker(RANK).score("red", ["blue"]), atol=2e-3)


def test_a_fallback_from_server_to_process_keeps_the_space(on_socket, tmp_path):
    kept.record(Embedder(TINY), tmp_path)
    app = create_app(ServedModels({"tiny": Embedder(TINY)}))
    with on_socket(app) as server:
        there = Embedder(TINY, backend=OpenAI(base_url=server.openai_url, tries=1, connect_timeout=2.0))
        chain = FallbackEmbedder([there, Embedder(TINY)], probes=tmp_path)
        before = chain.encode(["red planet"], role="query")
    after = chain.encode(["red planet"], role="query")
    with pytest.raises(UnavailableError):
        there.embed_query("red planet")
    assert before.space == after.space == Embedder(TINY).space
    assert (before.degraded, after.degraded) == (False, False)
    assert before.answered_by != after.answered_by
    np.testing.assert_allclose(after.vectors, before.vectors, atol=2e-3)
