"""The main text of an HTML page, and the line of the file that each line of it is from."""

from __future__ import annotations

import logging
from html.parser import HTMLParser

from embrief.errors import MissingDependencyError, UnreadableFileError
from embrief.indexing.aligning import Written, align
from embrief.indexing.documents import Document
from embrief.indexing.lines import Lines
from embrief.system.installed import install_command

_UNSEEN = {"script", "style", "template", "noscript", "title", "svg", "math", "object", "iframe"}
# Elements around which a browser breaks the line.
_BLOCKS_WORDS = (
    "address article aside blockquote body br dd details div dl dt fieldset figcaption figure footer form h1 "
    "h2 h3 h4 h5 h6 header hr html li main nav ol option p pre section select summary table tbody td tfoot th "
    "thead tr ul"
)
_BLOCKS = frozenset(_BLOCKS_WORDS.split())


def read_html(text: str, name: str) -> Document:
    """Return what a page is about: its main text, or all that is visible where none can be told from the rest.

    Args:
        text: The page.
        name: Of the file, for messages.

    Raises:
        UnreadableFileError: No text is visible.
        MissingDependencyError: trafilatura is not installed.
    """
    page = _Page()
    page.feed(text)
    page.close()
    main = _main_text(text)
    if main and main.strip():
        found = list(Lines(main))
        lines = align(found, Written(page.pieces))
        said = "\n".join(found)
    else:
        seen = page.seen()
        said, lines = "\n".join(words for _, words in seen), tuple(line for line, _ in seen)
    if not said.strip():
        raise UnreadableFileError(f"{name!r} has no visible text; leave it out", reason="no text")
    return Document(said, "html", title=page.title, lines=lines)


def _main_text(text: str) -> str | None:
    try:
        import trafilatura
    except ImportError as error:
        raise MissingDependencyError(
            f"reading HTML needs the package trafilatura, which cannot be imported ({error}); run "
            f"{install_command('index')}"
        ) from error

    # It writes pieces of pages to its log; a handler of its own keeps them from stderr.
    logger = logging.getLogger("trafilatura")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    try:
        # Given a text it fetches nothing. Comments of readers are not what the page is about.
        return trafilatura.extract(text, include_comments=False, include_tables=True, favor_recall=True)
    except Exception:  # what it cannot read, the visible text is still there for
        return None


class _Page(HTMLParser):
    """The visible text of a page, piece by piece, with the line that each is on."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[tuple[int, str]] = []
        """Line and characters; an empty piece is a line break."""
        self._unseen: list[str] = []
        self._title: list[str] = []
        self._in_title = False

    @property
    def title(self) -> str | None:
        """What its `<title>` says."""
        return " ".join("".join(self._title).split()) or None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Break lines, and stop looking inside what no reader sees."""
        if tag in _UNSEEN:
            self._in_title = tag == "title" and not self._title and not self._unseen
            self._unseen.append(tag)
        elif tag in _BLOCKS:
            self._break()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Break lines: an element that ends where it begins hides nothing."""
        if tag in _BLOCKS:
            self._break()

    def handle_endtag(self, tag: str) -> None:
        """Look again behind what no reader sees."""
        if tag in self._unseen:
            while self._unseen.pop() != tag:
                pass
            self._in_title = False
        elif tag in _BLOCKS:
            self._break()

    def handle_data(self, data: str) -> None:
        """Keep what is seen."""
        if self._in_title:
            self._title.append(data)
        if not self._unseen:
            self.pieces.append((self.getpos()[0], data))

    def _break(self) -> None:
        self.pieces.append((self.getpos()[0], ""))

    def seen(self) -> list[tuple[int, str]]:
        """Return the lines that a browser would show: the line of the file where each begins, and its words."""
        found: list[tuple[int, str]] = []
        line, words = 0, ""
        for start, data in [*self.pieces, (0, "")]:
            if not data:
                if words.strip():
                    found.append((line, " ".join(words.split())))
                words = ""
                continue
            if not words.strip():
                line = start + _breaks(data[: len(data) - len(data.lstrip())])
                words = ""
            words += data
        return found


def _breaks(text: str) -> int:
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n")
