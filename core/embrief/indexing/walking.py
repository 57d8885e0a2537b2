"""Which files of a folder are read: what a person has written, and git would keep."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embrief.errors import ArgumentError
from embrief.indexing.documents import Pictures, SourceFile
from embrief.indexing.ignoring import Rules, globs, read_rules
from embrief.indexing.judging import HEAD, why_not, why_not_name
from embrief.indexing.kinds import size_limit

# Folders that tools fill. What has a dot in front is hidden and needs no mention.
_INSTALLED = {"node_modules", "bower_components", "jspm_packages", "site-packages", "__pypackages__"}
_CACHES = {"__pycache__"}
_CACHE_MARK = "CACHEDIR.TAG"  # https://bford.info/cachedir/
_VENV_MARK = "pyvenv.cfg"
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Walk:
    """What is to be read, and how much was left out."""

    files: list[SourceFile]
    """In the order of their folders and names, root by root."""
    left_out: Counter[str]
    """Why, and how many: files, and folders as a whole, whose contents nobody has counted."""
    roots: list[Path]
    """The folders and files that were given, absolute, each once."""
    prefixes: list[str]
    """What the names of each root's files begin with: empty, or its name and a slash; for a file, its whole name."""
    unreadable: dict[Path, str]
    """Files and folders that could not be looked at, and why: nobody knows what is there. They count as left out."""


