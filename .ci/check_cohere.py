"""Ask `embrief serve` with Cohere's newest client, which cannot live beside the frameworks' (they want cohere below 6).

    python .ci/check_cohere.py          make an environment with it (about 100 MB), start a server here, and ask
    python .ci/check_cohere.py --keep DIR   the same, in an environment that stays

Prints what the client saw. The exit code is 1 if anything differs from what this process computes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

PINS = ["cohere==7.3.1", "httpx==0.28.1"]
"""Not constraints.txt, which pins the older client."""
QUERY, DOCUMENTS = "red planets", ["Mars is red.", "Whales swim.", "Venus is a planet."]
MODELS = ["small=embrief/tiny-embedding", "rank=embrief/tiny-reranker"]


def ask(url: str) -> dict[str, Any]:
    """Ask a server with the client of this environment, and return what came, as plain values."""
    import cohere

    found: dict[str, Any] = {"version": cohere.__version__}
    v2, v1 = cohere.ClientV2("none", base_url=url), cohere.Client("none", base_url=url)
    embedded = v2.embed(model="small", texts=[QUERY], input_type="search_query", embedding_types=["float"])
    found["v2 query"] = embedded.embeddings.float_
    found["v1 documents"] = v1.embed(model="small", texts=DOCUMENTS, input_type="search_document").embeddings
    for name, client in (("v2 ranking", v2), ("v1 ranking", v1)):
        ranked = client.rerank(model="rank", query=QUERY, documents=DOCUMENTS).results
        found[name] = [[item.index, item.relevance_score] for item in ranked]
    for name, changes in (("unknown model", {"model": "moon"}), ("int8", {"embedding_types": ["int8"]})):
        asked: dict[str, Any] = {"model": "small", "texts": [QUERY], "input_type": "search_query", **changes}
        try:
            v2.embed(**asked)
        except cohere.core.ApiError as error:
            found[name] = [type(error).__name__, error.status_code, error.body["message"]]
        else:
            found[name] = "no error"
    return found


def expected() -> dict[str, Any]:
    """Return what this process computes."""
    from embrief import Embedder, Reranker

    embedder = Embedder("embrief/tiny-embedding")
    ranked = [[item.index, item.score] for item in Reranker("embrief/tiny-reranker").rerank(QUERY, DOCUMENTS)]
    return {
        "v2 query": embedder.embed_queries([QUERY]).tolist(),
        "v1 documents": embedder.embed_documents(DOCUMENTS).tolist(),
        "v2 ranking": ranked,
        "v1 ranking": ranked,
    }


def make(folder: Path) -> Path:
    """Make the environment unless it is there, and return its interpreter."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.is_file():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
    return python


def differences(found: dict[str, Any]) -> list[str]:
    """Return the names of answers that are not those of this process."""
    import numpy as np

    wrong = [
        name
        for name, value in expected().items()
        if np.shape(found[name]) != np.shape(value) or np.abs(np.array(found[name]) - np.array(value)).max() > 2e-3
    ]
    if found["unknown model"][:2] != ["NotFoundError", 404]:
        wrong.append("unknown model")
    if found["int8"][:2] != ["BadRequestError", 400]:
        wrong.append("int8")
    return wrong


def check(folder: Path) -> int:
    """Make the environment, start a server, let the client ask, and print what it saw."""
    start = time.monotonic()
    python = make(folder)
    print(f"environment: {time.monotonic() - start:.0f} s")
    command = [sys.executable, "-m", "embrief", "serve", *MODELS, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            line = next((line for line in server.stdout if " at http://" in line), "")
            if not line:
                print("the server did not start")
                return 1
            url = line.split(" at ")[1].split()[0]
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            asked = subprocess.run(
                [python, __file__, "--ask", url], capture_output=True, text=True, timeout=300, env=environment
            )
        finally:
            server.terminate()
    if asked.returncode:
        print(asked.stderr)
        return 1
    found = json.loads(asked.stdout)
    wrong = differences(found)
    for name, value in found.items():
        shown = f"{len(value)} of {len(value[0])} values" if name in ("v2 query", "v1 documents") else value
        print(f"{name}: {shown}{'   DIFFERS' if name in wrong else ''}")
    print(f"{len(wrong)} answers differ, {time.monotonic() - start:.0f} s")
    return 1 if wrong else 0


def main() -> int:
    """Read the arguments."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", type=Path, help="folder of an environment that stays")
    arguments.add_argument("--ask", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.ask:
        print(json.dumps(ask(given.ask)))
        return 0
    if given.keep:
        return check(given.keep)
    with tempfile.TemporaryDirectory() as folder:
        return check(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
