"""Requests, tries and waits, limits per minute, keys: what goes over the wire, and what is never shown."""

from __future__ import annotations

import pickle
import threading
import time

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder, Reranker
from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from embrief.servers import Ollama, OpenAI, RerankHttp, Tei, http, limits
from embrief.testing import Asked, LoopbackServer, Reply

from .wires import EMBEDDER, OpenAIWire

KEY = "sk-secret-0123456789"
WIRE = OpenAIWire()


def vectors(asked: Asked) -> Reply:
    """A healthy server: the vector of a text has its length in it."""
    texts = WIRE.texts(asked)
    if texts is None:
        return WIRE.about(asked)
    rows = [[1.0, float(len(text)), *[0.0] * 1022] for text in texts]
    return Reply(WIRE.answer(asked, rows, range(len(rows))))


def embedder(server: LoopbackServer, **options: object) -> Embedder:
    return Embedder(EMBEDDER, backend=OpenAI(base_url=f"{server.url}/v1", **options))


def posts(server: LoopbackServer) -> list[Asked]:
    return [asked for asked in server.seen if asked.method == "POST"]


# ---- Keys


def test_a_key_comes_from_its_variable_and_goes_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE_API_KEY", f" {KEY}\n")
    with LoopbackServer(vectors) as server:
        embedder(server, api_key_env="HERE_API_KEY").embed_query("a")
        assert {asked.headers["authorization"] for asked in server.seen} == {f"Bearer {KEY}"}


def test_a_key_comes_from_a_file(tmp_path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n", "utf-8")
    with LoopbackServer(vectors) as server:
        embedder(server, api_key_file=str(tmp_path / "key")).embed_query("a")
        assert server.seen[-1].headers["authorization"] == f"Bearer {KEY}"


def test_no_key_goes_where_none_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's variable is for the provider's own host."""
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "COHERE_API_KEY", "JINA_API_KEY", "MISTRAL_API_KEY"):
        monkeypatch.setenv(name, KEY)
    with LoopbackServer(vectors) as server:
        embedder(server).embed_query("a")
        assert not any("authorization" in asked.headers for asked in server.seen)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com/v1", True),
        ("https://api.openai.com:443/v1", True),
        ("https://api.openai.com:8443/v1", False),
        ("https://api.openai.com.example/v1", False),
        ("https://example.com/api.openai.com", False),
        ("http://api.openai.com/v1", False),
    ],
)
def test_a_providers_variable_is_for_its_own_host_alone(monkeypatch, url: str, expected: bool) -> None:
    from embrief.servers.address import parse_address
    from embrief.servers.keys import find_key

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert (find_key(None, None, parse_address(url)) is not None) is expected


@pytest.mark.parametrize("name", ["HOME", "PATH", "SECRET", "AWS_SECRET", "OPENAI_API_KEY ", "a-KEY", "_KEYS", ""])
def test_only_variables_of_keys_are_read(name: str) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match="api_key_env"):
        OpenAI(api_key_env=name)


def test_no_key_over_http_to_another_machine() -> None:
    with pytest.raises(ArgumentError, match="never sent over http"):
        Tei(base_url="http://192.168.1.7:8080", api_key_env="TEI_API_KEY")
    with pytest.raises(ArgumentError, match="never sent over http"):
        Tei(base_url="http://gpu:8080", api_key_file="key")
    assert Tei(base_url="http://gpu:8080").api_key_env is None
    for here in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://gpu"):
        assert Tei(base_url=here, api_key_env="TEI_API_KEY").api_key_env


def test_a_key_shows_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not in options, facades, pickles, logs or errors, also if the server repeats it."""
    monkeypatch.setenv("HERE_API_KEY", KEY)
    caplog.set_level("DEBUG")

    def repeats(asked: Asked) -> Reply:
        return Reply({"error": {"message": f"no such key: {KEY}"}}, 401 if asked.method == "POST" else 404)

    with LoopbackServer(repeats) as server:
        here = embedder(server, api_key_env="HERE_API_KEY")
        with pytest.raises(UnauthorizedError, match=r"HERE_API_KEY.*\*\*\*") as caught:
            here.embed_query("a")
    shown = [repr(here), repr(here.settings), str(here.info()), repr(caught.value), caplog.text, here.fingerprint]
    shown.append(repr(here._shared._model.__dict__))  # type: ignore[union-attr]
    assert not [text for text in shown if KEY in text]
    assert KEY.encode() not in pickle.dumps(here)
    assert KEY.encode() not in pickle.dumps(caught.value)


def test_a_missing_or_odd_key_is_said_without_its_value(monkeypatch, tmp_path) -> None:
    with LoopbackServer(vectors) as server:
        monkeypatch.delenv("HERE_API_KEY", raising=False)
        with pytest.raises(UnauthorizedError, match="HERE_API_KEY is not set"):
            embedder(server, api_key_env="HERE_API_KEY").embed_query("a")
        monkeypatch.setenv("HERE_API_KEY", f"{KEY}\r\nX-Evil: 1")
        with pytest.raises(UnauthorizedError, match="HERE_API_KEY holds") as caught:
            embedder(server, api_key_env="HERE_API_KEY").embed_query("a")
        assert KEY not in str(caught.value)
        with pytest.raises(UnauthorizedError, match="cannot be read"):
            embedder(server, api_key_file=str(tmp_path / "none")).embed_query("a")
        assert not posts(server)


@pytest.mark.parametrize(
    "url",
    [
        "gpu:8080",
        "ftp://gpu",
        "file:///etc/passwd",
        "http://",
        "http://gpu:99999",
        "http://g pu",
        "http://gpu\n.example",
        "http://gpu?key=1",
        "http://gpu#x",
        "https://é.example",
        "http://gpu\\evil.example",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ArgumentError, match="base_url"):
        Tei(base_url=url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    for url in (f"http://user:{KEY}@gpu", f"https://{KEY}@gpu"):
        with pytest.raises(ArgumentError) as caught:
            Tei(base_url=url)
        assert KEY not in str(caught.value)


def test_where_ollama_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert Ollama().address.url == "http://127.0.0.1:11434"
    for said, url in {
        "0.0.0.0": "http://127.0.0.1:11434",
        "0.0.0.0:9": "http://127.0.0.1:9",
        "gpu": "http://gpu:11434",
        "gpu:9": "http://gpu:9",
        "https://o.example": "https://o.example:443",
        "http://gpu/sub/": "http://gpu:80/sub",
        "[::1]:9": "http://[::1]:9",
        "[::]": "http://127.0.0.1:11434",
    }.items():
        monkeypatch.setenv("OLLAMA_HOST", said)
        assert Ollama().address.url == url
    assert Ollama(base_url="http://other:1").address.url == "http://other:1"


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": "60"},
        {"tries": 0},
        {"tries": True},
        {"in_flight": 1.5},
        {"deadline": -1},
        {"requests_per_minute": 0},
        {"model": ""},
        {"final_token": "yes"},
    ],
)
def test_options_that_cannot_work(options: dict[str, object]) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match=next(iter(options))):
        OpenAI(**options)  # type: ignore[arg-type]