@dataclass(slots=True)
class _State:
    include: Rules
    exclude: Rules
    limit: int | None
    pictures: Pictures
    files: list[SourceFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: dict[Path, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    """Paths that were met: one root may be inside another."""

    def cannot_read(self, path: str | Path, error: OSError) -> None:
        """Note what could not be looked at."""
        self.left_out[UNREADABLE] += 1
        self.unreadable[Path(path)] = error.strerror or type(error).__name__


@dataclass(frozen=True, slots=True)
class _Scope:
    """A folder with patterns, which are relative to it."""

    folder: str
    """Its absolute path, with slashes, and one at the end."""
    rules: Rules


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    """Its absolute path, with slashes, and one at the end."""
    below: str
    """The same, relative to the root; empty for the root."""
    prefix: str
    """What the names of its root's files begin with."""
    scopes: Sequence[_Scope]
    """Patterns of the folders above it, in its repository, from the outermost."""


def walk(
    paths: Sequence[Path],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int | None = None,
    pictures: Pictures = "none",
) -> Walk:
    """Find the files that are to be read.

    Left out are: what .gitignore files say, also those above a folder up to its repository's root, and
    `.git/info/exclude`; hidden files and folders; folders of installed packages and caches; links, which are never
    followed; binaries, pictures unless they are wanted, files that a program wrote, and those that are too large. A
    path that is given itself is looked at even if it is hidden or ignored.

    Args:
        paths: Folders and files.
        include: Patterns as in a .gitignore file, relative to each folder; where there are some, only files that they
            match are taken.
        exclude: Patterns of the same form; what they match is left out.
        limit: How many files are taken at most.
        pictures: Which pictures are taken.

    Raises:
        ArgumentError: There is nothing at a path, a pattern is none, or the limit is negative.
    """
    if limit is not None and limit < 0:
        raise ArgumentError(f"limit={limit} is negative; give the number of files that may be taken, or None")
    state = _State(globs(include, "include"), globs(exclude, "exclude"), limit, pictures)
    roots = _roots(paths)
    prefixes = _prefixes(roots)
    for root, prefix in zip(roots, prefixes, strict=True):
        if root.is_dir():
            _folders(state, _Folder(_slashed(root), "", prefix, _scopes_above(root)))
        else:
            _file(state, root, root.name, prefix)
    return Walk(state.files, state.left_out, roots, prefixes, state.unreadable)


def _roots(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        try:
            found[Path(path).resolve(strict=True)] = None
        except (OSError, RuntimeError) as error:  # a RuntimeError is a loop of links, before Python 3.13
            raise ArgumentError(f"{str(path)!r} cannot be indexed: there is no such folder or file") from error
    return list(found)


def _prefixes(roots: Sequence[Path]) -> list[str]:
    """Return what tells the roots apart: nothing for one folder, else as many of its last parts as that takes."""
    depth = 1
    while True:
        names = ["/".join(root.parts[1:][-depth:]) or "root" for root in roots]
        if len(set(names)) == len(names) or depth > max(len(root.parts) for root in roots):
            break
        depth += 1
    if len(roots) == 1 and roots[0].is_dir():
        return [""]
    return [f"{name}/" if root.is_dir() else name for root, name in zip(roots, names, strict=True)]


def _folders(state: _State, root: _Folder) -> None:
    """Look at a folder and all below it, in order; a stack, since folders may be nested more deeply than calls."""
    open_folders = [_entries(state, root)]
    while open_folders:
        below = next(open_folders[-1], None)
        if below is None:
            open_folders.pop()
        else:
            open_folders.append(_entries(state, below))


def _entries(state: _State, folder: _Folder) -> Iterator[_Folder]:
    """Take the files of one folder, and yield the folders in it that are to be looked at."""
    try:
        with os.scandir(folder.path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        state.cannot_read(folder.path, error)
        return
    scopes, names = folder.scopes, {entry.name for entry in entries}
    if folder.below and ".git" in names:  # a repository inside another, for which only its own patterns count
        scopes = _repository_scopes(Path(folder.path))
    elif ".gitignore" in names:
        scopes = [*scopes, _Scope(folder.path, read_rules(Path(folder.path, ".gitignore")))]
    for entry in entries:
        below = folder.below + entry.name
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            why = _why_not_entry(state, entry, is_folder, below, scopes)
        except FileNotFoundError:
            continue
        except OSError as error:
            state.cannot_read(entry.path, error)
            continue
        if why is not None:
            state.left_out[why] += 1
        elif is_folder:
            yield _Folder(f"{folder.path}{entry.name}/", f"{below}/", folder.prefix, scopes)
        else:
            _file(state, Path(entry.path), below, folder.prefix + below)


def _why_not_entry(
    state: _State, entry: os.DirEntry[str], is_folder: bool, below: str, scopes: Sequence[_Scope]
) -> str | None:
    name = entry.name
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "name not in UTF-8"
    if name.startswith("."):
        return "hidden"
    if entry.is_symlink() or _is_junction(entry):
        return "link"
    path = Path(entry.path).as_posix()
    if any(_decided(path, is_folder, scopes)):
        return "ignored"
    if state.exclude.leave_out(below, is_folder):
        return "excluded"
    if is_folder:
        return _why_not_folder(entry)
    return "not included" if state.include and not state.include.matches(below) else None


def _decided(path: str, is_folder: bool, scopes: Sequence[_Scope]) -> Iterator[bool]:
    """Yield what the innermost patterns say that say something."""
    for scope in reversed(scopes):
        found = scope.rules.leave_out(path[len(scope.folder) :], is_folder)
        if found is not None:
            yield found
            return


def _why_not_folder(entry: os.DirEntry[str]) -> str | None:
    if entry.name in _INSTALLED or Path(entry.path, _VENV_MARK).is_file():
        return "installed packages"
    if entry.name in _CACHES or Path(entry.path, _CACHE_MARK).is_file():
        return "cache"
    return None


def _file(state: _State, path: Path, below: str, name: str) -> None:
    """Take a file, or count why not."""
    key = str(path)
    if key in state.seen:
        return
    state.seen.add(key)
    if state.limit is not None and len(state.files) >= state.limit:
        state.left_out["over the limit"] += 1
        return
    try:
        found = path.stat()
        why = None if stat.S_ISREG(found.st_mode) else "no regular file"
        why = why or why_not_name(below) or _why_not_size(below, found.st_size)
        if why is None:
            with path.open("rb") as opened:
                why = why_not(below, opened.read(HEAD), state.pictures)
    except FileNotFoundError:
        return
    except OSError as error:
        state.cannot_read(path, error)
        return
    if why is None:
        state.files.append(SourceFile(path, name, found.st_size))
    else:
        state.left_out[why] += 1


def _why_not_size(name: str, size: int) -> str | None:
    if not size:
        return "empty"
    return "too large" if size > size_limit(name) else None


def _is_junction(entry: os.DirEntry[str]) -> bool:
    asked = getattr(entry, "is_junction", None)  # Python 3.12
    return asked is not None and bool(asked())


def _scopes_above(root: Path) -> list[_Scope]:
    """Return the patterns that hold in a folder because of what is above it: its repository's, from the outermost."""
    repository = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if repository is None:
        return []
    scopes = _repository_scopes(repository)
    if repository == root:
        return scopes[:1]  # its .gitignore is read when it is walked
    between = [folder for folder in reversed(root.parents) if repository in folder.parents]
    return [*scopes, *(_Scope(_slashed(folder), read_rules(folder / ".gitignore")) for folder in between)]


def _repository_scopes(repository: Path) -> list[_Scope]:
    folder = _slashed(repository)
    exclude = _git_folder(repository) / "info" / "exclude"
    return [_Scope(folder, read_rules(exclude)), _Scope(folder, read_rules(repository / ".gitignore"))]


def _git_folder(repository: Path) -> Path:
    """Return where a repository keeps what all its working trees share: `.git`, or what the file `.git` points to."""
    place = repository / ".git"
    try:
        if place.is_file():
            place = repository / place.read_text("utf-8").strip().removeprefix("gitdir: ")
            place = place / (place / "commondir").read_text("utf-8").strip()
    except (OSError, ValueError):
        pass
    return place


def _slashed(folder: Path) -> str:
    return folder.as_posix().rstrip("/") + "/"
