"""Nodes, and the vectors that they get."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llama_index.core.schema import BaseNode

from embrief import ArgumentTypeError
from embrief.wrapping import listed

if TYPE_CHECKING:
    from llama_index_embrief.cache import Rows


def node_list(nodes: object) -> list[BaseNode]:
    """Return nodes as a list; an error has the index of what is none."""
    found = listed(nodes, "nodes")
    for index, node in enumerate(found):
        if not isinstance(node, BaseNode):
            raise ArgumentTypeError(
                f"nodes[{index}] is {type(node).__name__}; wrap a text as TextNode(text=...)", index=index
            )
    return found


def with_vectors(nodes: list[BaseNode], vectors: Rows, given: Iterable[BaseNode]) -> Sequence[BaseNode]:
    """Set the nodes' vectors, and return what the caller gave, or `nodes` if that was an iterator, which is used up."""
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector
    return given if isinstance(given, Sequence) else nodes
