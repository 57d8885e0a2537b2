"""The results of an evaluation: plain values, per question, so that later runs can be compared question by question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import embrief
from embrief.evaluation import result_files
from embrief.evaluation.measures import NAMES, Difference, difference, mean
from embrief.system.installed import installed_version

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.evaluation.retrieval_set import RetrievalSet
    from embrief.evaluation.systems import Ranked, Variant

_COMMAND = "embrief eval"
_FORMAT = 1
_PACKAGES = ("torch", "transformers", "sentence-transformers", "numpy", "ir-measures", "bm25s")


@dataclass(slots=True)
class Results:
    """Lines of the table, set by set."""

    rows: list[dict[str, Any]]

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a results file.

        Raises:
            ArgumentError: There is none, or it is something else.
        """
        return cls(result_files.load(file, _COMMAND, _FORMAT, list)["rows"])

    def save(self, file: Path) -> None:
        """Write the results, whole or not at all."""
        result_files.save(self.to_json(), file)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"command": _COMMAND, "format": _FORMAT, "rows": self.rows}

    def sets(self) -> dict[str, list[dict[str, Any]]]:
        """Return the lines of each set."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault(row["set"], []).append(row)
        return found

    def find(self, found: RetrievalSet, variant: Variant) -> dict[str, Any] | None:
        """Return the line of a variant if it was measured on exactly this set, with exactly this model."""
        for row in self.rows:
            if (row["digest"], row["system"], row["identity"]) == (found.digest, variant.label, variant.identity):
                return row
        return None


def make_row(found: RetrievalSet, ranked: Ranked, values: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the line of one variant on one set.

    Args:
        found: The set.
        ranked: What the variant found.
        values: Each measure of each question.
    """
    variant = ranked.variant
    return {
        "set": found.name,
        "digest": found.digest,
        "documents": len(found.corpus),
        "queries": len(found.queries),
        "system": variant.label,
        "identity": dict(variant.identity),
        "against": variant.against,
        "date": result_files.now(),
        "versions": _versions(),
        "truncated": ranked.truncated,
        "seconds": {name: round(value, 3) for name, value in ranked.seconds.items()},
        "measures": {name: asdict(mean(list(of_queries.values()))) for name, of_queries in values.items()},
        "per_query": {
            name: {query: round(value, 6) for query, value in of_queries.items()} for name, of_queries in values.items()
        },
    }


def _versions() -> dict[str, str]:
    known = {name: version for name in _PACKAGES if (version := installed_version(name))}
    return {"embrief": embrief.__version__, **known}


def gain(row: dict[str, Any], rows: list[dict[str, Any]], measure: str = NAMES[0]) -> tuple[str, Difference] | None:
    """Return which line of the same set a line is compared with, and what it gains; `None` for the first.

    Args:
        row: The line.
        rows: All lines of the set.
        measure: What is compared.
    """
    base = next((other for other in rows if other["system"] == row["against"]), rows[0])
    if base is row:
        return None
    return base["system"], difference(base["per_query"][measure], row["per_query"][measure])
