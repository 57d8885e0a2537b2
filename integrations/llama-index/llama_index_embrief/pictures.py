"""Pictures of nodes and queries, in the strings that LlamaIndex passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index.core.schema import ImageNode, MetadataMode, Node, QueryBundle

from embrief.wrapping import PicturedText, as_image, carried, listed, no_images
from llama_index_embrief.titles import TitledText, embed_texts, title_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.schema import BaseNode

    from embrief import Image, ModelSpec
    from embrief.wrapping import Input


class TitledPicture(PicturedText, TitledText):
    """A document's text that knows its title and its pictures."""


def pictures(values: object) -> list[str]:
    """Return pictures, in LlamaIndex's forms, as texts that carry them. A string is the path of a local file.

    Raises:
        ArgumentTypeError: `values` is no list, or an item is no picture; the error has the index.
        ArgumentError: An item is an address.
    """
    found = listed(values, "images", "pictures")
    return [PicturedText(images=[as_image(item, f"images[{index}]", index)]) for index, item in enumerate(found)]


def picture_of(node: BaseNode, index: int) -> Image | None:
    """Return the picture of a node, `None` if it has none. LlamaIndex's order: data, path, address.

    Raises:
        ArgumentError: Its picture is an address on a network, or no base64; the error has the index.
    """
    what = f"nodes[{index}]"
    data, path, url = _sources(node)
    if data is not None:
        # `MediaResource` holds bytes that are base64.
        text = data if isinstance(data, str) else data.decode("ascii", "replace")
        return as_image(text, what, index, strings="base64")
    if path is not None:
        return as_image(path, what, index)
    return None if url is None else as_image(str(url), what, index, strings="base64")


def _sources(node: BaseNode) -> tuple[str | bytes | None, object, object]:
    """Return the data, the path and the address of a node's picture, each `None` if it is not there."""
    if isinstance(node, ImageNode):
        return node.image, node.image_path, node.image_url
    if isinstance(node, Node) and (resource := node.image_resource) is not None:
        return resource.data, resource.path, resource.url
    return None, None, None


def caption(text: str, node: BaseNode, index: int, spec: ModelSpec) -> str:
    """Return a node's text for a model of texts, which is all that it sees of the node.

    Raises:
        ArgumentTypeError: The node has a picture and neither a text nor a title: nothing would be embedded or judged.
    """
    if not text.strip() and not title_of(text) and any(source is not None for source in _sources(node)):
        raise no_images(f"nodes[{index}]", spec, index)
    return text


def captions(nodes: Sequence[BaseNode], title_key: str | None, spec: ModelSpec) -> list[str]:
    """Return the texts of nodes to embed as of `embed_texts`, for a model of texts; errors as of `caption`."""
    texts = embed_texts(nodes, title_key)
    return [caption(text, node, index, spec) for index, (text, node) in enumerate(zip(texts, nodes, strict=True))]


def with_picture(text: str, node: BaseNode, index: int) -> str:
    """Return a node's text with the node's picture, as it is if there is none."""
    if (picture := picture_of(node, index)) is None:
        return text
    made = TitledPicture(text, [picture])
    made.document_title = text.document_title if isinstance(text, TitledText) else None
    return made


def pictured_texts(nodes: Sequence[BaseNode], title_key: str | None) -> list[str]:
    """Return the texts of nodes to embed as of `embed_texts`, each with its node's picture."""
    texts = embed_texts(nodes, title_key)
    return [with_picture(text, node, index) for index, (text, node) in enumerate(zip(texts, nodes, strict=True))]


def node_content(node: BaseNode, index: int, spec: ModelSpec, *, sees: bool) -> Input:
    """Return what a reranker reads of a node: its embed text, and its picture if it sees any; else as of `caption`."""
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    return carried(with_picture(text, node, index)) if sees else caption(text, node, index, spec)


def image_query(image: object, text: str = "") -> QueryBundle:
    """Return a query with a picture, for every retriever and for `Qwen3VLRerank`.

    Args:
        image: The path of a local file, also as a string; an `embrief.Image`; or anything that it is made of.
        text: What else to ask.

    Raises:
        ArgumentTypeError: It is no picture.
        ArgumentError: It is an address.

    Examples:
        >>> from pathlib import Path
        >>> from llama_index_embrief import image_query
        >>> image_query(Path("photo.png"), "the same place by night").query_str
        'the same place by night'
    """
    carrier = PicturedText(text, [as_image(image, "image")])
    return QueryBundle(query_str=text, custom_embedding_strs=[carrier])


def query_content(query: QueryBundle, spec: ModelSpec, *, sees: bool) -> Input:
    """Return what a reranker reads of a query: its text, and its pictures if it sees any.

    Raises:
        ArgumentTypeError: It has a picture and no text, and the model sees none; or the picture is none.
        ArgumentError: A picture is an address.
    """
    carriers = [text for text in query.custom_embedding_strs or () if isinstance(text, PicturedText)]
    if not sees:
        if not query.query_str.strip() and (query.image_path or any(text.images for text in carriers)):
            raise no_images("query_bundle", spec, None)
        return query.query_str
    if carriers:
        return carried(PicturedText(query.query_str, carriers[0].images))
    images = [as_image(path, "query_bundle.image_path") for path in query.embedding_image]
    return carried(PicturedText(query.query_str, images))