# ---- Tries and waits


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are not waited."""
    found: list[float] = []
    pause = http._pause

    def noted(attempt: int, after: float | None) -> float:
        found.append(pause(attempt, after))
        return 0.0 if found[-1] <= http.LONGEST_WAIT else found[-1]

    monkeypatch.setattr(http, "_pause", noted)
    return found


def failing(status: int, **headers: str):
    def answer(asked: Asked) -> Reply:
        if WIRE.texts(asked) is None:
            return WIRE.about(asked)
        return Reply(
            {"error": {"message": "not now"}}, status, {name.replace("_", "-"): v for name, v in headers.items()}
        )

    return answer


@pytest.mark.parametrize(("status", "tries"), [(408, 4), (429, 4), (500, 2), (502, 4), (503, 4), (504, 4), (529, 4)])
def test_what_may_pass_is_tried_again(status: int, tries: int, waits: list[float]) -> None:
    with LoopbackServer(failing(status)) as server, pytest.raises(BackendError):
        embedder(server).embed_query("a")
    assert len(posts(server)) == tries


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 409, 410, 413, 422, 424, 501])
def test_what_would_fail_again_is_not_repeated(status: int, waits: list[float]) -> None:
    with LoopbackServer(failing(status)) as server, pytest.raises(BackendError):
        embedder(server).embed_query("a")
    assert len(posts(server)) == 1
    assert not waits


def test_pauses_double_and_are_random_up_to_eight_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    tops: list[float] = []
    monkeypatch.setattr(http.random, "uniform", lambda low, high: tops.append(high) or low)
    for attempt in range(7):
        assert http._pause(attempt, None) == 0
    assert tops == [0.5, 1, 2, 4, 8, 8, 8]
    assert http._pause(3, 17.5) == 17.5


def test_a_server_says_how_long(waits: list[float]) -> None:
    with LoopbackServer(failing(429, Retry_After="3")) as server, pytest.raises(RateLimitedError) as caught:
        embedder(server, tries=3).embed_query("a")
    assert waits == [3.0, 3.0, 3.0]
    assert caught.value.retry_after == 3.0
    assert len(posts(server)) == 3


def test_a_date_is_a_time_to_wait_for(waits: list[float]) -> None:
    from email.utils import formatdate

    date = formatdate(time.time() + 60, usegmt=True)
    with LoopbackServer(failing(503, Retry_After=date)) as server, pytest.raises(UnavailableError):
        embedder(server, tries=2).embed_query("a")
    assert 30 < waits[0] <= 61


@pytest.mark.parametrize("said", ["soon", "-5", "nan", "1e999", "Mon, 99 Foo", ""])
def test_an_odd_time_to_wait_is_none(said: str, waits: list[float]) -> None:
    with LoopbackServer(failing(503, Retry_After=said)) as server, pytest.raises(UnavailableError):
        embedder(server, tries=2).embed_query("a")
    assert all(0 <= wait <= 0.5 for wait in waits[:1])


def test_nobody_waits_longer_than_two_minutes(waits: list[float]) -> None:
    with LoopbackServer(failing(429, Retry_After="121")) as server, pytest.raises(RateLimitedError) as caught:
        embedder(server).embed_query("a")
    assert len(posts(server)) == 1
    assert caught.value.retry_after == 121


def test_tries_is_the_users(waits: list[float]) -> None:
    with LoopbackServer(failing(503)) as server, pytest.raises(UnavailableError):
        embedder(server, tries=1).embed_query("a")
    assert len(posts(server)) == 1


# ---- Whole calls


def test_a_failure_says_how_much_was_done(waits: list[float]) -> None:
    """Block 57 of 10,000 texts: the caller may go on from there."""

    def dies(asked: Asked) -> Reply:
        if "text 5600" in (WIRE.texts(asked) or ()):
            return Reply({}, 503)
        return vectors(asked)

    texts = [f"text {number}" for number in range(10_000)]
    with LoopbackServer(dies) as server, pytest.raises(UnavailableError, match="first 5600 of 10000") as caught:
        embedder(server, batch_rows=100, in_flight=1).embed_documents(texts)
    assert caught.value.answered == 5600


def test_what_was_done_is_told_in_the_callers_own_count(waits: list[float]) -> None:
    """Equal texts are sent once; the caller counts them all."""

    def dies(asked: Asked) -> Reply:
        return Reply({}, 503) if "text 4" in (WIRE.texts(asked) or ()) else vectors(asked)

    texts = [f"text {number}" for number in (0, 0, 0, 1, 2, 3, 3, 4, 5)]
    with LoopbackServer(dies) as server, pytest.raises(UnavailableError, match="first 7 of 9 texts") as caught:
        embedder(server, batch_rows=2, in_flight=1).embed_documents(texts)
    assert caught.value.answered == 7


def test_a_whole_call_has_a_deadline() -> None:
    def slow(asked: Asked) -> Reply:
        healthy = vectors(asked)
        return Reply(healthy.body, after=0.0 if WIRE.texts(asked) in (None, ["a"]) else 60)

    with LoopbackServer(slow) as server:
        here = embedder(server, deadline=0.3, batch_rows=1, in_flight=1)
        with pytest.raises(UnavailableError, match=r"deadline of 0\.3 s.*first 1 of 2"):
            here.embed_documents(["a", "b"])


def test_a_call_is_cut_by_texts_and_by_tokens() -> None:
    with LoopbackServer(vectors) as server:
        here = embedder(server, batch_rows=3)
        here.embed_documents(["a", "b", "c", "d"])
        assert sorted(len(asked.body["input"]) for asked in posts(server)) == [1, 3]
        server.seen.clear()
        small = Embedder(EMBEDDER, backend=here.settings.backend, batch_tokens=100)
        small.embed_documents(["x" * 150, "y" * 150, "z" * 20])
        assert sorted(len(asked.body["input"]) for asked in posts(server)) == [1, 2]


def test_a_request_that_is_too_large_is_made_smaller(waits: list[float]) -> None:
    """Not every server says what it takes."""

    def at_most_five(asked: Asked) -> Reply:
        texts = WIRE.texts(asked)
        return Reply({"error": {"message": "too many"}}, 413) if texts and len(texts) > 5 else vectors(asked)

    with LoopbackServer(at_most_five) as server:
        texts = ["x" * number for number in range(1, 41)]
        found = embedder(server, batch_rows=40).embed_documents(texts)
        assert np.allclose(found[:, 1] / found[:, 0], range(1, 41))


def test_in_flight_belongs_to_the_address() -> None:
    """Two models at one address share its limit."""
    gate = threading.Barrier(3, timeout=20)

    def hold(asked: Asked) -> Reply:
        if WIRE.texts(asked) is not None:
            try:
                gate.wait(0.2)
            except threading.BrokenBarrierError:
                pass
        return vectors(asked)

    with LoopbackServer(hold) as server:
        models = [embedder(server, in_flight=2, batch_rows=1, timeout=timeout) for timeout in (50, 60)]
        threads = [
            threading.Thread(target=model.embed_documents, args=([f"{n}" for n in range(6)],)) for model in models
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert server.most == 2


# ---- Limits per minute


def test_requests_per_minute_are_kept_before_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE", 0.5)
    times: list[float] = []

    def noted(asked: Asked) -> Reply:
        if WIRE.texts(asked) is not None:
            times.append(time.monotonic())
        return vectors(asked)

    with LoopbackServer(noted) as server:
        here = embedder(server, requests_per_minute=4, batch_rows=1)
        here.embed_documents([f"{number}" for number in range(9)])
    # The list of models is a request, too; on a loaded machine arrivals may only be later than they were sent.
    assert len(times) == 9
    assert all(later - first > 0.4 for first, later in zip(times, times[4:], strict=False))


def test_tokens_per_minute_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE", 0.5)
    times: list[float] = []

    def noted(asked: Asked) -> Reply:
        healthy = vectors(asked)
        if WIRE.texts(asked) is not None:
            times.append(time.monotonic())
            healthy.body["usage"] = {"total_tokens": 10_000}
        return healthy

    with LoopbackServer(noted) as server:
        here = embedder(server, tokens_per_minute=300, batch_rows=1)
        # A hundred tokens each, by the estimate; what alone is too much goes alone.
        here.embed_documents([*(f"{number}" * 297 for number in range(5)), "x" * 3000])
    assert len(times) == 6
    assert times[3] - times[0] > 0.4
    assert times[5] - times[4] > 0.4


def test_a_usage_in_letters_does_not_slow_anything_down(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def waited() -> float:
        window = limits.Window()
        sent = await window.enter(10, requests_per_minute=None, tokens_per_minute=100)
        sent.tokens = 5
        return window._wait(95, None, 100)

    assert asyncio.run(waited()) == 0


# ---- What a server may send


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST_ANSWER", 1000)
    with LoopbackServer(vectors) as server, pytest.raises(BackendError, match="sends more than"):
        embedder(server).embed_query("a")


def test_a_message_that_repeats_a_text_is_not_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    text = "the secret of my diary is that nobody reads it"

    def repeats(asked: Asked) -> Reply:
        found = WIRE.texts(asked)
        return WIRE.about(asked) if found is None else Reply({"error": {"message": f"cannot embed {found[0]!r}"}}, 400)

    caplog.set_level("DEBUG")
    with LoopbackServer(repeats) as server, pytest.raises(BackendError, match="repeats the text") as caught:
        embedder(server).embed_documents([text])
    assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text


def test_no_proxy_sees_what_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer(vectors) as proxy, LoopbackServer(vectors) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        embedder(server).embed_query("a")
        assert not proxy.seen
        assert posts(server)


def test_a_runtime_is_only_used_where_it_is_named() -> None:
    with pytest.raises(BackendError, match="openai"):
        Embedder("text-embedding-3-small")
    with pytest.raises(ArgumentError, match=r"OpenAI\(base_url="):
        Embedder(EMBEDDER, backend="openai")
    with pytest.raises(ArgumentError, match=r"api\.mistral\.ai"):
        Embedder("mistral-embed", backend="openai")
    with pytest.raises(ArgumentTypeError, match=r"Tei\(\.\.\.\)"):
        Embedder(EMBEDDER, backend="tei")
    assert Embedder("text-embedding-3-small", backend="openai").dim == 1536
    assert Embedder(EMBEDDER, backend="ollama").info()["backend"] == "ollama"


def test_what_a_server_decides_is_not_asked_for() -> None:
    here = Tei(base_url="http://127.0.0.1:1")
    with pytest.raises(ArgumentError, match="its server decides"):
        Embedder(EMBEDDER, backend=here, device="cuda")
    with pytest.raises(ArgumentError, match="its server decides"):
        Embedder(EMBEDDER, backend=here, dtype="float32")
    with pytest.raises(ArgumentError, match="normalize=False"):
        Embedder(EMBEDDER, backend="ollama", normalize=False)
    with pytest.raises(ArgumentError, match="template"):
        Reranker("Qwen/Qwen3-Reranker-0.6B", backend=here)
    with pytest.raises(ArgumentError, match="reranks"):
        Embedder(EMBEDDER, backend=RerankHttp(base_url="http://127.0.0.1:1"))
    with pytest.raises(ArgumentError, match="comes with its package"):
        Embedder("embrief/tiny-embedding", backend=here)
