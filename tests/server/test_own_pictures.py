"""Our own runtimes that ask servers, asked for pictures: the vectors and scores of this process, or a plain refusal."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

pytest.importorskip("PIL", reason="Pillow is not installed")

from embrief import Embedder, Image, Registry, Reranker, load_config
from embrief.errors import ArgumentError, ArgumentTypeError, InputTooLongError, ModelMismatchError
from embrief.images.patches import fit
from embrief.server.app import create_app
from embrief.server.models import ServedModels
from embrief.servers.options import HttpSimple, Ollama, OpenAI, RerankHttp, Tei
from embrief.testing import Asked, FakeRuntime, LoopbackServer, Reply


def image(red: int, *, height: int = 40, width: int = 64) -> Image:
    return Image(np.full((height, width, 3), (red, 90, 30), np.uint8))


RED, BLUE, LARGE = image(200), image(20), image(90, height=1600, width=1200)
MIXED = [RED, "a red planet", (BLUE, "a moon"), {"text": "two", "image": [RED, BLUE]}, "", "<|im_end|> {query}"]


@pytest.fixture(scope="module")
def seeing(module_socket):
    """A server of models that take pictures, and what runs them."""
    with FakeRuntime(batch_tokens=512) as fake:
        models = ServedModels(
            {"see": Embedder(fake.vision), "read": Embedder(fake.qwen3)}, {"judge": Reranker(fake.vision_reranker)}
        )
        with module_socket(create_app(models)) as server:
            yield server, fake


def test_vectors_are_those_of_this_process(seeing):
    server, fake = seeing
    here = Embedder(fake.vision)
    there = Embedder(fake.vision, backend=OpenAI(base_url=server.openai_url))
    assert there.modalities == ("text", "image")
    assert there.space == here.space
    for options in ({"role": "document"}, {"role": "query"}, {"role": "query", "instruction": "Find the planet"}):
        own, found = here.encode(MIXED, **options), there.encode(MIXED, **options)
        np.testing.assert_allclose(found.vectors, own.vectors, atol=1e-6)
        assert found.token_counts.tolist() == own.token_counts.tolist()
        assert found.image_tokens.tolist() == own.image_tokens.tolist()
    # The instruction is put around once, and no document has it.
    asked = [text for text in fake.texts if "Find the planet" in text]
    assert {text.count("<|im_start|>") for text in asked} == {3}


def test_a_large_picture_is_sent_in_the_size_in_which_it_is_seen(seeing):
    server, fake = seeing
    there = Embedder(fake.vision, backend=OpenAI(base_url=server.openai_url), max_pixels=100_000)
    size = there.spec.images.fitted(1600, 1200, 100_000)
    assert size[0] * size[1] <= 100_000
    seen = Image(fit(LARGE.pixels, size))
    np.testing.assert_allclose(there.embed_query(LARGE), Embedder(fake.vision).embed_query(seen), atol=1e-6)
    wide = Embedder(fake.vision, backend=OpenAI(base_url=server.openai_url), max_pixels=2_000_000)
    with pytest.raises(ArgumentError, match="sees pictures in 1310720 pixels at most, and max_pixels=2000000"):
        wide.embed_query(LARGE)


def test_a_text_that_is_too_long_is_the_same_error(seeing):
    server, fake = seeing
    long = "word " * 9000
    there = Embedder(fake.vision, backend=OpenAI(base_url=server.openai_url), truncate="error")
    with pytest.raises(InputTooLongError) as caught:
        there.embed_documents([RED, (BLUE, long), "a"])
    with pytest.raises(InputTooLongError) as own:
        Embedder(fake.vision, truncate="error").embed_documents([RED, (BLUE, long), "a"])
    assert (caught.value.index, caught.value.limit) == (own.value.index, own.value.limit) == (1, 8192)
    short = Embedder(fake.vision, backend=OpenAI(base_url=server.openai_url), max_tokens=100)
    with pytest.raises(InputTooLongError) as caught:
        short.embed_documents(["a", (RED, "word " * 200)])
    assert caught.value.index == 1


def test_scores_are_those_of_this_process(seeing):
    server, fake = seeing
    documents = [RED, "a red planet", (BLUE, "a red moon"), {"text": "red", "image": RED}]
    here = Reranker(fake.vision_reranker)
    there = Reranker(fake.vision_reranker, backend=RerankHttp(base_url=server.openai_url))
    for query in ("red planet", RED, (BLUE, "red")):
        own = here.score(query, documents)
        np.testing.assert_allclose(there.score(query, documents), own, atol=1e-6)
        assert len(set(own.tolist())) > 1


SERVICE = {"text_endpoint": "/txt/embed", "image_endpoint": "/img/embed"}


def test_a_service_with_a_route_for_each(seeing):
    server, fake = seeing
    here, there = Embedder(fake.vision), Embedder(fake.vision, backend=HttpSimple(base_url=server.url, **SERVICE))
    both = [RED, "a red planet", BLUE, "a moon"]
    np.testing.assert_allclose(there.embed_documents(both), here.embed_documents(both), atol=1e-6)
    np.testing.assert_allclose(there.embed_query(RED), here.embed_query(RED), atol=1e-6)
    before = len(fake.runs)
    for mixed in ((RED, "a moon"), (RED, BLUE)):
        with pytest.raises(ArgumentTypeError, match="has routes for one text or one image") as caught:
            there.embed_documents(["a", RED, mixed])
        assert caught.value.index == 2
    assert len(fake.runs) == before, "nothing is asked before"
    with pytest.raises(ArgumentError, match="puts its own prompt"):
        there.embed_query("a", instruction="Find the planet")


def test_a_table_of_models_as_benchmarks_write_it(module_socket, data, tmp_path):
    """Only the address is another."""
    with (
        FakeRuntime(width=4096) as fake,
        module_socket(create_app(ServedModels({"see": Embedder(fake.vision)}))) as server,
    ):
        text = (data / "configs" / "examples" / "multimodal.yaml").read_text("utf-8")
        path = tmp_path / "models.yaml"
        path.write_text(text.replace("http://localhost:8003", server.url), "utf-8")
        there = Registry(load_config(path)).get("qwen3-vl-embed-8b")
        both = [RED, "a red planet", BLUE]
        np.testing.assert_allclose(there.embed_documents(both), Embedder(fake.vision).embed_documents(both), atol=1e-6)


@pytest.mark.parametrize(
    "backend",
    [
        Tei(base_url="http://127.0.0.1:9"),
        Ollama(base_url="http://127.0.0.1:9", model="see"),
        HttpSimple(base_url="http://127.0.0.1:9"),
        OpenAI(base_url="https://api.openai.com/v1", model="see"),
    ],
    ids=lambda backend: type(backend).__name__,
)
def test_others_refuse_such_a_model_before_anything_is_asked(seeing, backend):
    with pytest.raises(ArgumentError, match="forges a picture"):
        Embedder(seeing[1].vision, backend=backend)


def test_a_route_for_pictures_is_for_models_that_take_them(seeing):
    with pytest.raises(ArgumentError, match="takes texts only; leave it out"):
        Embedder(seeing[1].qwen3, backend=HttpSimple(base_url="http://127.0.0.1:9", **SERVICE))
    text = Embedder(seeing[1].qwen3, backend=HttpSimple(base_url="http://127.0.0.1:9"))
    with pytest.raises(ArgumentTypeError, match=r"texts\[1\] holds an image") as caught:
        text.embed_documents(["a", RED])
    assert caught.value.index == 1


@pytest.mark.parametrize("owner", ["embrief", "vllm"])
@pytest.mark.parametrize("facade", [Embedder, Reranker])
def test_a_server_that_is_not_known_to_take_pictures_is_sent_nothing(seeing, owner, facade):
    _, fake = seeing
    name, kind = (fake.vision, "embedding") if facade is Embedder else (fake.vision_reranker, "reranker")
    row = {"id": name, "owned_by": owner, "kind": kind, "model_id": name, "modalities": ["text"]}

    def reply(asked: Asked) -> Reply:
        return Reply({"data": [row]}) if asked.path.endswith("/models") else Reply({}, 500)

    with LoopbackServer(reply) as server:
        backend = (OpenAI if facade is Embedder else RerankHttp)(base_url=server.url)
        with pytest.raises(ModelMismatchError, match="is no server of embrief's that says that it takes pictures"):
            facade(name, backend=backend).load()
        assert {asked.path for asked in server.seen} == {"/models"}


def test_what_a_service_is_sent(seeing):
    """PNG in base64, one by one where that is said; texts without a prompt, since the service puts it."""
    _, fake = seeing

    def reply(asked: Asked) -> Reply:
        return Reply({"vector": [1.0] * 64})

    with LoopbackServer(reply) as server:
        there = Embedder(fake.vision, backend=HttpSimple(base_url=server.url, one_by_one=True, model="m", **SERVICE))
        there.embed_documents([RED, "a moon"])
        bodies = {asked.path: asked.body for asked in server.seen}
    assert bodies["/txt/embed"] == {"input": "a moon", "model": "m"}
    file = base64.b64decode(bodies["/img/embed"]["input"])
    assert Image(io.BytesIO(file).getvalue()) == RED
    assert file.startswith(b"\x89PNG")


def test_no_request_holds_more_pictures_than_a_server_takes(seeing):
    """A request that is too full would be sent, refused, and sent again in halves."""
    _, fake = seeing
    row = {"id": fake.vision, "owned_by": "embrief", "kind": "embedding", "model_id": fake.vision}
    row |= {"modalities": ["text", "image"], "max_model_len": 8192}
    counts: list[int] = []

    def reply(asked: Asked) -> Reply:
        if asked.path.endswith("/models"):
            return Reply({"data": [row]})
        inputs = asked.body["input"]
        counts.append(sum(part["type"] == "image_url" for parts in inputs for part in parts))
        data = [{"index": place, "embedding": [1.0] * 64, "tokens": 9} for place in range(len(inputs))]
        return Reply({"data": data})

    many = [[image(red), image(red + 100), "a"] for red in range(50)] + [[image(red) for red in range(70)]]
    with LoopbackServer(reply) as server:
        Embedder(fake.vision, backend=OpenAI(base_url=server.url)).embed_documents(many)
    assert sorted(counts) == [36, 64, 70]


def test_every_prompt_of_a_model_with_several_can_be_said(module_socket):
    pytest.importorskip("torch")
    here = Embedder("embrief/tiny-vl-embedding", dtype="float32", device="cpu")
    with module_socket(create_app(ServedModels({"tiny": here}, {}))) as server:
        there = Embedder("embrief/tiny-vl-embedding", backend=OpenAI(base_url=server.openai_url, model="tiny"))
        picture = Image(np.full((64, 64, 3), (200, 90, 30), np.uint8))
        texts = ["a red planet", ""]
        prompts = [{}, {"instruction": ""}, {"instruction": "Find the planet"}]
        prompts += [{"task": task.name} for task in here.spec.prompts.tasks]
        found = [there.embed_queries(texts, **prompt) for prompt in prompts]
        for prompt, vectors in zip(prompts, found, strict=True):
            np.testing.assert_allclose(vectors, here.embed_queries(texts, **prompt), atol=1e-6)
        assert len({vectors.tobytes() for vectors in found}) == len(prompts) - 1
        # Beside pictures there is none, and so nothing that the server would refuse.
        for role in ("query", "document"):
            own = here.encode([picture, "a red planet", [picture, "a moon"]], role=role).vectors
            np.testing.assert_allclose(
                there.encode([picture, "a red planet", [picture, "a moon"]], role=role).vectors, own, atol=1e-6
            )
        task = "sentence_similarity"
        np.testing.assert_allclose(
            there.with_task(task).embed_documents(texts), here.with_task(task).embed_documents(texts), atol=1e-6
        )
