"""The variables that embrief reads: one table, and what is told of others that begin like them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from embrief.errors import ArgumentError

CONFIG = "EMBRIEF_CONFIG"
DEFAULT_MODEL = "EMBRIEF_DEFAULT_EMBEDDING_MODEL"
RERANKER = "EMBRIEF_RERANKER_MODEL"
MODEL_PATH = "EMBRIEF_MODEL_PATH"
RERANKER_PATH = "EMBRIEF_RERANKER_MODEL_PATH"
SERVER_URL = "EMBRIEF_SERVER_URL"
DEVICE = "EMBRIEF_DEVICE"
NATIVE = "EMBRIEF_NATIVE"

VARIABLES: Mapping[str, str] = {
    CONFIG: "The configuration file; empty: none",
    DEFAULT_MODEL: "The embedding model where none is named: a configured or recorded name, a folder or a reference",
    RERANKER: "The reranker where none is named",
    MODEL_PATH: "The folder of the embedding model where none is named",
    RERANKER_PATH: "The folder of the reranker where none is named",
    SERVER_URL: "A server, as `tei+http://...`, `ollama+http://...` or `openai+http://...`; without such a word it is "
    "asked once what it is. Used by `EMBRIEF_NATIVE=0`; by configured servers of that kind that have no `base_url` "
    "(without a word: of every kind), but never in the place of a company's service; and where a runtime is named "
    'without an address, such as `backend="tei"` or `ollama:NAME`, if the word is its own',
    DEVICE: "The device of models in this process: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`",
    NATIVE: "Unset: models run in this process, and on servers where they are named; `0`: on servers only; `1`: in "
    "this process only",
    "EMBRIEF_DAEMON_IDLE": "Minutes without a command after which the process of `embrief daemon` ends; 30 unless set",
    "EMBRIEF_PLUGINS": "Names of the plugins to load, with commas between; empty: none",
}
"""What each is for, for the documentation."""

FOR_TESTS = (
    "EMBRIEF_TEST_DATA", "EMBRIEF_REAL_MODELS", "EMBRIEF_EXITS", "EMBRIEF_LOWEST", "EMBRIEF_INFINITY", "EMBRIEF_RECORD",
    "EMBRIEF_CHROMIUM", "EMBRIEF_TEST_IMAGES",
)  # fmt: skip
"""What the project's own tests read."""

SERVER_KINDS = ("ollama", "tei", "openai")
"""The words before the address of a server."""
_FLAGS = {"0": False, "false": False, "no": False, "off": False, "1": True, "true": True, "yes": True, "on": True}


def read(name: str) -> str | None:
    """Return a variable's value, `None` where it is not set or empty."""
    return os.environ.get(name, "").strip() or None


def native() -> bool | None:
    """Return whether models run in this process only (`True`), on servers only (`False`), or as it is written.

    Raises:
        ArgumentError: The variable has another value.
    """
    text = read(NATIVE)
    if text is None:
        return None
    if text.lower() not in _FLAGS:
        raise ArgumentError(f"{NATIVE}={text[:40]!r} is not known; set it to 0 or 1, or unset it")
    return _FLAGS[text.lower()]


@dataclass(frozen=True, slots=True)
class Server:
    """The server that the environment names."""

    kind: str | None
    """`"ollama"`, `"tei"` or `"openai"`; `None`: it is not said."""
    url: str


def server() -> Server | None:
    """Return the server that the environment names, `None` if it names none. Asks nothing.

    Raises:
        ArgumentError: The variable is no address.
    """
    # Inside the function: a command's help needs no addresses.
    from embrief.servers.address import parse_address

    text = read(SERVER_URL)
    if text is None:
        return None
    kind, plus, url = text.partition("+")
    if not plus or kind.lower() not in SERVER_KINDS:
        kind, url = "", text
    if not url.lower().startswith(("http://", "https://")):
        raise ArgumentError(
            f"{SERVER_URL} is no address: write tei+http://host:port, ollama+http://host:port or "
            "openai+http://host:port/v1"
        )
    parse_address(url, SERVER_URL)
    return Server(kind.lower() or None, url)


def unknown_variables() -> list[str]:
    """Say of each variable that looks like ours, and is none, which it might mean."""
    known = {*VARIABLES, *FOR_TESTS}
    told = []
    for name in sorted(os.environ):
        if name.upper().startswith("EMBRIEF_") and name not in known:
            near = difflib.get_close_matches(name.upper(), VARIABLES, n=1, cutoff=0.75)
            told.append(f"the variable {name} is not known{f'; did you mean {near[0]}?' if near else ', and not read'}")
    return told
