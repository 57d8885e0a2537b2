"""The user's collections: where each is, which model it is for, which folders are in it. One small file each."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embrief.errors import ArgumentError
from embrief.indexing.collection import STORES, Place, address, is_address
from embrief.system.places import user_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from embrief.indexing.collection import StoreName

# What all stores and file systems take. Chroma wants three characters at least.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,61}[a-zA-Z0-9]")
_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection, as far as this user's machine knows it without opening it."""

    name: str
    store: StoreName
    to: str
    """An absolute folder, or the address of a server."""
    model: str
    """As the user named it, a folder with its whole path; empty: it is not in the table, and the store has to say."""
    revision: str = ""
    """The commit or digest of the model's files."""
    space: str = ""
    """The id of its vector space."""
    roots: tuple[tuple[str, str], ...] = ()
    """The folders and files in it: a short name each, and where it is."""
    include: tuple[str, ...] = ()
    """What the last update took, as patterns; empty: all."""
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    """How many files the last update took at most."""
    pages: bool = False
    """Whether the pages of PDF files are taken as pictures."""
    max_pixels: int | None = None
    """The largest area in which its model sees a picture, where the user has said one."""
    files: int = 0
    """After the last update."""
    passages: int = 0
    updated: str = ""
    """When that was: ISO 8601, in UTC."""

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.store, self.to, self.name)


def usual_folder() -> Path:
    """Return where the table is, and the stores that no place was named for: among the user's data."""
    return user_folder("data") / "collections"


def checked_name(name: str) -> str:
    """Return a collection's name, if all stores take it.

    Raises:
        ArgumentError: They do not.
    """
    if _NAME.fullmatch(name) is None or _ON_WINDOWS.fullmatch(name) or ".." in name:
        raise ArgumentError(
            f"a collection cannot be called {name[:80]!r}: take 3 to 63 of a-z, A-Z, 0-9, '.', '_' and '-', with a "
            "letter or a digit at both ends"
        )
    return name


