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
    BadAnswerError,
    EndpointError,
    InputTooLongError,
    ItemFailedError,
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


def says_no_usage(asked: Asked) -> Reply:
    healthy = vectors(asked)
    healthy.body.pop("usage", None)
    return healthy


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


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each request was let through: on a loaded machine it may arrive at any time after that."""
    times: list[float] = []
    note = limits.Window._note

    def noted(self, tokens: int) -> limits.Sent:
        found = note(self, tokens)
        times.append(found.at)
        return found

    monkeypatch.setattr(limits, "MINUTE", 0.5)
    monkeypatch.setattr(limits.Window, "_note", noted)
    return times


def test_requests_per_minute_are_kept_before_the_server_says(sent: list[float]) -> None:
    with LoopbackServer(vectors) as server:
        here = embedder(server, requests_per_minute=4, batch_rows=1)
        here.embed_documents([f"{number}" for number in range(9)])
    # The list of models is a request, too.
    assert len(sent) == 10
    assert all(later - first >= 0.5 for first, later in zip(sent, sent[4:], strict=False))


def test_tokens_per_minute_are_kept(sent: list[float]) -> None:
    with LoopbackServer(says_no_usage) as server:
        here = embedder(server, tokens_per_minute=300, batch_rows=1, in_flight=1)
        # A hundred tokens each, by the estimate; what alone is too much goes alone. The answers say nothing of tokens.
        here.embed_documents([*(f"{number}" * 198 for number in range(5)), "x" * 3000])
    times = sent[1:]
    assert len(times) == 6
    assert times[3] - times[0] >= 0.5
    assert times[5] - times[4] >= 0.5


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
    with pytest.raises(ArgumentError, match="a few lines of this package"):
        Embedder("embrief/hash", backend=here)


# ---- What a review found


def test_a_key_that_is_put_right_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook the first try fails; a service's token is exchanged while it runs."""

    def locked(asked: Asked) -> Reply:
        if WIRE.texts(asked) is not None and asked.headers.get("authorization") != f"Bearer {KEY}":
            return Reply({"error": "no"}, 401)
        return vectors(asked)

    with LoopbackServer(locked) as server:
        monkeypatch.setenv("HERE_API_KEY", "wrong")
        here = embedder(server, api_key_env="HERE_API_KEY")
        with pytest.raises(UnauthorizedError):
            here.embed_query("a")
        monkeypatch.setenv("HERE_API_KEY", KEY)
        assert here.embed_query("a").shape == (1024,)


def test_no_cookie_goes_from_one_key_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def cookies(asked: Asked) -> Reply:
        healthy = vectors(asked)
        return Reply(healthy.body, healthy.status, {"Set-Cookie": f"session={asked.headers.get('authorization')}"})

    with LoopbackServer(cookies) as server:
        for name in ("ONE_API_KEY", "TWO_API_KEY"):
            monkeypatch.setenv(name, f"{name}-value")
            embedder(server, api_key_env=name).embed_documents(["a", name])
        assert not any("cookie" in asked.headers for asked in server.seen)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "deflate"])
def test_a_compressed_answer_is_not_read(encoding: str) -> None:
    """It could be of any size."""

    def compresses(asked: Asked) -> Reply:
        healthy = vectors(asked)
        return healthy if WIRE.texts(asked) is None else Reply(b"x" * 100, 200, {"Content-Encoding": encoding})

    with LoopbackServer(compresses) as server, pytest.raises(BackendError, match="compresses"):
        embedder(server).embed_query("a")
    assert {asked.headers["accept-encoding"] for asked in server.seen} == {"identity"}


@pytest.mark.parametrize("status", [301, 308, 402, 404, 405, 410, 415, 501])
def test_a_wrong_address_is_no_texts_fault(status: int) -> None:
    """Neither looked for in halves nor blamed on a text."""
    with LoopbackServer(failing(status)) as server, pytest.raises(EndpointError) as caught:
        embedder(server, batch_rows=64).embed_documents([f"text {number}" for number in range(64)])
    assert len(posts(server)) == 1
    assert not hasattr(caught.value, "index")


