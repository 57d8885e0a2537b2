"""Load on a real `embrief serve`: many short queries beside bulk work, many connections, mixed traffic, kill -9.

    python .ci/load.py                        each for a while, 60 seconds in all
    python .ci/load.py queries --seconds 30   one of: queries, connections, mixed, kill
    python .ci/load.py mixed --seconds 1800   half an hour of everything at once
    python .ci/load.py queries --url http://127.0.0.1:7997 --name NAME   another server that speaks OpenAI

Prints figures as JSON. Ends with 1 if an answer was wrong, a 500 came, or the server's memory grew.
Client and server share the machine's cores, so what is measured of two servers is their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

CLIENTS = 64
BULK = 64
QUERY = "how do I remove a folder and all that is in it"
DOCUMENT = (
    "The function removes a directory tree; files that are read-only are an error unless a handler is given. " * 4
)
WRONG = ({"input": []}, {"input": "x", "model": "no-such"}, {"input": [1, 2]}, [1], None)
MOST_GROWTH = 128 * 2**20
"""Bytes that the server's memory may grow by after the first fifth of the run."""


class Server:
    """`embrief serve` in a process of its own."""

    def __init__(self, model: str, port: int = 0, *options: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        words = ["-m", "embrief", "serve", model, "--port", str(self.port), *options]
        self.process = subprocess.Popen([sys.executable, *words])

    async def ready(self) -> None:
        async with client_of(self.url) as client:
            for _ in range(1200):
                try:
                    async with client.get("/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        raise SystemExit("the server was not ready within two minutes")

    def memory(self) -> int:
        """Return the bytes that the process holds; 0 where the system does not tell."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


@contextmanager
def serving(model: str, *options: str):
    server = Server(model, 0, *options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def client_of(url: str, connections: int = CLIENTS) -> aiohttp.ClientSession:
    """Return a client that takes little of the processor: it shares the machine with the server."""
    connector = aiohttp.TCPConnector(limit=connections)
    return aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(total=120))


class Answer(NamedTuple):
    status: int
    text: str


async def post(client: aiohttp.ClientSession, body: object) -> Answer:
    headers = {"content-type": "application/json"} if body is not None else {}
    data = json.dumps(body) if body is not None else None
    async with client.post("/v1/embeddings", data=data, headers=headers) as answer:
        return Answer(answer.status, await answer.text())


async def ask(client: aiohttp.ClientSession, name: str | None, texts: list[str], role: str | None) -> Answer:
    body: dict[str, object] = {"input": texts, "encoding_format": "base64"}
    body |= {"model": name} if name else {}
    body |= {"input_type": role} if role else {}
    return await post(client, body)


def milliseconds(times: list[float]) -> dict[str, float]:
    found = sorted(times)
    return {f"p{part}": round(1000 * found[min(len(found) * part // 100, len(found) - 1)], 1) for part in (50, 95, 99)}


async def for_seconds(seconds: float, workers: int, work: Callable[[int], Awaitable[None]]) -> float:
    """Run workers side by side, each again and again; return the seconds that it took."""
    start = time.perf_counter()

    async def loop(number: int) -> None:
        while time.perf_counter() - start < seconds:
            await work(number)

    await asyncio.gather(*(loop(number) for number in range(workers)))
    return time.perf_counter() - start


async def queries(url: str, seconds: float, name: str | None, roles: bool) -> dict[str, object]:
    """Short queries: one client, 64 clients, 64 clients while somebody embeds documents."""
    role = ("query", "document") if roles else (None, None)
    found: dict[str, object] = {}
    part = seconds / 3
    for title, workers, bulk in (
        ("one client", 1, 0),
        ("64 clients", CLIENTS, 0),
        ("64 clients, bulk beside", CLIENTS, 2),
    ):
        times: list[float] = []
        documents = 0
        async with client_of(url) as client, client_of(url) as other:
            await ask(client, name, [QUERY], role[0])

            async def query(number: int, client: aiohttp.ClientSession = client, times: list[float] = times) -> None:
                begin = time.perf_counter()
                answer = await ask(client, name, [f"{QUERY} {number} {len(times)}"], role[0])
                assert answer.status == 200, answer.text[:300]
                times.append(time.perf_counter() - begin)

            async def embed(number: int, other: aiohttp.ClientSession = other) -> None:
                nonlocal documents
                answer = await ask(other, name, [f"{n} {DOCUMENT}" for n in range(BULK)], role[1])
                assert answer.status == 200, answer.text[:300]
                documents += BULK

            took, *_ = await asyncio.gather(
                for_seconds(part, workers, query), *([for_seconds(part, bulk, embed)] if bulk else [])
            )
        found[title] = {"queries/s": round(len(times) / took, 1), "ms": milliseconds(times)}
        if bulk:
            found[title] |= {"documents/s": round(documents / took, 1)}  # type: ignore[operator]
    one, many = found["one client"], found["64 clients"]
    found["64 clients to one"] = round(many["queries/s"] / one["queries/s"], 2)  # type: ignore[index]
    return found


async def connections(url: str, count: int) -> dict[str, object]:
    """Many connections at once, a query on each: an answer or a clean refusal."""
    statuses: Counter[int] = Counter()
    async with client_of(url, count) as client:

        async def one(number: int) -> None:
            await asyncio.sleep(number / count)
            statuses[(await ask(client, None, [f"{QUERY} {number}"], "query")).status] += 1

        begin = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(count)))
        took = time.perf_counter() - begin
    assert set(statuses) <= {200, 429}, statuses
    assert statuses[200] >= min(count, 512), statuses
    return {"connections": count, "seconds": round(took, 1), "statuses": dict(statuses)}


async def slow_reader(port: int) -> None:
    """Ask for a long answer and read it byte by byte, then go."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=256)
    body = json.dumps({"input": [DOCUMENT] * BULK, "encoding_format": "float"}).encode()
    lines = ["POST /v1/embeddings HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    writer.write(head.encode() + body)
    for _ in range(40):
        if not await reader.read(64):
            break
        await asyncio.sleep(0.05)
    writer.transport.abort()


async def mixed(server: Server, seconds: float) -> dict[str, object]:
    """Queries, bulk work, refusals, clients that leave and slow readers, all at once; the memory must stay as it is."""
    statuses: Counter[str] = Counter()
    samples: list[tuple[float, int]] = []
    generator = random.Random(0)
    start = time.perf_counter()

    async def act(number: int) -> None:
        kind = generator.choices(("query", "bulk", "wrong", "leave", "slow"), (60, 15, 15, 8, 2))[0]
        try:
            if kind == "slow":
                await slow_reader(server.port)
                statuses["slow: left"] += 1
                return
            if kind == "leave":
                async with asyncio.timeout(generator.random() * 0.05):
                    await ask(client, None, [DOCUMENT] * BULK, "document")
                return
            if kind == "wrong":
                wrong = generator.choice(
                    ({"input": []}, {"input": "x", "model": "no-such"}, {"input": [1, 2]}, [1], None)
                )
                answer = await client.post("/v1/embeddings", json=wrong)
                assert answer.status in (400, 404, 415, 422), (answer.status, answer.text[:200])
            else:
                texts = (
                    [f"{QUERY} {generator.random()}"] if kind == "query" else [f"{n} {DOCUMENT}" for n in range(BULK)]
                )
                answer = await ask(client, None, texts, "query" if kind == "query" else "document")
                assert answer.status in (200, 429), (answer.status, answer.text[:200])
            statuses[f"{kind}: {answer.status}"] += 1
        except TimeoutError:
            statuses["leave: left"] += 1

    async def watch() -> None:
        while time.perf_counter() - start < seconds:
            samples.append((time.perf_counter() - start, server.memory()))
            await asyncio.sleep(min(1.0, seconds / 50))

    async with client_of(server.url, 96) as client:
        await asyncio.gather(for_seconds(seconds, 32, act), watch())
        async with client.get("/readyz") as answer:
            assert answer.status == 200
    settled = max((size for at, size in samples if at <= seconds / 5), default=0)
    last = max((size for at, size in samples if at >= seconds * 4 / 5), default=0)
    assert last <= settled + MOST_GROWTH, f"the memory grew from {settled:,} to {last:,} bytes"
    return {"seconds": seconds, "answers": dict(sorted(statuses.items())), "MiB": [settled >> 20, last >> 20]}


async def kill(model: str, seconds: float) -> dict[str, object]:
    """End the server as if by a power failure, again and again; clients get answers or clean errors, and go on."""
    server = Server(model)
    seen: Counter[str] = Counter()
    expected: str | None = None
    done = False
    await server.ready()
    try:
        async with client_of(server.url) as client:

            async def one() -> None:
                nonlocal expected
                while not done:
                    try:
                        answer = await ask(client, None, [QUERY], "query")
                    except (aiohttp.ClientError, OSError) as error:
                        seen[type(error).__name__] += 1
                        await asyncio.sleep(0.05)
                        continue
                    assert answer.status in (200, 503), (answer.status, answer.text[:200])
                    seen[str(answer.status)] += 1
                    if answer.status == 200:
                        vector = json.loads(answer.text)["data"][0]["embedding"]
                        expected = expected or vector
                        assert vector == expected, "another vector after a restart"

            async def killer() -> None:
                nonlocal server, done
                end = time.perf_counter() + seconds
                try:
                    while True:
                        await asyncio.sleep(1.0)
                        await asyncio.to_thread(server.end, signal.SIGKILL)
                        seen["kills"] += 1
                        server = Server(model, server.port)
                        await server.ready()
                        if time.perf_counter() > end:
                            await asyncio.sleep(0.5)
                            return
                finally:
                    done = True

            await asyncio.gather(killer(), *(one() for _ in range(8)))
    finally:
        server.end()
    return dict(sorted(seen.items()))


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=["all", "queries", "connections", "mixed", "kill"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model", default="embrief/tiny-embedding")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--url", help="a server that runs already, for `queries`")
    parser.add_argument("--name", help="what it calls its model")
    given = parser.parse_args()
    found: dict[str, object] = {}
    if given.url:
        found["queries"] = await queries(given.url, given.seconds, given.name, roles=False)
    elif given.what == "kill":
        found["kill"] = await kill(given.model, given.seconds)
    else:
        share = given.seconds / 4 if given.what == "all" else given.seconds
        with serving(given.model) as server:
            await server.ready()
            if given.what in ("all", "queries"):
                found["queries"] = await queries(server.url, share, None, roles=True)
            if given.what in ("all", "connections"):
                found["connections"] = await connections(server.url, given.connections)
            if given.what in ("all", "mixed"):
                found["mixed"] = await mixed(server, share)
        if given.what == "all":
            found["kill"] = await kill(given.model, share)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
