"""What `make lowest` leaves out is there, and no version of a package has a bearing on it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


SAME = ("torch", "httpx")
"""Where one of these gets a floor below its pin, the tests of what depends on it alone belong to the run."""


def test_what_is_left_out_exists_and_depends_on_versions_that_are_the_same() -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "lowest.py"))
    for path in script["LEFT_OUT"]:
        file, _, test = path.partition("::")
        assert (ROOT / file).exists(), path
        assert not test or f"def {test}(" in (ROOT / file).read_text("utf-8"), path
    floors, constraints = script["floors"](), (ROOT / "constraints.txt").read_text("utf-8")
    for name in SAME:
        (pinned,) = re.findall(rf"^{name}==(\S+)$", constraints, re.MULTILINE)
        assert script["release"](pinned) == script["release"](floors[name]), name
