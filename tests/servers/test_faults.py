"""Every kind of server, with all that can go wrong: the checks that plugin authors get."""

from __future__ import annotations

import pytest

import embrief
from embrief.testing import Faults

from .wires import WIRES

pytest.importorskip("httpx")
CASES = [
    pytest.param(name, check.__name__, id=f"{name}: {check.__name__}")
    for name, (wire, model) in WIRES.items()
    for check in Faults(wire, embrief.plugins().catalog.models[model]).checks()
    # Of the same runtime in another form.
    if "," not in name or check.__name__ != "many_callers"
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_a_server_that(name: str, check: str, request: pytest.FixtureRequest) -> None:
    if name.startswith("hf-inference"):
        request.getfixturevalue("hub_online")
    wire, model = WIRES[name]
    getattr(Faults(wire, embrief.plugins().catalog.models[model]), check)()
