"""Embedders and rerankers for the benchmarks of mteb: its roles and task prompts become ours."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.errors import ArgumentError, MissingDependencyError
from embrief.facts.prompts import find_task
from embrief.facts.specs import EmbeddingSpec
from embrief.images.image import Image
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.facts.prompts import Input
    from embrief.facts.specs import Modality, ModelSpec
    from embrief.facts.vectors import Matrix

Batches = Iterable[Mapping[str, Sequence[Any]]]
"""What mteb's data loaders give: lists of texts under `text`, of pictures (Pillow's) under `image`, or both, and of
`title`, `body`, `query` and `instruction`."""

_PAIRS, _PICTURED_PAIRS = 1024, 32
"""Pairs per call of a reranker, and of one that takes pictures: those of more would fill the memory."""


class MtebEmbedder:
    """An embedder as mteb's `EncoderProtocol`: `mteb.evaluate(MtebEmbedder(Embedder()), tasks)`.

    The role decides the prompt. A model with a task of the benchmark task's type (such as EmbeddingGemma's
    `Classification`) uses that; one that follows instructions gets the benchmark task's own prompt as instruction, or
    the instruction of the query where the set has one. Titles go where the model has a place for them. Models that take
    pictures say so to mteb, which gives tasks with pictures to no others.
    """

    def __init__(self, embedder: Embedder) -> None:
        """Take an embedder as it is set up: width, number format and limits are its own."""
        self.embedder = embedder

    @property
    def mteb_model_meta(self) -> Any:
        """Return mteb's description of the model."""
        embedder = self.embedder
        return _meta(
            embedder.spec,
            embedder.query_fingerprint,
            embedder.max_tokens,
            embedder.modalities,
            embed_dim=embedder.dim,
        )

    def encode(
        self,
        inputs: Batches,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> Matrix:
        """Return one vector per input, (n, dim).

        Args:
            inputs: Texts, pictures or both in batches.
            task_metadata: The benchmark task; its type and prompt decide ours.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Query, document, or `None` where both sides are of one kind.
            **options: What other libraries need, such as a batch size.

        Raises:
            ArgumentError: The inputs are neither texts nor pictures, or one of them is empty where a picture may be;
                it has the index.
            ArgumentTypeError: They are pictures, and the model takes texts only.
        """
        portions = [
            self._encode(batches, task_metadata=task_metadata, prompt_type=prompt_type)
            for batches in _portions(_checked(inputs))
        ]
        return portions[0] if len(portions) == 1 else np.concatenate(portions)

    def _encode(
        self, batches: Sequence[Mapping[str, Sequence[Any]]], *, task_metadata: Any, prompt_type: Any
    ) -> Matrix:
        spec = self.embedder.spec
        task = _task(spec, str(task_metadata.type))
        role = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
        if role == "document":
            chosen = task or self.embedder._settings.task or spec.prompts.tasks[0].name
            titled = find_task(spec.prompts, chosen, model=spec.id).titled is not None
            texts, titles = _documents(batches, titled=titled, beside_pictures=not self._bare_pictures)
            return self.embedder.encode(texts, role="document", titles=titles, task=task).vectors
        if task is not None:
            return self.embedder.encode(_contents(batches), role="query", task=task).vectors
        given = _prompt(task_metadata.prompt, "query") if spec.prompts.instructed else None
        if role is None and given is None:
            return self.embedder.encode(_contents(batches), role="document").vectors
        return self._queries(batches, given)

    def _queries(self, batches: Sequence[Mapping[str, Sequence[Any]]], given: str | None) -> Matrix:
        instructed = self.embedder.spec.prompts.instructed is not None
        texts, instructions = _queries(batches, given, instructed=instructed)
        if self._bare_pictures:
            instructions = [
                own if isinstance(text, str) else None for text, own in zip(texts, instructions, strict=True)
            ]
        vectors = np.empty((len(texts), self.embedder.dim), np.float32)
        for instruction, places in _together(instructions):
            found = self.embedder.embed_queries([texts[place] for place in places], instruction=instruction)
            vectors[places] = found
        return vectors

    @property
    def _bare_pictures(self) -> bool:
        """Whether inputs with pictures have no prompt, and so no place for an instruction or a title."""
        images = self.embedder.spec.images
        return images is not None and images.prompt == "none"

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of every pair, (n, m)."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of each vector and its counterpart, (n,)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)


class MtebReranker:
    """A reranker as mteb's `CrossEncoderProtocol`. Instructions as in `MtebEmbedder`."""

    def __init__(self, reranker: Reranker) -> None:
        """Take a reranker as it is set up."""
        self.reranker = reranker

    @property
    def mteb_model_meta(self) -> Any:
        """Return mteb's description of the model."""
        reranker = self.reranker
        return _meta(
            reranker.spec,
            reranker.fingerprint,
            reranker.max_tokens,
            reranker.modalities,
            model_type=["cross-encoder"],
        )

    def predict(
        self,
        inputs1: Batches,
        inputs2: Batches,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Return P(relevant) of each pair, (n,).

        Args:
            inputs1: Queries in batches.
            inputs2: As many documents.
            task_metadata: The benchmark task.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Not used: the first side is the query.
            **options: What other libraries need.

        Raises:
            ArgumentError: As of `MtebEmbedder.encode`.
            ArgumentTypeError: A side holds pictures, and the model takes texts only.
        """
        given, instructed = _prompt(task_metadata.prompt, "query"), self.reranker.spec.instructed
        asked = (
            each
            for batch in _checked(inputs1)
            for each in zip(*_queries([batch], given, instructed=instructed), strict=True)
        )
        documents = (document for batch in _checked(inputs2) for document in _contents([batch]))
        pairs = zip(asked, documents, strict=True)
        scores = [np.empty(0, np.float32)]
        size = _PICTURED_PAIRS if "image" in self.reranker.modalities else _PAIRS
        while portion := list(itertools.islice(pairs, size)):
            found = np.empty(len(portion), np.float32)
            for instruction, places in _together([instruction for (_, instruction), _ in portion]):
                chosen = [(portion[place][0][0], portion[place][1]) for place in places]
                found[places] = self.reranker.score_pairs(chosen, instruction=instruction)
            scores.append(found)
        return np.concatenate(scores)


def _checked(inputs: Batches) -> Iterator[Mapping[str, Sequence[Any]]]:
    """Yield batches as they are asked for.

    Raises:
        ArgumentError: An input of a table with pictures has none, and no words either. It has the index.
    """
    start = 0
    for batch in inputs:
        pictures = batch.get("image")
        if pictures is not None:
            # With instructions, `text` has them beside the query.
            words = batch.get("query" if batch.get("instruction") else "text") or [None] * len(pictures)
            for index, (picture, text) in enumerate(zip(pictures, words, strict=True), start):
                if picture is None and not (text and text.strip()):
                    raise ArgumentError(
                        f"the input at index {index} has no picture and no words, and nothing is embedded in a "
                        "picture's place; take it out of the task",
                        index=index,
                    )
            start += len(pictures)
        yield batch


def _portions(inputs: Batches) -> Iterator[list[Mapping[str, Sequence[Any]]]]:
    """Yield batches that are embedded together: all texts, but the pictures of one batch, since decoded ones are large.

    mteb gives up to 50,000 documents at once, and reads the pictures of a batch when it is asked for.
    """
    batches = iter(inputs)
    first = list(itertools.islice(batches, 1))
    # All batches come from the columns of one table.
    if not first or "image" not in first[0]:
        first += batches
    yield first
    for batch in batches:
        yield [batch]


def _task(spec: EmbeddingSpec, kind: str) -> str | None:
    """Return the model's own task of this type of benchmark task, if it has one."""
    return next((task.name for task in spec.prompts.tasks if kind in (task.name, *task.aliases)), None)


def _prompt(prompt: Any, side: str) -> str | None:
    """Return what a benchmark task says about one side: a string is about the queries."""
    if isinstance(prompt, Mapping):
        return prompt.get(side)
    return prompt if side == "query" else None


def _column(batches: Sequence[Mapping[str, Sequence[Any]]], name: str) -> list[str]:
    return [text for batch in batches for text in batch[name]]


def _contents(batches: Sequence[Mapping[str, Sequence[Any]]], text: str = "text") -> list[Input]:
    """Return what the inputs hold.

    Args:
        batches: The inputs.
        text: Where the texts are; pictures are under `image`.

    Raises:
        ArgumentError: They hold neither, but sound or films.
    """
    found: list[Input] = []
    for batch in batches:
        texts, pictures = batch.get(text), batch.get("image")
        if texts is None and pictures is None:
            raise ArgumentError(f"a task gives {', '.join(sorted(batch))}; texts and pictures are embedded here")
        if pictures is None:
            found += texts or ()
            continue
        # In some sets only some documents have a picture, or a text: what has words alone is a text like others.
        for picture, words in zip(pictures, [""] * len(pictures) if texts is None else texts, strict=True):
            parts = [*([] if picture is None else [Image(picture)]), *([words] if words else [])]
            found.append(tuple(parts) if picture is not None else words)
    return found


def _documents(
    batches: Sequence[Mapping[str, Sequence[Any]]], *, titled: bool, beside_pictures: bool
) -> tuple[list[Input], list[str | None] | None]:
    """Return texts and titles; a title stays in front of the text where the model has no place for it.

    Args:
        batches: The inputs.
        titled: Whether documents have such a place.
        beside_pictures: Whether also those with pictures have it.
    """
    if not titled or not all("body" in batch and "title" in batch for batch in batches):
        return _contents(batches), None
    bodies, titles = _contents(batches, "body"), [title or None for title in _column(batches, "title")]
    if beside_pictures or all(isinstance(body, str) for body in bodies):
        return bodies, titles
    return (
        [body if isinstance(body, str) else item for body, item in zip(bodies, _contents(batches), strict=True)],
        [title if isinstance(body, str) else None for body, title in zip(bodies, titles, strict=True)],
    )


def _queries(
    batches: Sequence[Mapping[str, Sequence[Any]]], given: str | None, *, instructed: bool
) -> tuple[list[Input], list[str | None]]:
    """Return queries, and their instructions: the query's own, or the one given for all; none if none are followed."""
    queries: list[Input] = []
    instructions: list[str | None] = []
    for batch in batches:
        own = batch.get("instruction") or []
        # With instructions, `text` has them behind the query, or before it.
        found = _contents([batch], "query" if own else "text")
        queries += found
        instructions += [one or given for one in own] if own else [given] * len(found)
    return queries, instructions if instructed else [None] * len(queries)


def _together(instructions: Sequence[str | None]) -> Iterator[tuple[str | None, list[int]]]:
    """Yield each instruction with the places of its queries."""
    for instruction in dict.fromkeys(instructions):
        yield instruction, [place for place, own in enumerate(instructions) if own == instruction]


def _unit(vectors: Any) -> Any:
    array = np.atleast_2d(np.asarray(vectors, np.float32))
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    return array / np.maximum(norms, np.finfo(np.float32).tiny)


def _meta(spec: ModelSpec, fingerprint: str, max_tokens: int, modalities: Sequence[Modality], **more: Any) -> Any:
    try:
        from mteb.models import ModelMeta
    except ImportError as error:
        raise MissingDependencyError(f"mteb is not installed: {install_command('mteb')}") from error
    # mteb's names have a publisher; a folder has none, and its path is nobody's business.
    name = spec.id if spec.revision else f"local/{Path(spec.id).name}"
    return ModelMeta.create_empty(
        {
            "name": name,
            # mteb keeps results by name and revision: another width, instruction or retrained folder is another one.
            "revision": f"{spec.revision or 'local'}-{fingerprint}",
            "n_parameters": spec.parameters,
            "max_tokens": max_tokens,
            "license": spec.license or None,
            # Tasks of other kinds are refused by mteb before anything is embedded.
            "modalities": list(modalities),
            "use_instructions": (
                spec.prompts.instructed is not None if isinstance(spec, EmbeddingSpec) else spec.instructed  # type: ignore[attr-defined]
            ),
            **more,
        }
    )
