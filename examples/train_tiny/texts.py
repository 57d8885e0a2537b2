"""What is taken from the sources: passages, docstrings, code and definitions, and what could be asked about each."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import sources

MAX_CHARACTERS = 1000
"""As in the demo: the point comes first."""
KEEP = {"passage": 1.0, "doc": 0.4, "code": 0.25, "definition": 1.0, "entries": 1.0}
"""Which share of each kind is used: the rest would add time, not variety."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(])")
_HEADING = re.compile(r"[=\-~^\"'`#*+.:_]{3,}")


@dataclass(frozen=True, slots=True)
class Item:
    """A text that is found, and one that asks for it."""

    kind: str
    """passage, doc (a docstring), code, definition, or entries (several definitions in one text)."""
    text: str
    query: str
    about: str
    """What several items share: the docstring and the code of one function have the same."""


def held_out(module: str) -> bool:
    """Return whether a module of the standard library is kept for evaluation: a fixed third, by a hash of its name.

    The salt puts `shutil`, `tempfile` and `heapq`, which the demo asks about, into that third. The built-in types,
    which it asks about too, have no source in Python and are never read.
    """
    return hashlib.sha256(f"{SALT}{module.split('.')[0].lstrip('_')}".encode()).digest()[0] % 3 == 0


SALT = "embrief-86:"
TOGETHER = 5
"""Definitions in a text of entries; by WordNet's order, often of like words or meanings."""
Found = tuple[str, str, tuple[str, ...], str]
"""Kind, text, what could be asked, and what it is about."""


def read(folder: Path) -> list[Item]:
    """Return every item, always the same ones in the same order."""
    guarded = set(_guarded())
    seen: set[str] = set()
    items: list[Item] = []
    for kind, text, queries, about in _everything(folder):
        mark = _digest(text)
        if mark in seen or int(mark[:8], 16) / 2**32 >= KEEP[kind]:
            continue
        if any(_first(query) in guarded for query in queries):
            continue
        seen.add(mark)
        items.append(Item(kind, text, queries[int(mark[8:16], 16) % len(queries)], about))
    return items


def write(items: Iterable[Item], path: Path) -> None:
    """Write items as JSON lines."""
    path.write_text("".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items), "utf-8")


def load(path: Path) -> list[Item]:
    """Read what `write` wrote."""
    with path.open(encoding="utf-8") as lines:
        return [Item(**json.loads(line)) for line in lines]


