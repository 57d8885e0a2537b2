"""Read pytest's JUnit report; fail on a skipped or expected-to-fail test that .ci/skips.txt does not list.

    python .ci/check_skips.py report.xml [--list .ci/skips.txt]

The report must be written with `-o junit_family=xunit1`, which records each test's file.
"""

from __future__ import annotations

import argparse
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

HERE = Path(__file__).resolve().parent


def node_id(case: ET.Element) -> str:
    """Give the id that pytest prints, as tests/core/test_x.py::TestA::test_b[param]."""
    file, classname, name = case.get("file", ""), case.get("classname", ""), case.get("name", "")
    if not file:  # a module skipped while it was collected has its dotted name only
        return (classname or name).replace(".", "/") + ".py"
    file = file.replace("\\", "/")
    module = file.removesuffix(".py").replace("/", ".")
    if classname in {"", module} and name == module:
        return file
    classes = classname.removeprefix(module).strip(".")
    return "::".join([file, *(classes.split(".") if classes else []), name])


def read_list(path: Path) -> list[tuple[re.Pattern[str], str]]:
    """Lines of `regex  # reason`; the regex must match the whole node id."""
    rules = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pattern, mark, reason = line.partition("  #")
        if not mark or not reason.strip():
            sys.exit(f"{path.name}:{number}: write `regex  # reason` (two blanks before the #)")
        rules.append((re.compile(pattern.strip()), reason.strip()))
    return rules


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--list", type=Path, default=HERE / "skips.txt")
    options = parser.parse_args()
    rules = read_list(options.list)
    used: set[str] = set()
    unlisted, total, failed, skipped = [], 0, 0, 0
    for case in ET.parse(options.report).getroot().iter("testcase"):
        total += 1
        failed += case.find("failure") is not None or case.find("error") is not None
        skip = case.find("skipped")
        if skip is None:
            continue
        skipped += 1
        identity = node_id(case)
        for pattern, _ in rules:
            if pattern.fullmatch(identity):
                used.add(pattern.pattern)
                break
        else:
            message = skip.get("message", "")
            if message == "collection skipped" and skip.text:  # a whole module: the reason is in the text
                message = skip.text.strip("() \n").replace("\\n", " ")
            unlisted.append((identity, message))
    for identity, message in unlisted:
        print(f"not in {options.list.name}: {identity}\n    skipped because: {message}")
    for pattern, reason in rules:
        if pattern.pattern not in used:
            print(f"note: nothing was skipped for: {pattern.pattern}  # {reason}")
    print(f"skips: {total} tests, {failed} failed, {skipped} skipped, {len(unlisted)} of them not listed")
    if not total:
        print("skips: the report holds no test at all")
    return 1 if unlisted or failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
