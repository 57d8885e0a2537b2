"""Make embrief/tiny-embedding and embrief/tiny-reranker: python examples/train_tiny --work FOLDER.

Every step keeps its result in the folder, and a second call goes on after the last finished step; a training that was
stopped begins again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import judge
import judge_start
import numpy as np
import publish
import sources
import start
import student
import teacher
import texts
import vocabulary
from numpy.typing import NDArray
from tokenizers import Tokenizer

EMBEDDING_PIECES, RERANKER_PIECES = 23552, 10240
"""Tokens of each: more of them know more words; together the two models stay below 24 MB."""
EMBEDDING_STEPS, RERANKER_STEPS = 2200, 1100
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(prog="train_tiny", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where downloads, steps and the models are kept")
    parser.add_argument("--embedding-steps", type=int, default=EMBEDDING_STEPS)
    parser.add_argument("--reranker-steps", type=int, default=RERANKER_STEPS)
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)

    archives = work / "archives"
    sources.fetch(archives)
    corpus = work / "items.jsonl"
    _once(corpus, lambda part: texts.write(texts.read(archives), part))
    items = texts.load(corpus)
    queries, documents = [item.query for item in items], [item.text for item in items]
    print(f"{len(items):,} texts and as many queries", flush=True)

    taught_q = _array(work / "queries.npy", lambda: teacher.embed(queries, max_tokens=64, batch=128))
    taught_d = _array(work / "documents.npy", lambda: teacher.embed(documents, max_tokens=224, batch=32))
    hard = _array(work / "hard.npy", lambda: student.mine(taught_q, taught_d))
    taught = np.concatenate([taught_q, taught_d])
    axes = _array(work / "axes.npy", lambda: start.axes(taught, start.VALUES))
    targets = taught @ axes
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)

    def started(name: str, pieces: int) -> tuple[student.Lessons, NDArray[np.float32]]:
        """Return what to learn, in a model's own tokens, and where their vectors start."""
        both = _interleaved(documents, queries)
        found = work / f"tokenizer_{name}.json"
        _once(found, lambda part: vocabulary.train(both, pieces).save(str(part)))
        tokenizer = Tokenizer.from_file(str(found))

        def fitted() -> NDArray[np.float32]:
            ids = [encoding.ids for encoding in tokenizer.encode_batch([*queries, *documents])]
            words = [tokenizer.decode([token]).strip() for token in range(pieces)]
            made = start.fit_tokens(ids, targets, teacher.embed(words, max_tokens=16, batch=256) @ axes)
            # What only marks a place means nothing.
            made[: len(vocabulary.SPECIALS)] = made[-len(vocabulary.MARKS) :] = 0.0
            return made

        tokens = _array(work / f"tokens_{name}.npy", fitted)
        return student.Lessons(items, tokenizer, taught_q, taught_d, hard), tokens

    if not (embedding := work / "tiny_embedding").exists():
        lessons, tokens = started("embedding", EMBEDDING_PIECES)
        model = start.model(tokens)
        student.train(model, lessons, axes, steps=options.embedding_steps, seed=SEED, report=_report)
        _published(embedding, lambda part: publish.embedder(model, lessons.tokenizer, part))
        _record(work / "tiny_embedding.json", archives, options.embedding_steps, len(items))
    if not (reranker := work / "tiny_reranker").exists():
        lessons, tokens = started("reranker", RERANKER_PIECES)
        model = judge_start.model(tokens, lessons.tokenizer, SEED)
        judge.train(model, lessons, steps=options.reranker_steps, seed=SEED, report=_report)
        _published(reranker, lambda part: publish.reranker(model, lessons.tokenizer, part))
        _record(work / "tiny_reranker.json", archives, options.reranker_steps, len(items))
    print(f"{embedding} and {reranker} are ready; copy them to core/embrief/facts/records/")


def _once(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file if it is not there; one that was begun and not finished does not count."""
    if not path.exists():
        began = time.perf_counter()
        part = path.with_name(f"part-{path.name}")
        make(part)
        part.replace(path)
        print(f"{path.name}: {time.perf_counter() - began:,.0f} s", flush=True)


def _array(path: Path, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    _once(path, lambda part: np.save(part, make()))
    found: NDArray[Any] = np.load(path)
    return found


def _published(folder: Path, write: Callable[[Path], None]) -> None:
    part = folder.with_name(f"part-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    write(part)
    part.replace(folder)


def _record(path: Path, archives: Path, steps: int, count: int) -> None:
    """Note what a model was made with."""
    record = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy", "scipy")},
        "steps": steps,
        "texts": count,
        "archives": sources.digests(archives),
    }
    path.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def _interleaved(documents: list[str], queries: list[str]) -> list[str]:
    return [text for pair in zip(documents, queries, strict=True) for text in pair]


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
