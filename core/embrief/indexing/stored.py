"""A passage as a store keeps it: what stands beside its vector, and what a file needs to count as indexed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from embrief.errors import ArgumentError, NewerFormatError

LAYOUT_KEY = "embrief_index"
"""Metadata key of a collection that `index` made; its value is the layout."""
LAYOUT = 1
"""What stands beside each vector, as `StoredPassage.metadata` writes it."""


class FileKey(NamedTuple):
    """A file in a collection."""

    root: str
    """Which of the folders that were indexed: a name for it, as of `root_name`."""
    path: str
    """Its path below that folder, with slashes."""


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """One passage of a file."""

    key: FileKey
    digest: str
    """SHA-256 of the file's bytes, hexadecimal."""
    settings: str
    """A digest of all that decides how a file becomes passages and vectors."""
    part: int
    """Its place among the passages of the file, from 0."""
    parts: int
    """How many there are."""
    start_line: int
    end_line: int
    page: int | None
    title: str | None
    kind: str
    filetype: str
    """The file's extension in lower case, without the dot; empty: it has none."""
    text: str

    @property
    def id(self) -> str:
        """Its id in the store: the same whenever the same passage of the same bytes is stored again."""
        said = "\0".join([*self.key, self.digest, self.settings, str(self.part)])
        return str(uuid.UUID(bytes=hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:16]))

    def metadata(self) -> dict[str, str | int]:
        """Return what a store keeps beside vector and text: strings and numbers only, which all of them take."""
        kept: dict[str, str | int] = {
            "root": self.key.root,
            "path": self.key.path,
            "digest": self.digest,
            "settings": self.settings,
            "part": self.part,
            "parts": self.parts,
            "start_line": self.start_line,
            "end_line": self.end_line,
            "kind": self.kind,
            "filetype": self.filetype,
        }
        if self.page is not None:
            kept["page"] = self.page
        if self.title is not None:
            kept["title"] = self.title
        return kept


def read_passage(metadata: object, text: object) -> StoredPassage | None:
    """Return what a store holds, `None` where it is not of the layout: whoever can write there can put anything."""
    if not isinstance(metadata, Mapping) or not isinstance(text, str):
        return None
    mark, kind, filetype = read_mark(metadata), metadata.get("kind"), metadata.get("filetype")
    start, end, page, title = (metadata.get(name) for name in ("start_line", "end_line", "page", "title"))
    if mark is None or not is_count(start) or not is_count(end) or not isinstance(kind, str):
        return None
    return StoredPassage(
        key=mark.key,
        digest=mark.digest,
        settings=mark.settings,
        part=mark.part,
        parts=mark.parts,
        start_line=start,
        end_line=end,
        page=page if is_count(page) else None,
        title=title if isinstance(title, str) else None,
        kind=kind,
        filetype=filetype if isinstance(filetype, str) else "",
        text=text,
    )


class Mark(NamedTuple):
    """The part of a stored passage that says whether its file is indexed."""

    key: FileKey
    digest: str
    settings: str
    part: int
    parts: int


def read_mark(metadata: Mapping[Any, Any]) -> Mark | None:
    """Return what a passage says of its file, `None` where it is not of the layout."""
    texts = [text for name in ("root", "path", "digest", "settings") if isinstance(text := metadata.get(name), str)]
    part, parts = metadata.get("part"), metadata.get("parts")
    if len(texts) != 4 or not is_count(part) or not is_count(parts):
        return None
    return Mark(FileKey(texts[0], texts[1]), texts[2], texts[3], part, parts)


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(slots=True)
class StoredFile:
    """What a store holds of a file."""

    ids: list[str] = field(default_factory=list)
    """Of all its passages, of whatever version."""
    _versions: set[tuple[str, str, int]] = field(default_factory=set)
    _parts: set[int] = field(default_factory=set)

    def add(self, passage_id: str, mark: Mark | None) -> None:
        """Note one passage. One that cannot be read leaves the file incomplete."""
        self.ids.append(passage_id)
        self._versions.add((mark.digest, mark.settings, mark.parts) if mark else ("", "", -1))
        self._parts.add(mark.part if mark else -1)

    def is_complete(self, digest: str, settings: str) -> bool:
        """Return whether exactly the passages of this version are there, all of them."""
        if len(self._versions) != 1:
            return False
        kept_digest, kept_settings, parts = next(iter(self._versions))
        whole = len(self.ids) == parts and self._parts == set(range(parts))
        return whole and (kept_digest, kept_settings) == (digest, settings)

    def parts_of(self, digest: str, settings: str) -> frozenset[int]:
        """Return which passages of a version are there, by their places from 0; none where any is of another one."""
        same = len(self._versions) == 1 and all(item[:2] == (digest, settings) for item in self._versions)
        return frozenset(self._parts) if same and len(self._parts) == len(self.ids) else frozenset()

    def is_whole(self, settings: str) -> bool:
        """Return whether all passages of some version under these settings are there."""
        return any(self.is_complete(digest, settings) for digest, _, _ in self._versions)


def check_layout(metadata: object, *, where: str) -> None:
    """Refuse a collection that `index` did not make.

    Raises:
        ArgumentError: It is another one.
        NewerFormatError: A newer release made it.
    """
    found = metadata.get(LAYOUT_KEY) if isinstance(metadata, Mapping) else None
    if not is_count(found):
        raise ArgumentError(
            f"{where} was not made by `embrief index`, so nothing says which files its vectors are from; name another "
            "collection"
        )
    if found > LAYOUT:
        raise NewerFormatError(f"{where} was made by a newer release (layout {found}); upgrade embrief")
