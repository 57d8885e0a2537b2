"""The standard library's docstrings as a corpus.

Python modules are parsed from their source, never imported. Modules written in C have no source here: a fixed
list of them is imported and read with `inspect`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import itertools
import json
import os
import sysconfig
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIN_CHARACTERS = 80
"""Docstrings shorter than this say too little to be found by."""
MAX_CHARACTERS = 1000
"""Docstrings are cut here: the point comes first, and a bound makes the time of a run predictable."""

_LEFT_OUT = {"idlelib", "lib2to3", "pydoc_data", "test", "tests", "turtledemo", "__phello__", "__pycache__"}

# Read first, so that a small --limit holds what most people ask for.
_COMMON = (
    "shutil", "tempfile", "glob", "gzip", "heapq", "bisect", "textwrap", "json", "csv", "random", "collections", "copy",
    "functools", "contextlib", "urllib.parse", "posixpath", "os", "re", "statistics", "pathlib", "argparse",
)  # fmt: skip

# Where Python code keeps what users know under another name.
_PUBLIC = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "concurrent.futures._base": "concurrent.futures",
    "ntpath": "os.path" if os.name == "nt" else "ntpath",
    "pathlib._local": "pathlib",
    "posixpath": "posixpath" if os.name == "nt" else "os.path",
}

# Modules written in C, and the names users know them by. Those that a platform lacks are passed over.
_C_MODULES = {
    "builtins": "",
    "math": "math",
    "itertools": "itertools",
    "time": "time",
    "zlib": "zlib",
    "posix": "os",
    "nt": "os",
    "sys": "sys",
    "_io": "io",
    "_collections": "collections",
    "_functools": "functools",
    "_operator": "operator",
    "_datetime": "datetime",
    "_struct": "struct",
    "_heapq": "heapq",
    "_bisect": "bisect",
    "_random": "random",
    "_csv": "csv",
    "_json": "json",
    "_pickle": "pickle",
    "_socket": "socket",
    "_thread": "_thread",
    "_queue": "queue",
    "_bz2": "bz2",
    "_lzma": "lzma",
    "array": "array",
    "atexit": "atexit",
    "binascii": "binascii",
    "cmath": "cmath",
    "fcntl": "fcntl",
    "gc": "gc",
    "mmap": "mmap",
    "select": "select",
    "unicodedata": "unicodedata",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One docstring."""

    name: str
    """Qualified name, such as `shutil.copytree`."""
    doc: str
    """The docstring without indentation, cut to `MAX_CHARACTERS`."""

    @property
    def text(self) -> str:
        """What is embedded: the name says much about the thing."""
        return f"{self.name}\n{self.doc}"

    @property
    def first_line(self) -> str:
        """The first line that is not blank."""
        return self.doc.lstrip().partition("\n")[0].rstrip()


def read_corpus(limit: int | None = None, *, stdlib: Path | None = None) -> list[Entry]:
    """Return the docstrings of this interpreter's standard library, always in the same order.

    Tests, IDLE, installed packages and private names are left out, and so are docstrings under `MIN_CHARACTERS`. Of
    equal names,
    and of equal docstrings, the first counts.

    Args:
        limit: How many to return at most; widely used modules come first.
        stdlib: The folder to read; by default this interpreter's. A given one is read without the C modules.
    """
    folder = stdlib if stdlib is not None else Path(sysconfig.get_path("stdlib"))
    return list(itertools.islice(_distinct(_everything(folder, with_c=stdlib is None)), limit))


def corpus_id(entries: list[Entry]) -> str:
    """Return a name for exactly these texts in this order, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([entry.text for entry in entries]).encode()).hexdigest()[:16]


def _distinct(pairs: Iterator[tuple[str, str]]) -> Iterator[Entry]:
    names: set[str] = set()
    docs: set[str] = set()
    for name, raw in pairs:
        if any(part.startswith("_") for part in name.split(".")):
            continue  # nobody asks for what is private
        doc = inspect.cleandoc(raw).strip()
        if len(doc) < MIN_CHARACTERS or name in names or doc in docs or _has_surrogates(doc):
            continue
        names.add(name)
        docs.add(doc)
        yield Entry(name, doc[:MAX_CHARACTERS].rstrip())


def _has_surrogates(text: str) -> bool:
    """Return whether the text cannot be written as UTF-8, which every store asks for."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _everything(folder: Path, *, with_c: bool) -> Iterator[tuple[str, str]]:
    files = _modules(folder)
    for name in _COMMON:
        if name in files:
            yield from _parsed(name, files.pop(name))
    if with_c:
        for name, public in _C_MODULES.items():
            yield from _inspected(name, public)
    for name, file in sorted(files.items()):
        yield from _parsed(name, file)


def _modules(folder: Path) -> dict[str, Path]:
    """Return the source file of each module by its dotted name."""
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        # site-packages, lib-dynload and the build's config folders are no identifiers.
        folders[:] = [name for name in folders if name.isidentifier() and name not in _LEFT_OUT]
        package = Path(place).relative_to(folder).parts
        for file in files:
            name = file.removesuffix(".py")
            if name != file and name.isidentifier() and name not in _LEFT_OUT:
                found[".".join(package if name == "__init__" else (*package, name))] = Path(place, file)
    return found


def _parsed(module: str, file: Path) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings():
            # Old escapes in the library's own strings are none of our business.
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    yield from _documented(tree, _PUBLIC.get(module, module))


def _documented(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    if doc := ast.get_docstring(node, clean=False):
        yield name, doc
    # What is defined inside a function cannot be reached by a name.
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for item in _definitions(node.body):
            yield from _documented(item, f"{name}.{item.name}")


def _definitions(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield definitions in source order, also those behind an `if` or `try`."""
    for statement in body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield statement
        elif isinstance(statement, (ast.If, ast.Try)):
            yield from _definitions(statement.body)
            for handler in statement.handlers if isinstance(statement, ast.Try) else ():
                yield from _definitions(handler.body)
            yield from _definitions(statement.orelse)


def _inspected(module: str, public: str) -> Iterator[tuple[str, str]]:
    try:
        found = importlib.import_module(module)
    except ImportError:
        return
    yield from _own_doc(found, public or module)
    for name, value in sorted(vars(found).items()):
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isbuiltin(value)):
            continue
        # Re-exports of other modules are described there.
        if getattr(value, "__module__", None) not in (module, public, None):
            continue
        qualified = f"{public}.{name}" if public else name
        yield from _own_doc(value, qualified)
        if inspect.isclass(value):
            for member, item in sorted(vars(value).items()):
                if isinstance(item, (types.MethodDescriptorType, types.ClassMethodDescriptorType, staticmethod)):
                    yield from _own_doc(item, f"{qualified}.{member}")


def _own_doc(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(doc := getattr(value, "__doc__", None), str):
        yield name, doc
