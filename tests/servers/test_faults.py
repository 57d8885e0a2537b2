"""Every kind of server, with all that can go wrong: the checks that plugin authors get.

A thousand callers, and pauses of the usual length, belong to code that all kinds share: the first are asked of one
embedder, one reranker, and the kind with a loading answer of its own; the rules of pauses have tests in test_http.py.
"""

from __future__ import annotations

import pytest

import embrief
from embrief.servers import http
from embrief.testing import Faults, faults

from .wires import WIRES

pytest.importorskip("httpx")
IN_FULL = ("openai", "rerank-http", "hf-inference")
CASES = [
    pytest.param(name, check.__name__, id=f"{name}: {check.__name__}")
    for name, (wire, model) in WIRES.items()
    for check in Faults(wire, embrief.plugins().catalog.models[model]).checks()
    # Of the same runtime in another form.
    if "," not in name or check.__name__ != "many_callers"
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_a_server_that(name: str, check: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("hf-inference"):
        request.getfixturevalue("hub_online")
    if name not in IN_FULL:
        monkeypatch.setattr(faults, "_CALLERS", 50)
        # A server that is started again is away for a while.
        if check != "restarted":
            monkeypatch.setattr(http, "_pause", lambda attempt, after: after or 0.0)
    wire, model = WIRES[name]
    getattr(Faults(wire, embrief.plugins().catalog.models[model]), check)()
