"""Every claim of the page on security names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_row_names_a_test_that_exists() -> None:
    rows = [line for line in (ROOT / "docs" / "security.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| who", "|---"))]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/.]+?\.py)(?:::(\w+))?`", row)
        assert named, f"no test is named: {row}"
        for file, test in named:
            source = (ROOT / file).read_text("utf-8")
            assert not test or re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{file} has no {test}"
