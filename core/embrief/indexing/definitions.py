"""What code defines, and where: names of functions, classes and the like, as far as their lines tell.

Python is parsed by Python. For other languages a definition is a line of a certain form, and it goes on as long as
lines are indented more: that holds for code that is laid out as usual, and otherwise a name is missing.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embrief.indexing.lines import Lines

TAB = 8
"""Columns of a tab: only whether a line is indented more than another counts."""

_WORD = r"([A-Za-z_$][\w$]*)"
_MODIFIERS = (
    r"(?:(?:export|default|declare|abstract|async|public|private|protected|internal|static|final|sealed|partial|virtual|"
    r"override|readonly|unsafe|extern|inline|constexpr|explicit|friend|native|synchronized|open|new|get|set|pub(?:\([^)]*\))?|"
    r"const|strictfp|default|transient|volatile|mutating)\s+)*"
)
_TYPES = rf"^\s*{_MODIFIERS}(?:class|interface|enum|record|struct|namespace)\s+(?:class\s+|struct\s+)?{_WORD}"
_SCRIPT = [
    rf"^\s*{_MODIFIERS}(?:class|interface|enum|namespace|module)\s+{_WORD}",
    rf"^\s*(?:export\s+)?type\s+{_WORD}\s*(?:<.*>)?\s*=",
    rf"^\s*{_MODIFIERS}function\s*\*?\s*{_WORD}",
    rf"^\s*(?:export\s+)?(?:const|let|var)\s+{_WORD}\s*(?::[^=]*)?=\s*(?:async\s*)?(?:function\b|\([^()]*\)\s*(?::[^=]*)?=>|\w+\s*=>|\($)",
    rf"^\s+{_MODIFIERS}[*#]?{_WORD}\s*(?:<[^()]*>)?\([^;]*\)?\s*(?::[^;]*)?\{{\s*$",
]
# A type or two, a name, a list of arguments, and no semicolon: nothing else at the beginning of a line looks like it.
_FUNCTION = r"^\s*(?:[\w:<>,*&\[\]?~.]+\s+)+[*&]*(?:[\w:<>]+::)?(~?[A-Za-z_]\w*)\s*\([^;=]*$"
_CONSTRUCTOR = rf"^\s+(?:public|private|protected|internal)\s+{_WORD}\s*\([^;=]*$"
_PATTERNS: dict[str, list[str]] = {
    "bash": [r"^\s*function\s+([\w:.-]+)", r"^\s*([\w:.-]+)\s*\(\s*\)\s*\{?\s*$"],
    "c": [r"^\s*(?:typedef\s+)?(?:struct|enum|union)\s+(\w+)\s*\{?\s*$", _FUNCTION],
    "c_sharp": [_TYPES, _CONSTRUCTOR, _FUNCTION],
    "cpp": [
        r"^\s*(?:typedef\s+)?(?:class|struct|enum(?:\s+class)?|union|namespace)\s+(?:[A-Z_]+\s+)?([\w:]+)[^;()]*$",
        _FUNCTION,
    ],
    "go": [r"^func\s+(?:\(\s*\w*\s*\*?(?P<owner>\w+)[^)]*\)\s*)?(\w+)", r"^type\s+(\w+)"],
    "java": [rf"^\s*{_MODIFIERS}(?:class|interface|enum|record|@interface)\s+{_WORD}", _CONSTRUCTOR, _FUNCTION],
    "javascript": _SCRIPT,
    "php": [rf"^\s*{_MODIFIERS}(?:class|interface|trait|enum)\s+{_WORD}", rf"^\s*{_MODIFIERS}function\s+&?{_WORD}"],
    "ruby": [r"^\s*(?:class|module)\s+([A-Z][\w:]*)", r"^\s*def\s+(?:self\.)?([\w?!=]+)"],
    "rust": [
        rf"^\s*{_MODIFIERS}(?:fn|struct|enum|trait|union|mod|type)\s+(\w+)",
        r"^\s*(?:unsafe\s+)?impl\b(?:\s*<[^{]*?>)?\s+(?:[^{]*\bfor\s+)?&?(?:\w+::)*(\w+)",
        r"^\s*macro_rules!\s+(\w+)",
    ],
    "tsx": _SCRIPT,
    "typescript": _SCRIPT,
}
_COMPILED = {language: [re.compile(pattern) for pattern in patterns] for language, patterns in _PATTERNS.items()}
# What looks like a type and a name, or a name with arguments, and is none.
_NO_NAME_WORDS = (
    "if else for while switch return case do goto new delete throw catch sizeof typeof await yield try using "
    "lock when elif function require import include assert defined not and or in is as static_assert foreach "
    "synchronized"
)
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())
_STATEMENT = re.compile(r"^\s*(?:return|else|throw|new|delete|goto|case|using|await|yield|typedef|#|//|/?\*|\.\.\.)")
_CLOSERS = ("}", ")", "]", "end", "{", "#", "//", "where", "/*", "*")


@dataclass(frozen=True, slots=True)
class Definition:
    """Something that has a name."""

    start: int
    """First line, counted from 1, with decorators."""
    end: int
    """Last line, inclusive."""
    name: str
    """With the names of what it is in, such as `Walk.files`."""


def definitions(text: str, lines: Lines, language: str) -> list[Definition]:
    """Return what code defines, in order; what is inside another comes after it."""
    if language == "python":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of strange escapes, in files that are not this program's
                tree = ast.parse(text.encode("utf-8"))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        return list(_python(tree.body, ""))
    patterns = _COMPILED.get(language)
    return _by_lines(lines, patterns) if patterns else []


def indent(line: str) -> int:
    """Return how many columns of blanks a line begins with."""
    blanks = line[: len(line) - len(line.lstrip(" \t"))]
    return len(blanks.expandtabs(TAB))


def _python(body: Sequence[ast.stmt], above: str) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            start = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            yield Definition(start, node.end_lineno or node.lineno, above + node.name)
            # What is inside a function is nobody's to call.
            if isinstance(node, ast.ClassDef):
                yield from _python(node.body, f"{above}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _python([item for item in ast.iter_child_nodes(node) if isinstance(item, ast.stmt)], above)


def _by_lines(lines: Lines, patterns: Sequence[re.Pattern[str]]) -> list[Definition]:
    found: list[Definition] = []
    open_ones: list[tuple[int, int]] = []
    """Indentation and place in `found` of each definition that the line is in."""
    last = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        depth = indent(line)
        goes_on = line.lstrip().startswith(_CLOSERS)
        name = None if goes_on else _name(line, patterns)
        while open_ones and (depth < open_ones[-1][0] or (depth == open_ones[-1][0] and not goes_on)):
            _, place = open_ones.pop()
            found[place] = Definition(found[place].start, last, found[place].name)
        if name is not None:
            above = f"{found[open_ones[-1][1]].name}." if open_ones else ""
            open_ones.append((depth, len(found)))
            found.append(Definition(number, len(lines), above + name))
        last = number
    return found


def _name(line: str, patterns: Sequence[re.Pattern[str]]) -> str | None:
    if len(line) > 400 or _STATEMENT.match(line):
        return None
    for pattern in patterns:
        mark = pattern.match(line)
        if mark:
            name = mark[mark.lastindex or 0]
            owner = mark.groupdict().get("owner")
            return None if name in _NO_NAMES else f"{owner}.{name}" if owner else name.replace("::", ".")
    return None
