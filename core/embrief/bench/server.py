"""What embrief itself takes of a request to a server: beside the HTTP library alone, on the same answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.bench.accuracy import compare_to
from embrief.bench.timing import interleave

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.bench.timing import Timing

MODEL = "openai/text-embedding-3-small"
TEXTS = 100
"""In one request."""
LEAST_ROUNDS = 9
"""A request takes some milliseconds; fewer rounds would show noise."""
_NAME = "text-embedding-3-small"
_BARE = "httpx alone"


def measure_server(requests: int, rounds: int) -> tuple[dict[str, Any], dict[str, Timing]]:
    """Embed texts at a server on this machine that has its answer ready, in OpenAI's format with base64.

    The server is a thread of this process, so that its share is in the time of both.

    Args:
        requests: One after the other, of `TEXTS` different texts each, before the other one has its turn.
        rounds: Turns of each; at least `LEAST_ROUNDS` are taken.

    Returns:
        Plain values for a row, and the timings: of embrief, and of a request and its answer with httpx, json, base64
        and numpy alone.
    """
    import httpx

    from embrief import Embedder, EmbeddingSpec, plugins
    from embrief.servers import OpenAI
    from embrief.testing import LoopbackServer, Reply

    rounds = max(rounds, LEAST_ROUNDS)
    listed = Reply({"object": "list", "data": [{"id": _NAME, "object": "model"}]})
    texts = [f"sentence {number} of those that are sent in one request" for number in range(TEXTS)]
    spec = plugins().catalog.models[MODEL]
    assert isinstance(spec, EmbeddingSpec)
    answer = Reply(_answer(spec.dim))
    with (
        LoopbackServer(lambda asked: answer if asked.method == "POST" else listed) as server,
        Embedder(MODEL, backend=OpenAI(base_url=f"{server.url}/v1", batch_rows=TEXTS)) as embedder,
        httpx.Client(trust_env=False) as client,
    ):
        calls: dict[str, Callable[[], NDArray[np.float32]]] = {
            "embrief": partial(embedder.embed_documents, texts),
            _BARE: partial(_bare, client, f"{server.url}/v1/embeddings", texts),
        }
        for call in calls.values():
            call()
        timings = interleave({name: partial(_repeat, call, requests) for name, call in calls.items()}, rounds)
    bare = np.array(timings[_BARE].seconds) / requests
    oracle = timings[_BARE].result
    oracle = oracle / np.linalg.norm(oracle, axis=1, keepdims=True)
    runs = []
    for name, timing in timings.items():
        each = np.array(timing.seconds) / requests
        runs.append(
            {
                "name": name,
                "seconds": timing.seconds,
                "texts_per_s": TEXTS / float(np.median(each)),
                "request_s": float(np.median(each)),
                # Of neighbours, so that a slow minute of the machine counts for both.
                "own_s": float(np.median(each - bare)),
                "of_bare": float(np.median(bare / each)),
                **compare_to(oracle, timing.result),
            }
        )
    row = {"texts": TEXTS, "values": spec.dim, "requests": requests, "rounds": rounds, "runs": runs}
    return row, timings


def _answer(dim: int) -> bytes:
    vectors = np.random.default_rng(0).standard_normal((TEXTS, dim)).astype("<f4")
    data = [
        {"object": "embedding", "index": index, "embedding": base64.b64encode(vector.tobytes()).decode()}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 11 * TEXTS, "total_tokens": 11 * TEXTS}
    return json.dumps({"object": "list", "data": data, "model": _NAME, "usage": usage}).encode()


def _bare(client: Any, url: str, texts: list[str]) -> NDArray[np.float32]:
    answer = client.post(url, json={"model": _NAME, "input": texts, "encoding_format": "base64"}).json()
    return np.array([np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]])


def _repeat(call: Callable[[], NDArray[np.float32]], times: int) -> NDArray[np.float32]:
    found = call()
    for _ in range(times - 1):
        found = call()
    return found
