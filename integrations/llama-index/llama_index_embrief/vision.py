"""The classes for texts and pictures in one space."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from llama_index.core.bridge.pydantic import Field
from llama_index.core.embeddings import MultiModalEmbedding

from embrief.wrapping import PicturedText, as_image
from llama_index_embrief.base import EmbriefEmbedding
from llama_index_embrief.pictures import pictures
from llama_index_embrief.rerank import Qwen3Rerank

if TYPE_CHECKING:
    from llama_index_embrief.cache import Rows


class Qwen3VLEmbedding(EmbriefEmbedding, MultiModalEmbedding):
    """Qwen3-VL-Embedding in LlamaIndex: texts and pictures in one space, also both in one node.

    A picture is the path of a local file (a string or a `Path`), an open file, bytes, an image of Pillow, pixels, or an
    `embrief.Image`. Addresses are not fetched. Nodes that are embedded as nodes (in an `IngestionPipeline`, or by
    calling `embed_model(nodes)`) are embedded with their picture and their text together.

    Examples:
        >>> from llama_index_embrief import Qwen3VLEmbedding
        >>> embed_model = Qwen3VLEmbedding(dim=256, max_pixels=500_000)  # nothing is loaded yet
        >>> embed_model.model_name, embed_model.max_pixels
        ('Qwen/Qwen3-VL-Embedding-2B', 500000)
    """

    model_name: str = Field(default="Qwen/Qwen3-VL-Embedding-2B", frozen=True)

    _other: ClassVar[str] = "Qwen3VLRerank({model})"

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "Qwen3VLEmbedding"

    @property
    def _sees(self) -> bool:
        # Whatever the model: one that takes texts only refuses pictures, instead of leaving them out.
        return True

    def get_image_embedding(self, img_file_path: Any) -> list[float]:
        """Embed one picture, as a document. `get_image_query_embedding` is for queries.

        Args:
            img_file_path: The picture; despite LlamaIndex's name, in any form.

        Returns:
            `dim` floats.

        Raises:
            ArgumentTypeError: It is no picture, or the model takes texts only.
            ArgumentError: It is an address, or no picture that can be read.
        """
        return self.get_image_embedding_batch([img_file_path])[0]

    async def aget_image_embedding(self, img_file_path: Any) -> list[float]:
        """`get_image_embedding` without blocking the event loop."""
        return (await self.aget_image_embedding_batch([img_file_path]))[0]

    def get_image_embedding_batch(self, img_file_paths: list[Any], show_progress: bool = False) -> Rows:
        """Embed pictures, as documents.

        Args:
            img_file_paths: Any number of pictures, also none. All are decoded before the first is embedded.
            show_progress: As of `get_text_embedding_batch`.

        Returns:
            `dim` floats per picture, in input order.

        Raises:
            ArgumentTypeError, ArgumentError: As of `get_image_embedding`; the error has the index.
        """
        return self.get_text_embedding_batch(pictures(img_file_paths), show_progress)

    async def aget_image_embedding_batch(self, img_file_paths: list[Any], show_progress: bool = False) -> Rows:
        """`get_image_embedding_batch` without blocking the event loop."""
        found = await self._embedder.off_loop(partial(pictures, img_file_paths))
        return await self.aget_text_embedding_batch(found, show_progress)

    def get_image_query_embedding(
        self, image: object, text: str = "", *, instruction: str | None = None
    ) -> list[float]:
        """Embed a query that is a picture, or a picture and a text. `image_query` makes one for retrievers.

        Args:
            image: The picture.
            text: What else to ask.
            instruction: What this query is for; wins over the constructor's.

        Returns:
            `dim` floats.

        Raises:
            ArgumentTypeError, ArgumentError: As of `get_image_embedding`.
        """
        return self.get_query_embedding(PicturedText(text, [as_image(image, "image")]), instruction=instruction)

    async def aget_image_query_embedding(
        self, image: object, text: str = "", *, instruction: str | None = None
    ) -> list[float]:
        """`get_image_query_embedding` without blocking the event loop."""
        picture = await self._embedder.off_loop(partial(as_image, image, "image"))
        return await self.aget_query_embedding(PicturedText(text, [picture]), instruction=instruction)

    def _get_image_embedding(self, img_file_path: Any) -> list[float]:
        return self._get_text_embedding(pictures([img_file_path])[0])

    async def _aget_image_embedding(self, img_file_path: Any) -> list[float]:
        return await self._aget_text_embedding(pictures([img_file_path])[0])


class Qwen3VLRerank(Qwen3Rerank):
    """Qwen3-VL-Reranker as a LlamaIndex node postprocessor, over nodes with texts, pictures, or both.

    The query may hold a picture: `image_query(...)`, or a `QueryBundle` with an `image_path`.

    Examples:
        >>> from llama_index_embrief import Qwen3VLRerank
        >>> Qwen3VLRerank(top_n=3).model  # nothing is loaded yet
        'Qwen/Qwen3-VL-Reranker-2B'
    """

    model: str = Field(default="Qwen/Qwen3-VL-Reranker-2B", frozen=True)

    _other: ClassVar[str] = "Qwen3VLEmbedding({model})"

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this class."""
        return "Qwen3VLRerank"

    @property
    def _sees(self) -> bool:
        # As of the embedding.
        return True
