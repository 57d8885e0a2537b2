"""What `make lowest` leaves out is there, and no version of a package has a bearing on it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_left_out_exists_and_torch_is_the_same() -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "lowest.py"))
    assert [path for path in script["LEFT_OUT"] if not (ROOT / path).exists()] == []
    # Else the tests of what depends on torch alone belong to the run.
    (pinned,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert script["release"](pinned) == script["release"](script["floors"]()["torch"])
