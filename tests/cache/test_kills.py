"""Processes that are killed while they write: every row that is read afterwards is what the model gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embrief.cache import upkeep

KILLS = int(os.environ.get("EMBRIEF_KILLS", "25"))
"""How many; 100 take about half a minute."""
# Forked from one process that has opened nothing, since starting Python takes longer than the work.
DRIVER = """
import os, random, signal, sys, time
import numpy as np
from embrief import Embedder, SqliteCache
from embrief.cache import sqlite
cache = SqliteCache(path=sys.argv[1], max_bytes=3_000_000)
chance = random.Random(7)
texts = [f"text {number} of those that are written" for number in range(6000)]
plain = Embedder("embrief/hash", dim=256).embed_documents(texts)
for number in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        order = np.random.default_rng(number).permutation(len(texts))
        embedder = Embedder("embrief/hash", dim=256, cache=cache)
        while True:
            for start in range(0, len(order), 40):
                places = order[start : start + 40]
                found = embedder.embed_documents([texts[place] for place in places])
                if found.tobytes() != plain[places].tobytes():
                    os.write(2, b"a vector is wrong")
                    os._exit(1)
    time.sleep(chance.uniform(0.01, 0.25))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), status
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_every_row_is_right_after_kills_at_random_points(tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite3"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER, str(file), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert (done.returncode, done.stderr) == (0, "")
    check = """
import sys
from embrief import Embedder, SqliteCache
texts = [f"text {number} of those that are written" for number in range(6000)]
cached = Embedder("embrief/hash", dim=256, cache=SqliteCache(path=sys.argv[1]))
assert cached.embed_documents(texts).tobytes() == Embedder("embrief/hash", dim=256).embed_documents(texts).tobytes()
"""
    entries = upkeep.stats(str(file)).entries
    assert entries > 0
    verdict = upkeep.verify(str(file))
    assert (verdict.checked, verdict.bad, verdict.damage) == (entries, 0, "")
    assert not list(tmp_path.glob("*.aside-*"))
    subprocess.run([sys.executable, "-W", "error", "-c", check, str(file)], check=True, timeout=100)
