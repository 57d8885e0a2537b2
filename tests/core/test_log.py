"""The one logger: what it says, and what it never says."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from embrief import Embedder, ItemFailedError, Reranker
from embrief.testing import FakeRuntime

SECRET = "my own words"


def records(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    assert {record.name for record in caplog.records} <= {"embrief"}
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_load_says_what_runs_where_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="embrief")
    with FakeRuntime(batch_tokens=64) as fake:
        embedder = Embedder(fake.qwen3)
        embedder.embed_query(SECRET)
        embedder.embed_query(SECRET)
        chosen, loading, loaded = records(caplog)
        reason = embedder.info()["backend_reason"]
        assert chosen == ("INFO", f"{fake.qwen3} runs with {fake._name!r} on cpu in float32: {reason}")
        assert loading == ("INFO", f"loading {fake.qwen3} with {fake._name!r}")
        assert loaded[0] == "INFO"
        assert loaded[1].startswith(f"loaded {fake.qwen3} with {fake._name!r} in ")
        caplog.clear()
        Reranker(fake.reranker).score(SECRET, [SECRET])
        assert len(records(caplog)) == 3


def test_halved_batches_are_a_warning_with_numbers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="embrief")
    with FakeRuntime(batch_tokens=64, memory=16) as fake:
        embedder = Embedder(fake.qwen3).load()
        caplog.clear()
        embedder.embed_documents([f"{SECRET} {number}" for number in range(16)])
        found = records(caplog)
    assert found[0] == (
        "WARNING",
        "memory ran out with 16 rows (64 tokens) in a batch; batches hold at most 32 tokens from now on",
    )
    assert len(found) == 2


def test_a_batch_that_failed_is_told_without_its_texts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="embrief")

    def fault(texts: list[str]) -> None:
        if any("bad" in text for text in texts):
            raise ValueError(f"cannot run {texts}")

    with FakeRuntime(batch_tokens=64, fault=fault) as fake:
        embedder = Embedder(fake.qwen3)
        with pytest.raises(ItemFailedError):
            embedder.embed_documents([f"{SECRET} {number}" for number in range(7)] + ["bad"])
    assert ("DEBUG", "a batch of 8 rows failed (ValueError); running its halves") in records(caplog)
    assert not [message for _, message in records(caplog) if SECRET in message or "bad" in message]


def test_an_application_without_logging_sees_nothing() -> None:
    code = """
import logging, warnings
warnings.simplefilter("ignore")
import embrief
assert [type(handler).__name__ for handler in logging.getLogger("embrief").handlers] == ["NullHandler"]
assert logging.getLogger("embrief").level == logging.NOTSET and logging.getLogger("embrief").propagate
from embrief.testing import FakeRuntime
with FakeRuntime(batch_tokens=64, memory=16) as fake:
    embrief.Embedder(fake.qwen3).embed_documents([f"some words here {number}" for number in range(16)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
