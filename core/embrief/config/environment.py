"""The variables that embrief reads: one table, and what is told of others that begin like them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping

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
    "asked once what it is. Used by `EMBRIEF_NATIVE=0`, by configured servers that have no `base_url`, and where a "
    'runtime is named without an address, such as `backend="tei"`',
    DEVICE: "The device of models in this process: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`",
    NATIVE: "Unset: models run in this process, and on servers where they are named; `0`: on servers only; `1`: in "
    "this process only",
    "EMBRIEF_PLUGINS": "Names of the plugins to load, with commas between; empty: none",
}
"""What each is for, for the documentation."""

FOR_TESTS = (
    "EMBRIEF_TEST_DATA", "EMBRIEF_REAL_MODELS", "EMBRIEF_EXITS", "EMBRIEF_LOWEST", "EMBRIEF_INFINITY", "EMBRIEF_RECORD",
)  # fmt: skip
"""What the project's own tests read."""

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


def unknown_variables() -> list[str]:
    """Say of each variable that looks like ours, and is none, which it might mean."""
    known = {*VARIABLES, *FOR_TESTS}
    told = []
    for name in sorted(os.environ):
        if name.upper().startswith("EMBRIEF_") and name not in known:
            near = difflib.get_close_matches(name.upper(), VARIABLES, n=1, cutoff=0.75)
            told.append(f"the variable {name} is not known{f'; did you mean {near[0]}?' if near else ', and not read'}")
    return told
