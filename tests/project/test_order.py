"""The order in which test files are handed out to the processes of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_the_longest_files_are_there_and_come_first(request: pytest.FixtureRequest) -> None:
    (conftest,) = [
        module
        for module in request.config.pluginmanager.get_plugins()
        if getattr(module, "__file__", None) == str(TESTS / "conftest.py")
    ]
    longest = [TESTS / name for name in conftest.LONGEST]
    assert [file for file in longest if not file.is_file()] == []
    found = list(dict.fromkeys(item.path for item in request.session.items))
    first = [file for file in longest if file in found]
    assert found[: len(first)] == first
