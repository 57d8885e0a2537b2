"""What a file is by its name: its kind, its grammar, how large it may be."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from embrief.images.limits import LIMITS

if TYPE_CHECKING:
    from embrief.indexing.documents import Kind, Pictures

MEGABYTE = 1 << 20
TEXT_LIMIT = 1 * MEGABYTE
"""Bytes of a text, Markdown or code file; a larger one is data, and would be thousands of passages."""
HTML_LIMIT = 4 * MEGABYTE
NOTEBOOK_LIMIT = 16 * MEGABYTE
"""Most of a notebook is pictures that its cells have drawn."""
PDF_LIMIT = 64 * MEGABYTE
IMAGE_LIMIT = LIMITS.max_bytes

NOTEBOOK = ".ipynb"
_MARKDOWN = {".md", ".markdown", ".mdown", ".mdx", ".mkd", NOTEBOOK}
_HTML = {".htm", ".html", ".xhtml"}
_PDF = {".pdf"}
_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

# The C++ grammar reads C as well, and what a .h file is in nobody says.
_LANGUAGES = {
    "bash": ".bash .sh .zsh .ksh .bats",
    "c": ".c",
    "c_sharp": ".cs .csx",
    "cpp": ".cc .cpp .cxx .c++ .h .hh .hpp .hxx .h++ .ipp .cu .cuh",
    "css": ".css",
    "go": ".go",
    "html": ".svelte .vue",
    "java": ".java",
    "javascript": ".js .cjs .mjs .jsx",
    "json": ".json .jsonc .geojson .webmanifest",
    "php": ".php .phtml",
    "python": ".py .pyi .pyw",
    "ruby": ".rb .rake .gemspec .ru",
    "rust": ".rs",
    "tsx": ".tsx",
    "typescript": ".ts .cts .mts",
}
_BY_SUFFIX = {suffix: language for language, suffixes in _LANGUAGES.items() for suffix in suffixes.split()}
# Code without a grammar here is cut as text; it still counts as code.
_OTHER_CODE_WORDS = (
    ".clj .cljs .coffee .dart .elm .erl .ex .exs .f90 .fs .fsx .groovy .hs .jl .kt .kts .lisp .lua .m .mm .ml "
    ".mli .nim .pas .pl .pm .proto .ps1 .r .scala .sql .swift .tf .v .vb .zig .scss .sass .less .graphql"
)
_OTHER_CODE = frozenset(_OTHER_CODE_WORDS.split())
_BY_NAME = {
    "gemfile": "ruby",
    "rakefile": "ruby",
    "vagrantfile": "ruby",
    "sconstruct": "python",
    "sconscript": "python",
}
_SHELLS = {"sh": "bash", "bash": "bash", "zsh": "bash", "dash": "bash", "ksh": "bash", "node": "javascript"}


def suffix(name: str) -> str:
    """Return the last ending of a file's name, in small letters, with its dot."""
    return PurePosixPath(name).suffix.lower()


def kind(name: str, first_line: str = "") -> tuple[Kind, str]:
    """Return what a file is, and the language of the grammar that cuts it, empty for none.

    Args:
        name: Its name or path.
        first_line: How it begins, where that is known: a script without an ending says there what runs it.
    """
    ending = suffix(name)
    if ending in _MARKDOWN:
        return "markdown", ""
    if ending in _HTML:
        return "html", ""
    if ending in _PDF:
        return "pdf", ""
    if ending in _IMAGES:
        return "image", ""
    language = _BY_SUFFIX.get(ending) or _BY_NAME.get(PurePosixPath(name).name.lower()) or _interpreter(first_line)
    return ("code", language) if language or ending in _OTHER_CODE else ("text", "")


def picture_kind(name: str, pictures: Pictures) -> Kind | None:
    """Return the kind of the passages of a file that becomes pictures, `None` for one that is read as text."""
    what, _ = kind(name)
    if what == "image" and pictures != "none":
        return "image"
    return "page" if what == "pdf" and pictures == "pages" else None


def size_limit(name: str) -> int:
    """Return how many bytes a file may have."""
    if suffix(name) == NOTEBOOK:
        return NOTEBOOK_LIMIT
    return {"pdf": PDF_LIMIT, "html": HTML_LIMIT, "image": IMAGE_LIMIT}.get(kind(name)[0], TEXT_LIMIT)


def _interpreter(first_line: str) -> str:
    words = first_line.removeprefix("#!").split()
    if not first_line.startswith("#!") or not words:
        return ""
    program = PurePosixPath(words[0]).name
    if program == "env":
        program = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
    program = program.rstrip("0123456789.")
    return program if program in ("python", "ruby", "php") else _SHELLS.get(program, "")
