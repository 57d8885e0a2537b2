"""Run every examples/*.py and compare what it prints with the comment that closes the file.

    python .ci/check_examples.py [name ...]

The comment starts with a line `# Output:`; each later line is `# ` and a line of output. A line `# ...`
stands for any number of lines. The scripts run in an empty folder, told not to use the network.
"""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 600
DEAD_PROXY = "http://127.0.0.1:9"  # the discard port: whoever asks for the network fails at once


def expected_output(source: str) -> list[str] | None:
    """Give the lines of the closing comment, or None when there is none."""
    lines = source.rstrip().splitlines()
    block: list[str] = []
    for line in reversed(lines):
        if line.strip() == "# Output:":
            return block[::-1]
        if not line.startswith("#"):
            return None
        block.append(line[1:].removeprefix(" ").rstrip())
    return None


def matches(expected: list[str], actual: list[str]) -> bool:
    """Compare line by line; "..." matches any number of lines."""
    reach = {0}  # how many lines of `actual` the lines of `expected` so far can have used
    for line in expected:
        if line == "...":
            reach = set(range(min(reach), len(actual) + 1)) if reach else set()
        else:
            reach = {n + 1 for n in reach if n < len(actual) and actual[n] == line}
    return len(actual) in reach


def run(path: Path) -> str | None:
    """Return what is wrong with an example, or None."""
    expected = expected_output(path.read_text(encoding="utf-8"))
    if expected is None:
        return "the file does not end with a comment `# Output:` and the lines it prints"
    env = dict(os.environ)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        env[name] = env[name.upper()] = DEAD_PROXY
    env["no_proxy"] = env["NO_PROXY"] = "127.0.0.1,localhost,::1"
    env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False"}
    env |= {"PYTHONUTF8": "1", "NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, str(path)],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"did not end within {TIMEOUT} s"
    actual = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
    if done.returncode:
        return f"ended with exit code {done.returncode}\n{done.stdout}{done.stderr}"
    if matches(expected, actual):
        return None
    diff = difflib.unified_diff(expected, actual, "closing comment", "what it printed", lineterm="")
    return "prints something else\n" + "\n".join(diff)


def main(names: list[str]) -> int:
    paths = sorted((ROOT / "examples").glob("*.py"))
    if names:
        paths = [path for path in paths if path.name in names or path.stem in names]
    if not paths:
        print("examples: none found")
        return 1
    failed = 0
    for path in paths:
        start = time.monotonic()
        problem = run(path)
        print(f"{'FAIL' if problem else 'ok  '} {path.name} ({time.monotonic() - start:.1f} s)", flush=True)
        if problem:
            failed += 1
            print("    " + problem.replace("\n", "\n    "))
    print(f"examples: {len(paths) - failed} of {len(paths)} ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