def default_name(roots: Sequence[Path]) -> str:
    """Return the name of a collection of these folders: the first one's, and a digest of where they are."""
    digest = hashlib.sha256("\0".join(sorted(map(str, roots))).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    word = re.sub(r"[^a-z0-9._-]+", "-", roots[0].name.lower()).strip("._-").replace("..", "-")
    return f"{word[:40].rstrip('._-')}-{digest}" if word else f"files-{digest}"


def root_name(root: Path) -> str:
    """Return the name of a folder in a collection: another one for a folder that is elsewhere."""
    digest = hashlib.sha256(str(root).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{root.name or 'root'}-{digest}"


def place_text(to: str | Path, cwd: Path) -> str:
    """Return where a store is, as it is kept: the address of a server, or a folder with its whole path.

    Raises:
        ArgumentError: It is an address with a password, or none.
    """
    if isinstance(to, str) and is_address(to):
        return address(to)
    if isinstance(to, str) and "://" in to:
        raise ArgumentError(f"to={to[:80]!r} is no address of a store; use http:// or https://, or name a folder")
    try:
        return os.path.abspath(cwd / Path(to).expanduser())  # noqa: PTH100 - a link may be put elsewhere later
    except RuntimeError as error:
        raise ArgumentError(f"to={str(to)[:80]!r}: {error}") from error


def known(at: Path) -> list[CollectionInfo]:
    """Return all collections of a table, by name.

    A file that cannot be read counts as absent, and so does a collection whose folder is gone.

    Args:
        at: The table's folder.
    """
    found = [info for file in at.glob("*.json") if (info := _read(file)) is not None]
    there = [info for info in found if info.place.folder is None or info.place.folder.is_dir()]
    return sorted(there, key=lambda info: (info.name, info.store, info.to))


def remember(info: CollectionInfo, at: Path) -> None:
    """Write a collection into the table of a folder: whole, or not at all.

    Raises:
        ArgumentError: The folder cannot be written.
    """
    file = _file(info.place, at)
    data = asdict(info) | {"roots": dict(info.roots)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=".", suffix=".tmp", encoding="utf-8", delete=False
        ) as written:
            json.dump(data, written, indent=2)
        try:
            Path(written.name).replace(file)
        except OSError:
            Path(written.name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArgumentError(f"{file.parent} cannot be written: {error.strerror or error}") from error


def choose(
    everything: Sequence[CollectionInfo],
    collection: str | None = None,
    *,
    to: str | None = None,
    store: StoreName | None = None,
    cwd: Path | None = None,
) -> CollectionInfo:
    """Return the collection that somebody means.

    The named one; else the one with the deepest folder around `cwd` (of several, the one updated last); else the only
    one.

    Args:
        everything: What there is.
        collection: Its name.
        to: Where it is, as `place_text` returns it.
        store: Which store it is in.
        cwd: Where whoever asks is.

    Raises:
        ArgumentError: There is none, or it could be several.
    """
    found = [
        info
        for info in everything
        if collection in (None, info.name) and to in (None, info.to) and store in (None, info.store)
    ]
    if len(found) == 1:
        return found[0]
    if not found and collection is not None and to is not None:
        # Not this user's: what there is to know of it, the store says.
        places = [name for name in STORES if store in (None, name)] if is_address(to) else _stores_in(Path(to), store)
        if len(places) == 1:
            return CollectionInfo(checked_name(collection), places[0], to, model="")
        raise ArgumentError(f"name the store of {collection!r} in {to}: {' or '.join(STORES)}")
    if len(found) > 1 and collection is None and cwd is not None:
        around = [(depth, info.updated, info) for info in found if (depth := _depth(info, cwd))]
        if around:
            return max(around, key=lambda item: item[:2])[2]
    asked = "there is no collection yet; make one with `embrief index`"
    if everything:
        what = "no collection is called that" if not found else "it could be several collections"
        asked = f"{what}; name one, with its place if need be: {_listed(found or everything)}"
    raise ArgumentError(asked if collection is None or not everything else f"{collection[:80]!r}: {asked}")


def _listed(infos: Iterable[CollectionInfo]) -> str:
    return "; ".join(f"{info.name} ({info.store}, {info.to})" for info in infos)


def _stores_in(folder: Path, store: StoreName | None) -> list[StoreName]:
    """Return which stores have files in a folder."""
    files: dict[StoreName, str] = {"chroma": "chroma.sqlite3", "qdrant": "meta.json"}
    return [name for name, file in files.items() if store in (None, name) and (folder / file).is_file()]


def _depth(info: CollectionInfo, cwd: Path) -> int:
    """Return how deep the deepest folder of a collection is that `cwd` lies in; 0: it lies in none."""
    roots = (Path(root) for _, root in info.roots)
    return max((len(root.parts) for root in roots if cwd == root or root in cwd.parents), default=0)


def _file(place: Place, at: Path) -> Path:
    # By digest, for the same name in several places, and for file systems that tell no `A` from `a`.
    digest = hashlib.sha256("\0".join((place.store, place.to, place.name)).encode("utf-8", "surrogatepass"))
    return at / f"{place.name}.{digest.hexdigest()[:12]}.json"


def _read(file: Path) -> CollectionInfo | None:
    try:
        data = json.loads(file.read_text("utf-8"))
        return _info(data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _info(data: Any) -> CollectionInfo:
    """Return an entry of the table. What has another type raises one of the errors that `_read` catches."""
    if data["store"] not in STORES or not all(isinstance(data[name], str) for name in ("name", "to", "model")):
        raise ValueError("no entry")
    base = CollectionInfo(checked_name(data["name"]), cast("StoreName", data["store"]), data["to"], data["model"])
    texts: dict[str, Any] = {
        name: data[name] for name in ("revision", "space", "updated") if isinstance(data.get(name), str)
    }
    counts: dict[str, Any] = {
        name: data[name] for name in ("files", "passages", "limit", "max_pixels") if isinstance(data.get(name), int)
    }
    include, exclude = (tuple(map(str, data.get(name) or ())) for name in ("include", "exclude"))
    roots = tuple((str(name), str(root)) for name, root in data["roots"].items())
    return replace(
        base, **texts, **counts, include=include, exclude=exclude, roots=roots, pages=data.get("pages") is True
    )
