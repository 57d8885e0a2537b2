"""Published values of models that take pictures, and how values of ours are compared with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief import Embedder, Image, Reranker

if TYPE_CHECKING:
    from numpy.typing import NDArray

Case = dict[str, Any]
"""One table of published values: its inputs, the unit of its scores, and how far ours may be from them."""
CASES: list[Case] = json.loads((Path(__file__).parent / "goldens" / "vision.json").read_text("utf-8"))
PARTS = ("texts", "pictures")
"""The values of a table that need no picture, and the others: who has no pictures can check the first."""


def pictures_of(case: Case) -> set[str]:
    """Return the file names of all pictures of a table."""
    return {item["image"] for item in (*case["rows"], *case["columns"]) if _pictured(item)}


def chosen(case: Case, part: str) -> NDArray[np.bool_]:
    """Return which values belong to a part, (rows, columns)."""
    rows, columns = (np.array([_pictured(item) for item in case[side]]) for side in ("rows", "columns"))
    pictured = rows[:, None] | columns[None]
    return pictured if part == "pictures" else ~pictured


def check(case: Case, part: str, facade: Embedder | Reranker, images: Mapping[str, Image]) -> None:
    """Compare a model's values with the published ones.

    Args:
        case: The table.
        part: One of `PARTS`; values of the other are not computed.
        facade: The model.
        images: The pictures by their file names; those that the part needs.

    Raises:
        AssertionError: A value is farther away than `atol` says for its part.
    """
    wanted = chosen(case, part)
    expected = np.array(case["scores"], np.float64)
    if case["unit"] == "log-odds":
        # Differences in log-odds say little where the answer is clear.
        expected = 1 / (1 + np.exp(-expected))
    found = np.full(expected.shape, np.nan)
    rows, columns = np.flatnonzero(wanted.any(1)), np.flatnonzero(wanted.any(0))
    row_inputs = [_input(case["rows"][place], images) for place in rows]
    column_inputs = [_input(case["columns"][place], images) for place in columns]
    if isinstance(facade, Reranker):
        values = np.array([facade.score(row, column_inputs, instruction=case["instruction"]) for row in row_inputs])
    else:
        values = _vectors(case, facade, row_inputs) @ facade.embed_documents(column_inputs).T
    found[np.ix_(rows, columns)] = values
    np.testing.assert_allclose(found[wanted], expected[wanted], rtol=0, atol=case["atol"][part], err_msg=case["id"])


def _vectors(case: Case, embedder: Embedder, inputs: list[Any]) -> NDArray[np.float32]:
    if case["rows_are"] == "documents":
        return embedder.embed_documents(inputs)
    return embedder.embed_queries(inputs, instruction=case["instruction"])


def _pictured(item: Any) -> bool:
    return isinstance(item, dict)


def _input(item: Any, images: Mapping[str, Image]) -> Any:
    return {**item, "image": images[item["image"]]} if _pictured(item) else item
