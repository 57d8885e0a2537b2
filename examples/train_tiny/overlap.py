"""Does a retrieval set share text with the training texts? python examples/train_tiny/overlap.py ITEMS SET [SET ...]

ITEMS is the items.jsonl of a run; each SET is what `embrief eval` reads. Counted are questions that equal a training
query, and documents of which some `WINDOW` words in a row stand in a training text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import texts

from embrief.evaluation.formats import load

WINDOW = 12


def main() -> None:
    items = texts.load(Path(sys.argv[1]))
    asked = {" ".join(_words(item.query)) for item in items}
    known = {window for item in items for window in _windows(item.text)}
    for path in sys.argv[2:]:
        for found in load(Path(path)):
            questions = sum(" ".join(_words(text)) in asked for text in found.queries.values())
            shared = [name for name, text in found.corpus.items() if not known.isdisjoint(_windows(text))]
            print(f"{found.name}: {questions} questions, {len(shared)} of {len(found.corpus)} documents {shared[:5]}")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _windows(text: str) -> Iterator[int]:
    words = _words(text)
    for place in range(len(words) - WINDOW + 1):
        yield hash(tuple(words[place : place + WINDOW]))


if __name__ == "__main__":
    main()