def functions(module: str, text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (qualified name, docstring, code without the docstring or "") of what a module defines."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    yield from _documented(tree, module)


def first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring on one line, without its full stop."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    return _SENTENCE.split(paragraph)[0].rstrip(" .:")


def without(query: str, text: str) -> str:
    """Return a text without the sentence that became its query."""
    pattern = r"\s+".join(re.escape(word) for word in query.split())
    return re.sub(pattern, "", text, count=1).strip(" .:\n")


def _everything(folder: Path) -> Iterator[Found]:
    senses = list(sources.wordnet(folder))
    for words, gloss in senses:
        yield from _definition(words, gloss)
    for start in range(0, len(senses), TOGETHER):
        yield from _entries(senses[start : start + TOGETHER])
    for path, text in sources.standard_library():
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if not held_out(module):
            yield from _from_module(module, text)
    for distribution, path, text in sources.distribution_files(folder):
        if path.endswith(".py"):
            module = re.sub(r"^(src|lib)/", "", path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            yield from _from_module(module, text)
        else:
            yield from _from_page(distribution, text)


def _definition(words: list[str], gloss: str) -> Iterator[Found]:
    meaning = _meaning(gloss)
    if len(meaning) > 15:
        yield ("definition", _entry(words, gloss), (_what_is(words), *_examples(gloss)[:1]), words[0])


def _entries(senses: list[tuple[list[str], str]]) -> Iterator[Found]:
    """Yield a longer text about the world at large, which the packages' documentation says little of."""
    text = ". ".join(_entry(words, gloss) for words, gloss in senses)
    asked = [
        query
        for words, gloss in senses
        for query in (_what_is(words), *_examples(gloss), _meaning(gloss))
        if len(query) > 15
    ]
    if asked and len(text) > 120:
        yield ("entries", text[:MAX_CHARACTERS], tuple(asked), senses[0][0][0])


def _meaning(gloss: str) -> str:
    return gloss.split('; "')[0].strip()


def _examples(gloss: str) -> list[str]:
    return re.findall(r'"([^"]{20,})"', gloss)


def _entry(words: list[str], gloss: str) -> str:
    return f"{', '.join(words[:4])}: {_meaning(gloss)}"


def _what_is(words: list[str]) -> str:
    return f"what is {words[0]}" if len(words[0]) > 3 else words[0]


def _from_module(module: str, text: str) -> Iterator[Found]:
    for name, raw, code in functions(module, text):
        doc = inspect.cleandoc(raw).strip()
        asked = first_sentence(doc)
        if not 12 < len(asked) < 250 or (not doc.isprintable() and "\x00" in doc):
            continue
        short = ".".join(name.split(".")[-2:])
        if len(doc) >= 60:
            yield ("doc", f"{name}\n{doc}"[:MAX_CHARACTERS], (asked, _spelled(short)), name)
        if code.count("\n") >= 2:
            yield ("code", code[:MAX_CHARACTERS], (asked,), name)


def _from_page(distribution: str, text: str) -> Iterator[Found]:
    for heading, body in _sections(text):
        for chunk in _chunks(body):
            sentences = [one for one in _SENTENCE.split(" ".join(chunk.split())) if 30 < len(one) < 250]
            if len(chunk) < 120 or not sentences:
                continue
            # A sentence from the middle says what the passage is about in other words than its heading.
            asked = sentences[len(sentences) // 2].rstrip(".")
            queries = (heading, asked) if len(heading.split()) > 1 else (asked,)
            title = f"{heading}\n" if heading else ""
            yield ("passage", f"{title}{chunk}"[:MAX_CHARACTERS], queries, f"{distribution}: {heading}")


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield (heading, prose) of a page in reStructuredText or Markdown, without markup and listings."""
    heading, lines = "", list[str]()
    raw = text.splitlines()
    for place, line in enumerate(raw):
        under = raw[place + 1] if place + 1 < len(raw) else ""
        if line.startswith("#") and line.lstrip("#").startswith(" "):
            yield heading, "\n".join(lines)
            heading, lines = _clean(line.lstrip("# ")), []
        elif (
            line and not line[0].isspace() and _HEADING.fullmatch(under.strip()) and len(under) >= len(line.strip()) > 2
        ):
            yield heading, "\n".join(lines)
            heading, lines = _clean(line), []
        elif _HEADING.fullmatch(line.strip()) or line.lstrip().startswith((".. ", ":", "|", "+-", "```", "!!!", ">>>")):
            continue
        elif line.startswith(("    ", "\t")):
            continue  # a listing, most of the time
        else:
            lines.append(_clean(line))
    yield heading, "\n".join(lines)


def _clean(line: str) -> str:
    line = re.sub(r":[\w:.-]+:`~?!?([^`<]*)(<[^`]*>)?`", r"\1", line)
    line = re.sub(r"`([^`<]*?)\s*<[^`>]*>`_*", r"\1", line)
    line = re.sub(r"\[([^\]]*)\]\([^)]*\)(\{[^}]*\})?", r"\1", line)
    return re.sub(r"``|\*\*|`|\|", "", line).rstrip()


def _chunks(body: str) -> Iterator[str]:
    """Yield passages of some 600 characters, whole paragraphs each."""
    chunk = ""
    for paragraph in re.split(r"\n\s*\n", body):
        paragraph = " ".join(paragraph.split())
        if chunk and len(chunk) + len(paragraph) > 700:
            yield chunk
            chunk = ""
        chunk = f"{chunk}\n{paragraph}".strip()
    if chunk:
        yield chunk


def _documented(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str, str]]:
    if doc := ast.get_docstring(node, clean=False):
        code = ""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and len(node.body) > 1:
            node.body = node.body[1:]
            code = ast.unparse(node)
        yield name, doc, code
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for item in node.body:
            if isinstance(item, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not item.name.startswith(
                "_"
            ):
                yield from _documented(item, f"{name}.{item.name}")


def _spelled(name: str) -> str:
    """Return a dotted name as words."""
    return " ".join(re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).replace(".", " ").replace("_", " ").split()).lower()


def _guarded() -> Iterator[str]:
    """Yield how the docstrings of the held-out third begin: other packages copy some of them."""
    for path, text in sources.standard_library():
        module = path.removesuffix(".py").replace("/", ".")
        if held_out(module):
            for _, doc, _ in functions(module, text):
                if len(mark := _first(first_sentence(inspect.cleandoc(doc)))) > 30:
                    yield mark


def _first(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower())[:12])


def _digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
