"""What a file becomes: its passages, and of each what is embedded, a text or a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError
from embrief.facts.prompts import PromptChoice, active_task
from embrief.indexing.kinds import picture_kind, suffix
from embrief.indexing.stored import LAYOUT, FileKey, StoredPassage

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facades.embedder import Embedder
    from embrief.images.image import Image
    from embrief.indexing.documents import Kind, Pictures, SourceFile

MAX_TOKENS = 512
"""Of a passage, prompt and special tokens included."""
CUTTING = 1
"""Raised where a release reads or cuts files in another way, so that they are indexed again."""
PICTURING = 1
"""The same for how files become pictures."""
BYTES_PER_TOKEN = 2
"""Where a model's tokens cannot be counted: fewer than any text has, so that passages come out short, not cut."""
_TRIES = 3
"""Readings of a file that changes meanwhile."""
_CHUNK = 1 << 20

Made = Iterator[tuple[StoredPassage, "str | Image"]]
"""Passages with what is embedded of each."""


class Maker:
    """Makes passages of files, for one model."""

    def __init__(self, embedder: Embedder, pictures: Pictures) -> None:
        """Ask the model what it takes.

        Args:
            embedder: The model.
            pictures: Which files become pictures.
        """
        self.titled = takes_titles(embedder)
        """Whether the model is told titles."""
        self.estimated = False
        """Whether the model's tokens could not be counted, and passages were measured by their bytes."""
        self._embedder, self._pictures = embedder, pictures
        self._max_tokens = min(MAX_TOKENS, embedder.max_tokens)
        kinds: tuple[Kind | None, ...] = (None, "image", "page")
        self._settings = {kind: settings_digest(embedder, kind) for kind in kinds}

    def settings(self, name: str) -> str:
        """Return the settings under which a file of this name is made into passages."""
        return self._settings[picture_kind(name, self._pictures)]

    def is_picture(self, name: str) -> bool:
        """Return whether a file of this name becomes pictures."""
        return picture_kind(name, self._pictures) is not None

    def made(self, key: FileKey, file: SourceFile, digest: str, kept: Collection[int] = ()) -> Made:
        """Yield a file's passages; pictures are made when they are asked for.

        Args:
            key: What it is called in the collection.
            file: The file.
            digest: Of its bytes a moment ago; where they change meanwhile, it is read again.
            kept: The pictures that are there already, by their places from 0; they are left out.

        Raises:
            UnreadableFileError: As of `read` and `open_pictures`.
            ArgumentError: It changes all the time.
            MissingDependencyError: A package that reads such files is not installed.
        """
        what = picture_kind(file.name, self._pictures)
        if what is not None:
            return self._drawn(key, file, what, digest, kept)
        return ((passage, passage.text) for passage in self._written(key, file, digest))

    def _drawn(self, key: FileKey, file: SourceFile, what: Kind, digest: str, kept: Collection[int]) -> Made:
        # Inside the function: a run that finds nothing new needs none of it.
        from embrief.indexing.picture_files import open_pictures
        from embrief.indexing.reading import read_bytes

        data = read_bytes(file)
        now = hashlib.sha256(data).hexdigest()
        if kept and now != digest:
            raise _changing()
        with open_pictures(data, file.name) as pictures:
            for part in range(pictures.count):
                if part in kept:
                    continue
                passage = StoredPassage(
                    key=key,
                    digest=now,
                    settings=self._settings[what],
                    part=part,
                    parts=pictures.count,
                    start_line=0,
                    end_line=0,
                    page=part + 1 if what == "page" else None,
                    title=pictures.title,
                    kind=what,
                    filetype=suffix(file.name).removeprefix("."),
                    text="",
                )
                yield passage, pictures.draw(part + 1)

    def _written(self, key: FileKey, file: SourceFile, digest: str) -> Iterator[StoredPassage]:
        from embrief.indexing import reading
        from embrief.indexing.passages import split

        for _ in range(_TRIES):
            document = reading.read(file)
            if (now := file_digest(file.path)) == digest:
                break
            digest = now
        else:
            raise _changing()
        pieces = split(document, self._tokens, self._max_tokens)
        for part, piece in enumerate(pieces):
            yield StoredPassage(
                key=key,
                digest=digest,
                settings=self._settings[None],
                part=part,
                parts=len(pieces),
                start_line=piece.start_line,
                end_line=piece.end_line,
                page=piece.page,
                title=piece.title,
                kind=document.kind,
                filetype=suffix(file.name).removeprefix("."),
                text=piece.text,
            )

    def _tokens(self, texts: Sequence[str], titles: Sequence[str | None]) -> Sequence[int]:
        """Return how long texts are for the model, with all that stands around them."""
        counts = self._embedder.count_tokens(texts, role="document", titles=list(titles) if self.titled else None)
        if counts is not None:
            return [int(count) for count in counts]
        self.estimated = True
        pairs = zip(texts, titles, strict=True)
        return [
            -(-len(f"{title or ''}{text}".encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) for text, title in pairs
        ]


def takes_titles(embedder: Embedder) -> bool:
    """Return whether a model's document prompt has a place for titles."""
    spec = embedder.spec
    task = active_task(spec.prompts, PromptChoice(), embedder.settings.prompt_choice, model=spec.id)
    return task.titled is not None


def settings_digest(embedder: Embedder, kind: Kind | None = None) -> str:
    """Return a digest of all that decides how a file becomes passages and vectors.

    Args:
        embedder: The model.
        kind: That of the file's pictures; `None`: it is read as text.
    """
    if kind is None:
        limit = min(MAX_TOKENS, embedder.max_tokens)
        said = f"{LAYOUT} {CUTTING} {limit} {embedder.space.id} {takes_titles(embedder)}"
    else:
        said = f"{LAYOUT} {kind} {PICTURING} {embedder.space.id}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _changing() -> ArgumentError:
    return ArgumentError("it changes while it is read; the next update tries again")
