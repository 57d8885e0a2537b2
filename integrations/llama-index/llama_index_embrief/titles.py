"""Titles of nodes, for models that were trained with a place for them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Self

from llama_index.core.schema import BaseNode, MetadataMode


class TitledText(str):
    """A document's text that knows its title.

    The framework's batching, events and callbacks pass strings, so a string with a title goes through them.
    """

    document_title: str | None

    def __new__(cls, text: str, title: str | None = None) -> Self:
        """Return the text with its title, which pickle and deepcopy set afterwards."""
        made = super().__new__(cls, text)
        made.document_title = title
        return made


def embed_texts(nodes: Sequence[BaseNode], title_key: str | None) -> list[str]:
    """Return the texts of nodes to embed. With a key, titles come from the metadata and are not in the texts."""
    if title_key is None:
        return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
    return [_titled(node, title_key) for node in nodes]


def _titled(node: BaseNode, key: str) -> TitledText:
    excluded = [*node.excluded_embed_metadata_keys, key]
    # A shallow copy: other threads may read the node.
    body = node.model_copy(update={"excluded_embed_metadata_keys": excluded})
    return TitledText(body.get_content(metadata_mode=MetadataMode.EMBED), node.metadata.get(key))


def warn_untitled(texts: Sequence[str], title_key: str | None) -> None:
    """Warn if titles are wanted and the framework passed bare strings, as indexes do."""
    if title_key is not None and texts and not any(isinstance(text, TitledText) for text in texts):
        warnings.warn(
            f"title_metadata_key={title_key!r} has no effect on these texts: an index passes strings, not nodes. Put "
            "the embedding into the transformations of an IngestionPipeline, or call it on the nodes before you "
            "index them",
            UserWarning,
            stacklevel=3,
        )


def title_of(text: str) -> str | None:
    """Return the title of a text, if it has one."""
    return text.document_title if isinstance(text, TitledText) else None


def titles_of(texts: Sequence[str]) -> list[str | None] | None:
    """Return the titles, or `None` if no text has one."""
    titles = [title_of(text) for text in texts]
    return titles if any(title is not None for title in titles) else None
