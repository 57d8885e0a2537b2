"""Pictures of documents and queries: where LangChain puts them, and the strings that carry them to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage

from embrief import ArgumentError, ArgumentTypeError, Image
from embrief.wrapping import PicturedText, as_image, carried
from langchain_embrief.documents import document_list

if TYPE_CHECKING:
    from embrief.wrapping import Input

IMAGE_KEY = "image"
"""Metadata key of a document's picture."""


def with_pictures(
    documents: Sequence[Document], *, image: Callable[[Document], object] | None = None
) -> list[Document]:
    """Return copies of documents that bring their pictures along, for `add_documents` of any vector store.

    A vector store hands the embeddings a document's text and nothing else. In these copies the text is a string that
    knows the pictures, too. To everybody else it is the text: that is what a store keeps and returns.

    Args:
        documents: The documents. They are not changed.
        image: Gives a document's picture, or several in a list, or `None`. By default what its metadata has as "image".
            A string is base64, never a path; return a `Path` for a file.

    Returns:
        A copy of each that has pictures, and the others as they are.

    Raises:
        ArgumentTypeError: `documents` is no list of documents, or a picture is none; the error has the index.
        ArgumentError: A picture is an address, or no base64; the error has the index.

    Examples:
        >>> from pathlib import Path
        >>> from langchain_core.documents import Document
        >>> from langchain_embrief import with_pictures
        >>> photos = [Document("Rome by night", metadata={"source": "rome.png"})]
        >>> ready = with_pictures(photos, image=lambda photo: Path(photo.metadata["source"]))
        >>> ready[0].page_content == "Rome by night"
        True
    """
    return [_with_picture(document, index, image) for index, document in enumerate(document_list(documents))]


def image_query(image: object, text: str = "") -> str:
    """Return a query with a picture as a string, for retrievers, vector stores and `Qwen3VLReranker`.

    Args:
        image: The path of a local file, also as a string; an `embrief.Image`; or anything that it is made of.
        text: What else to ask.

    Raises:
        ArgumentTypeError: It is no picture.
        ArgumentError: It is an address.
    """
    return PicturedText(text, [as_image(image, "image")])


def content(value: Any, what: str, index: int | None = None) -> Input:
    """Return what a facade takes of an input in LangChain's forms, and anything else as it is.

    Args:
        value: A string, a document, a message, a list with content blocks; or what the facade takes itself.
        what: What errors call it.
        index: Its place in the caller's list.

    Raises:
        ArgumentTypeError: A content block is neither text nor picture, or a message has none.
        ArgumentError: A picture is an address, or no base64.
    """
    if isinstance(value, Document):
        return carried(_with_picture(value, index or 0, None).page_content)
    if isinstance(value, BaseMessage):
        parts = [value.content] if isinstance(value.content, str) else value.content
        if not parts:
            raise ArgumentTypeError(f"{what} is a message that holds neither a text nor a picture", index=index)
        return _of_message(_message(parts), what, index)
    if isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
        if not all(isinstance(part, (str, Mapping)) for part in value):
            raise ArgumentTypeError(
                f"{what} mixes content blocks with other parts; write a text as a string, and a picture as a block",
                index=index,
            )
        return _of_message(_message(value), what, index)
    return carried(cast("Input", value))


def _with_picture(document: Document, index: int, image: Callable[[Document], object] | None) -> Document:
    if isinstance(document.page_content, PicturedText):
        return document
    found = document.metadata.get(IMAGE_KEY) if image is None else image(document)
    if found is None:
        return document
    what = f"the picture of documents[{index}]"
    several = found if isinstance(found, (list, tuple)) else [found]
    copy = document.model_copy()
    # Assigned: the constructor makes a plain string of it.
    copy.page_content = PicturedText(document.page_content, [_picture(item, what, index) for item in several])
    return copy


def _picture(value: object, what: str, index: int | None) -> Image:
    if not isinstance(value, Mapping):
        return as_image(value, what, index, strings="base64")
    for part in _parts(_message([value]), what, index):
        if isinstance(part, Image):
            return part
    raise ArgumentTypeError(f"{what} is a content block of a text; it must be one of a picture", index=index)


def _of_message(message: BaseMessage, what: str, index: int | None) -> Input:
    parts = _parts(message, what, index)
    text = "".join(part for part in parts if isinstance(part, str))
    return carried(PicturedText(text, [part for part in parts if isinstance(part, Image)]))


def _message(parts: Sequence[Any]) -> BaseMessage:
    return HumanMessage(content=[_long_form(part) for part in parts])


def _parts(message: BaseMessage, what: str, index: int | None) -> list[str | Image]:
    """Return the texts and pictures of a message. LangChain brings the blocks of all providers into one form."""
    found: list[str | Image] = []
    for block in cast("Sequence[Mapping[str, Any]]", message.content_blocks):
        if block["type"] == "text":
            if not isinstance(text := block.get("text"), str):
                raise ArgumentTypeError(
                    f"{what} has a block of type 'text' without a string as its text; put one there", index=index
                )
            found.append(text)
        elif block["type"] == "image":
            data = block.get("base64", block.get("url"))
            if data is None:
                raise ArgumentError(f"{what}: a picture without its bytes; send it as base64", index=index)
            found.append(as_image(data, what, index, strings="base64"))
        else:
            kind = block["value"].get("type") if block["type"] == "non_standard" else block["type"]
            raise ArgumentTypeError(f"{what} has a block of type {kind!r}; it may hold text and images", index=index)
    return found


def _long_form(block: Any) -> Any:
    """Return a block of OpenAI's short form, `{"image_url": "data:..."}`, in its long one."""
    if isinstance(block, Mapping) and isinstance(block.get("image_url"), str):
        return {**block, "image_url": {"url": block["image_url"]}}
    return dict(block) if isinstance(block, Mapping) else block
