"""The classes for texts and pictures in one space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from embrief.wrapping import PicturedText, as_image, ato_lists, listed, to_lists
from langchain_embrief.base import EmbriefEmbeddings
from langchain_embrief.pictures import content
from langchain_embrief.reranker import Qwen3Reranker

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import Document

    from embrief import Image
    from embrief.wrapping import Input


class Qwen3VLEmbeddings(EmbriefEmbeddings):
    """Qwen3-VL-Embedding in LangChain: texts and pictures in one space, also both in one document.

    Where a text goes, there may be a `Document` with a picture in its metadata ("image"), a message, a list of content
    blocks, an `embrief.Image`, or a list of images and texts. Vector stores pass strings alone: see `with_pictures` and
    `image_query`. Addresses are not fetched.

    Examples:
        >>> from langchain_embrief import Qwen3VLEmbeddings
        >>> Qwen3VLEmbeddings(dim=256, max_pixels=500_000)  # nothing is loaded yet
        Qwen3VLEmbeddings(model='Qwen/Qwen3-VL-Embedding-2B', max_pixels=500000, dim=256)
    """

    model: str = "Qwen/Qwen3-VL-Embedding-2B"

    _other: ClassVar[str] = "Qwen3VLReranker({model})"

    def embed_images(self, images: Sequence[Any]) -> list[list[float]]:
        """Embed pictures, as documents.

        Args:
            images: Any number of pictures, also none: paths of local files (also as strings), bytes, open files, images
                of Pillow, pixels, `embrief.Image`s. All are decoded before the first is embedded.

        Returns:
            One list of `dim` floats per picture, in input order.

        Raises:
            ArgumentTypeError: An item is no picture, or the model takes texts only; the error has the index.
            ArgumentError: A picture is an address, or cannot be read; the error has the index.
        """
        return to_lists(self._embedder.embed_documents(_images(images)))

    async def aembed_images(self, images: Sequence[Any]) -> list[list[float]]:
        """`embed_images` without blocking the event loop."""
        found = await self._embedder.off_loop(partial(_images, images))
        return await ato_lists(self._embedder, await self._embedder.aembed_documents(found))

    def embed_image(self, uris: Sequence[Any]) -> list[list[float]]:
        """`embed_images`, by the name that LangChain's Chroma store calls for its `add_images`."""
        return self.embed_images(uris)

    def embed_image_query(
        self, image: object, text: str = "", *, instruction: str | None = None, task: str | None = None
    ) -> list[float]:
        """Embed a query that is a picture, or a picture and a text.

        Args:
            image: The picture, as of `embed_images`.
            text: What else to ask.
            instruction: What this query is for; wins over the constructor's.
            task: The task of this call; wins over the constructor's.

        Returns:
            `dim` floats.

        Raises:
            ArgumentTypeError, ArgumentError: As of `embed_images`.
        """
        query = PicturedText(text, [as_image(image, "image")])
        return self.embed_query(query, instruction=instruction, task=task)

    async def aembed_image_query(
        self, image: object, text: str = "", *, instruction: str | None = None, task: str | None = None
    ) -> list[float]:
        """`embed_image_query` without blocking the event loop."""
        query = PicturedText(text, [await self._embedder.off_loop(partial(as_image, image, "image"))])
        return await self.aembed_query(query, instruction=instruction, task=task)

    # These take more than a string, which their types should say.
    def embed_query(self, text: Any, *, instruction: str | None = None, task: str | None = None) -> list[float]:
        """Embed one query, a text or anything that may stand for one; otherwise as of the other classes."""
        return super().embed_query(text, instruction=instruction, task=task)

    def embed_documents(
        self, texts: Sequence[Any], *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> list[list[float]]:
        """Embed documents, texts or anything that may stand for one; otherwise as of the other classes."""
        return super().embed_documents(texts, titles=titles, task=task)

    async def aembed_query(self, text: Any, *, instruction: str | None = None, task: str | None = None) -> list[float]:
        """`embed_query` without blocking the event loop."""
        return await super().aembed_query(text, instruction=instruction, task=task)

    async def aembed_documents(
        self, texts: Sequence[Any], *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> list[list[float]]:
        """`embed_documents` without blocking the event loop."""
        return await super().aembed_documents(texts, titles=titles, task=task)

    def _input(self, value: Any, what: str, index: int | None = None) -> Input:
        return content(value, what, index)


class Qwen3VLReranker(Qwen3Reranker):
    """Qwen3-VL-Reranker in LangChain, over documents that have texts, pictures, or both.

    A document's picture is what its metadata has as "image" (base64, a content block, an `embrief.Image`, a `Path`), or
    what `with_pictures` gave it. The query may hold pictures, too: `image_query(...)`, a message, content blocks.

    Examples:
        >>> from langchain_embrief import Qwen3VLReranker
        >>> Qwen3VLReranker(top_n=3)  # nothing is loaded yet
        Qwen3VLReranker(model='Qwen/Qwen3-VL-Reranker-2B', top_n=3)
    """

    model: str = "Qwen/Qwen3-VL-Reranker-2B"

    _other: ClassVar[str] = "Qwen3VLEmbeddings({model})"

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: Any,
        callbacks: Callbacks | None = None,
        *,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[Document]:
        """Return the documents that fit the query best, as `Qwen3Reranker` does, by their texts and pictures.

        Raises:
            ArgumentTypeError, ArgumentError: As there; or a picture is none, an address, or cannot be read, or the
                model takes texts only. The error has the document's index.
        """
        return super().compress_documents(documents, query, callbacks, instruction=instruction, top_n=top_n)

    def _input(self, value: Any, what: str, index: int | None = None) -> Input:
        return content(value, what, index)

    def _document(self, placed: tuple[int, Document]) -> Input:
        # Whatever the model: one that takes texts only refuses pictures, instead of leaving them out.
        return content(placed[1], f"documents[{placed[0]}]", placed[0])


def _images(values: object) -> list[Image]:
    found = listed(values, "images", "pictures")
    return [as_image(item, f"images[{index}]", index) for index, item in enumerate(found)]