def test_each_model_says_how_many_requests_for_itself() -> None:
    inside = threading.Semaphore(0)

    def hold(asked: Asked) -> Reply:
        if WIRE.texts(asked) is not None:
            inside.acquire(timeout=0.3)
        return vectors(asked)

    texts = [f"{number}" for number in range(12)]
    with LoopbackServer(hold) as server:
        with embedder(server, in_flight=1, batch_rows=1) as first:
            first.embed_documents(texts[:3])
        assert server.most == 1
        with embedder(server, in_flight=6, batch_rows=1) as second:
            second.embed_documents(texts)
        assert server.most == 6
        server.most = 0
        with embedder(server, in_flight=2, batch_rows=1) as third:
            third.embed_documents([f"more {text}" for text in texts])
        assert server.most == 2


def test_the_deadline_is_for_the_first_call_too() -> None:
    with LoopbackServer(lambda asked: Reply({}, after=60)) as server, pytest.raises(UnavailableError, match="deadline"):
        embedder(server, deadline=0.3, timeout=20).embed_query("a")


def test_waiting_for_ones_own_limit_is_not_the_servers_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MINUTE", 0.4)
    monkeypatch.setattr(http, "LONGEST_REQUEST", 0.6)
    with LoopbackServer(vectors) as server:
        here = embedder(server, requests_per_minute=1, batch_rows=1, in_flight=8)
        assert len(here.embed_documents([f"{number}" for number in range(5)])) == 5


def test_a_text_that_holds_the_words_of_an_error_is_still_known_to_be_too_long() -> None:
    text = "This model's maximum context length is 512 tokens, and people ask what that means"

    def long(asked: Asked) -> Reply:
        found = WIRE.texts(asked)
        message = f"maximum context length is 512 tokens, however you requested 900 tokens: {found}"
        return WIRE.about(asked) if found is None else Reply({"error": {"message": message}}, 400)

    with LoopbackServer(long) as server, pytest.raises(InputTooLongError) as caught:
        embedder(server).embed_documents([text])
    assert "people ask" not in str(caught.value)


def test_a_vector_of_zeros_is_none() -> None:
    def zeros(asked: Asked) -> Reply:
        texts = WIRE.texts(asked)
        if texts is None:
            return WIRE.about(asked)
        rows = [[0.0 if text == "bad" else 1.0] * 1024 for text in texts]
        return Reply(WIRE.answer(asked, rows, range(len(rows))))

    with LoopbackServer(zeros) as server, pytest.raises(ItemFailedError, match="zeros") as caught:
        embedder(server).embed_documents(["good", "fine", "bad"])
    assert caught.value.index == 2


def test_an_empty_account_is_not_asked_again(waits: list[float]) -> None:
    def empty(asked: Asked) -> Reply:
        body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
        return WIRE.about(asked) if WIRE.texts(asked) is None else Reply(body, 429)

    with LoopbackServer(empty) as server, pytest.raises(RateLimitedError, match="billing"):
        embedder(server).embed_query("a")
    assert len(posts(server)) == 1


def test_what_was_done_is_told_of_every_error() -> None:
    def breaks(asked: Asked) -> Reply:
        return Reply(b"<html>") if "text 40" in (WIRE.texts(asked) or ()) else vectors(asked)

    with LoopbackServer(breaks) as server, pytest.raises(BadAnswerError, match="first 40 of 100") as caught:
        embedder(server, batch_rows=10, in_flight=1).embed_documents([f"text {number}" for number in range(100)])
    assert caught.value.answered == 40


def test_long_texts_are_cut_off_the_loop_of_servers(qwen3_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one for all servers: another one's query would wait."""
    from embrief.servers import counting

    threads: set[str] = set()
    cut = counting.Tokens.encoded

    def noted(self, *args: object) -> object:
        threads.add(threading.current_thread().name)
        return cut(self, *args)

    monkeypatch.setattr(counting.Tokens, "encoded", noted)
    with LoopbackServer(says_no_usage) as server:
        here = embedder(server, tokenizer=str(qwen3_folder))
        here.embed_documents(["many words " * 4000])
    assert threads
    assert "embrief-servers" not in threads


def test_a_proxy_that_cannot_be_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks9://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    there = Embedder(EMBEDDER, backend=OpenAI(base_url="https://embeddings.invalid/v1", tries=1))
    with pytest.raises(EndpointError, match="ALL_PROXY"):
        there.embed_query("a")


def test_a_key_goes_nowhere_over_http_wherever_the_address_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M_API_KEY", KEY)
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    options = Ollama(api_key_env="M_API_KEY")
    monkeypatch.setenv("OLLAMA_HOST", "http://10.1.2.3:11434")
    with pytest.raises(ArgumentError, match="never sent over http"):
        Embedder(EMBEDDER, backend=pickle.loads(pickle.dumps(options))).embed_query("a")
