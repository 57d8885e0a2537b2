"""Hugging Face's inference: what is sent, a cold start, and what is switched off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("huggingface_hub")

from embrief import Embedder
from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    BadAnswerError,
    InputTooLongError,
    ModelMismatchError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from embrief.servers import HfInference
from embrief.servers.address import parse_address
from embrief.servers.keys import find_key
from embrief.testing import Asked, FakeRuntime, LoopbackServer, Reply

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DIM = 384
PATH = f"/hf-inference/models/{MODEL}/pipeline/feature-extraction"
KEY = "hf_secret0123456789"

pytestmark = pytest.mark.usefixtures("hub_online")


def rows(asked: Asked) -> list[list[float]]:
    inputs = asked.body["inputs"]
    texts = [inputs] if isinstance(inputs, str) else inputs
    return [[float(len(text)), 1.0, *[0.0] * (DIM - 2)] for text in texts]


def healthy(asked: Asked) -> Reply:
    return Reply(rows(asked))


def embedder(server: LoopbackServer, **options: Any) -> Embedder:
    return Embedder(MODEL, backend=HfInference(base_url=server.url, **options))


# ---- What is sent


def test_requests_are_those_of_the_hubs_own_client() -> None:
    """`InferenceClient` is not what sends them, so that it cannot change them unseen."""
    from huggingface_hub import InferenceClient

    texts = ["one", "three"]
    with LoopbackServer(healthy) as server:
        ours = embedder(server).embed_documents(texts)
        client = InferenceClient(model=server.url + PATH, token=KEY)
        theirs = client.feature_extraction(texts, normalize=True, truncate=False)  # type: ignore[arg-type]  # before 1.20
        mine, other = server.seen
    assert mine.path == other.path == PATH
    assert mine.body == other.body == {"inputs": texts, "normalize": True, "truncate": False}
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-6)


def test_the_address_is_the_hubs_router() -> None:
    from huggingface_hub import constants

    assert (
        constants.INFERENCE_PROXY_TEMPLATE.format(provider="hf-inference")
        == f"{HfInference().base_url or HfInference.default_url}/hf-inference"
    )
    assert HfInference().address.url == "https://router.huggingface.co:443"


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    with LoopbackServer(healthy) as server:
        embedder(server, model="org/a?b=c#d").embed_query("a")
        assert server.seen[-1].path == "/hf-inference/models/org/a%3Fb%3Dc%23d/pipeline/feature-extraction"


def test_the_hubs_token_goes_to_the_router_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    key = find_key(None, None, HfInference().address)
    assert key is not None
    assert key.value == KEY
    assert find_key(None, None, parse_address("https://router.huggingface.co.example")) is None
    with LoopbackServer(healthy) as server:
        embedder(server).embed_query("a")
        assert "authorization" not in server.seen[-1].headers
        monkeypatch.setenv("HERE_TOKEN", KEY)
        embedder(server, api_key_env="HERE_TOKEN").embed_query("a")
        assert server.seen[-1].headers["authorization"] == f"Bearer {KEY}"


def test_without_a_token_the_router_says_which_variable_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer(lambda _: Reply({"error": "Invalid username or password."}, 401)) as server:
        with pytest.raises(UnauthorizedError, match=r"without a key \(api_key_env= names it\)"):
            embedder(server).embed_query("a")
        from embrief.servers import keys

        monkeypatch.setitem(keys.PROVIDER_KEYS, "127.0.0.1", "HF_TOKEN")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        with pytest.raises(UnauthorizedError, match=r"without a key \(it is looked for in HF_TOKEN, or"):
            embedder(server).embed_query("a")


# ---- The switch


def test_nothing_is_sent_while_the_hub_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with LoopbackServer(healthy) as server:
        here = embedder(server)
        with pytest.raises(UnavailableError, match=r"HF_HUB_OFFLINE=1 .*nothing is sent to http://127\.0\.0\.1:\d+"):
            here.embed_query("a")
        assert not server.seen


# ---- A cold start


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited for, in seconds."""
    import asyncio

    found: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float, *args: Any) -> Any:
        found.append(seconds)
        return await sleep(0, *args)

    monkeypatch.setattr("embrief.servers.http.asyncio.sleep", at_once)
    return found


def cold(times: int, seconds: Any) -> LoopbackServer:
    left = iter(range(times))

    def answer(asked: Asked) -> Reply:
        if next(left, None) is None:
            return healthy(asked)
        return Reply({"error": f"Model {MODEL} is currently loading", "estimated_time": seconds}, 503)

    return LoopbackServer(answer)


def test_a_model_that_is_loading_is_waited_for(waits: list[float]) -> None:
    with cold(2, 33.5) as server:
        assert embedder(server).embed_query("a").shape == (DIM,)
        assert len([seconds for seconds in waits if 33.5 <= seconds < 36]) == 2


@pytest.mark.parametrize("seconds", [121.0, 1e5])
def test_one_that_takes_too_long_is_not(waits: list[float], seconds: float) -> None:
    with cold(1, seconds) as server, pytest.raises(UnavailableError, match=rf"loading .* about {seconds:.0f} s more"):
        embedder(server).embed_query("a")
    assert seconds not in waits


@pytest.mark.parametrize("seconds", [None, "soon", -3, 1e300, True])
def test_an_estimate_that_is_none_counts_as_busy(waits: list[float], seconds: Any) -> None:
    with cold(2, seconds) as server:
        assert embedder(server).embed_query("a").shape == (DIM,)
    assert all(0 <= wait <= 8 for wait in waits)


def test_one_that_never_comes_is_given_up(waits: list[float]) -> None:
    with cold(100, 5) as server:
        with pytest.raises(UnavailableError, match="is loading"):
            embedder(server).embed_query("a")
        assert len(server.seen) == 4


# ---- What comes back


@pytest.mark.parametrize("texts", [["one"], ["one", "three"]])
def test_vectors_per_token_are_refused(texts: list[str]) -> None:
    """A model without a pooling is asked for in vain: its first token is no vector of the text."""
    for tokens in (1, 3):
        with (
            LoopbackServer(lambda asked, tokens=tokens: Reply([[row] * tokens for row in rows(asked)])) as server,
            pytest.raises(BadAnswerError, match=r"vector per token|one per token"),
        ):
            embedder(server).embed_documents(texts)


def test_one_text_may_be_answered_with_one_vector() -> None:
    with LoopbackServer(lambda asked: Reply(rows(asked)[0])) as server:
        assert embedder(server).embed_query("a").shape == (DIM,)
        with pytest.raises(BackendError, match="384 items for 2 texts"):
            embedder(server).embed_documents(["one", "three"])


# ---- What it says is wrong


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, {"error": f"Model {MODEL} not supported by provider hf-inference"}, ModelMismatchError),
        (404, {"error": "Model org/x does not exist"}, ModelMismatchError),
        (402, {"error": "You have exceeded your monthly included credits"}, RateLimitedError),
        (
            413,
            {"error": "`inputs` must have less than 256 tokens. Given: 300", "error_type": "Validation"},
            InputTooLongError,
        ),
        (400, {"error": "The size of tensor a (514) must match the size of tensor b (512)"}, InputTooLongError),
    ],
)
def test_what_fails_again_is_not_repeated(status: int, said: Any, kind: type[Exception]) -> None:
    with LoopbackServer(lambda _: Reply(said, status)) as server:
        with pytest.raises(kind):
            embedder(server).embed_query("a")
        assert len(server.seen) == 1


# ---- Options


def test_other_providers_are_asked_as_openai_is() -> None:
    with pytest.raises(ArgumentError, match=r"OpenAI\(base_url='https://router\.huggingface\.co/scaleway/v1', model="):
        Embedder(MODEL, backend=HfInference(provider="scaleway"))
    with pytest.raises(ArgumentError, match="'nobody' is none that is known to embed"):
        Embedder(MODEL, backend=HfInference(provider="nobody"))
    with pytest.raises(ArgumentTypeError, match="provider=''"):
        HfInference(provider="")


def test_what_is_not_on_the_hub_is_refused() -> None:
    with pytest.raises(ArgumentError, match="is not: has no files; it is served by OpenAI"):
        Embedder("openai/text-embedding-3-small", backend=HfInference())


def test_a_model_that_no_commit_names_is_offered_under_a_name_alone() -> None:
    """What is registered here only, or for tests, the provider has never heard of."""
    with FakeRuntime() as fake:
        with pytest.raises(ArgumentError, match=r"no commit there is recorded: .* HfInference\(model=\.\.\.\)"):
            Embedder(fake.qwen3, backend=HfInference())
        assert Embedder(fake.qwen3, backend=HfInference(model="org/it")).info()["backend"] == "hf-inference"


def test_raw_vectors_cannot_be_had() -> None:
    with pytest.raises(ArgumentError, match="normalize=False cannot be had from 'hf-inference'"):
        Embedder(MODEL, backend=HfInference(), normalize=False)
