"""`embrief search`: ask a collection that `embrief index` made."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from embrief.cli.lines import can_show, fitting, line, print_json, styled
from embrief.cli.naming import ConfigFile, InBackground  # noqa: TC001 - typer reads them
from embrief.cli.output import plain
from embrief.cli.paths import expanded
from embrief.cli.terminal import terminal
from embrief.errors import ArgumentError, EmbriefError

if TYPE_CHECKING:
    from embrief.facts.prompts import Input
    from embrief.indexing.searching import Hit
    from embrief.indexing.snippets import Line

_CELLS = 10
_BARS = ("\N{FULL BLOCK}\N{LIGHT SHADE}", "#.")
_RULES = ("\N{BOX DRAWINGS LIGHT VERTICAL}", "|")
_MORE = "\N{HORIZONTAL ELLIPSIS}"
_STATES = {
    "changed": "changed since it was indexed: this is the old {what}",
    "gone": "no longer there",
    "unknown": "",
    "current": "",
}
NOTHING, FAILED = 1, 2
"""Exit codes, as grep's."""


def search(
    question: Annotated[
        str | None, typer.Argument(help="What you look for, in words; with --image perhaps none.", show_default=False)
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            callback=expanded,
            metavar="FILE",
            help="A picture to ask with, alone or with words; for collections whose model takes pictures.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, metavar="N", help="Passages to show at most.")] = 10,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let a reranker read the nearest passages and put them in order.")
    ] = False,
    reranker: Annotated[
        str | None, typer.Option(help="Which one; by default the configured one, or one that comes with the package.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="What the question is for, in a sentence.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, metavar="SCORE", help="The least cosine similarity, before --rerank.")
    ] = None,
    filetype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE",
            help="An extension such as py, or code, html, image, markdown, page, pdf, text; several times.",
        ),
    ] = None,
    context: Annotated[int, typer.Option(min=0, max=1000, metavar="N", help="Lines around each passage.")] = 0,
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name; by default the one that this folder is in.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="DIR|URL", help="Where its store is.")] = None,
    store: Annotated[str | None, typer.Option(help="chroma or qdrant.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The embedding model; by default the one that the collection was made with.")
    ] = None,
    daemon: InBackground = False,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search what `embrief index` has indexed, by meaning.

    Exit code, as grep's: 0 if something was found, 1 if nothing was, 2 after an error.
    """
    # Inside the function: a command's help needs nothing of it.
    from embrief.indexing.workspace import USUAL, shared_workspace

    workspace, here = shared_workspace(), terminal()
    try:
        info = workspace.choose(collection, to=to, store=store, cwd=here.cwd)
        hits = workspace.search(
            _asked(question, None if image is None else here.cwd / image),
            info.name,
            cwd=here.cwd,
            to=info.to,
            store=info.store,
            model=model,
            top_k=top_k,
            threshold=threshold,
            filetypes=filetype or (),
            rerank=reranker or (USUAL if rerank else None),
            instruction=instruction,
            context=context,
        )
    except EmbriefError as error:
        for number, part in enumerate(str(error).splitlines()):
            line(styled(part if number else f"error: {part}", ""), error=True)
        raise typer.Exit(FAILED) from error
    if as_json:
        shown = None if image is None else str(here.cwd / image)
        data = {"question": question or "", "image": shown, "collection": info.name}
        print_json({**data, "hits": [hit.to_json() for hit in hits]})
    else:
        _print(hits, question or "", here.cwd)
    if not hits:
        if not as_json:
            line(styled(f"Nothing in {info.name} answers that.", "yellow"), error=True)
        raise typer.Exit(NOTHING)


def _asked(question: str | None, image: Path | None) -> Input:
    """Return what is asked.

    Raises:
        ArgumentError: Nothing is, or the picture cannot be read.
    """
    if image is None:
        if question is None:
            raise ArgumentError("there is no question; ask in words, or with --image FILE")
        return question
    from embrief.images.image import Image

    picture = Image(image)
    try:
        # Here it has a name; a model knows it as one of its inputs only.
        _ = picture.digest
    except ArgumentError as error:
        raise ArgumentError(f"--image {image}: {error}") from error
    return {"text": question, "image": picture} if question and question.strip() else picture


def _print(hits: list[Hit], question: str, cwd: Path) -> None:
    from embrief.indexing.snippets import snippet

    for place, hit in enumerate(hits):
        if place:
            line()
        shown = [] if hit.is_picture else snippet(hit, question)
        score = hit.score if hit.rerank_score is None else hit.rerank_score
        told = [styled(where(hit, shown, cwd), "cyan"), "  ", styled(_bar(score), "green"), f" {score:.3f}"]
        if hit.rerank_score is not None:
            told.append(styled(f" (similarity {hit.score:.3f})", "dim"))
        if hit.title:
            told += ["  ", styled(hit.title, "bold")]
        line(*told)
        if _STATES[hit.state]:
            what = "picture" if hit.is_picture else "text"
            line(styled(f"  {_STATES[hit.state].format(what=what)}", "yellow"))
        width = max((len(str(item.number)) for item in shown if item.number is not None), default=0)
        for item in shown:
            _print_line(item, width)


def where(hit: Hit, shown: list[Line], cwd: Path) -> str:
    """Return where a hit is, as compilers say it: the file as seen from `cwd`, and the line to look at.

    A picture has no line.
    """
    file = hit.path
    if hit.file is not None:
        file = os.path.relpath(hit.file, cwd) if cwd in hit.file.parents else str(hit.file)
    page = f" page {hit.page}" if hit.page is not None else ""
    if hit.is_picture:
        return f"{file}{page}"
    first = shown[0].number if shown and hit.context is None else None
    return f"{file}:{hit.start_line if first is None else first}{page}"


def _bar(score: float) -> str:
    bars = next(bars for bars in _BARS if can_show(bars, terminal().out))
    full, empty = bars[0], bars[1]
    cells = round(min(max(score, 0.0), 1.0) * _CELLS)
    return full * cells + empty * (_CELLS - cells)


def _print_line(item: Line, width: int) -> None:
    here = terminal()
    rule = next(rule for rule in _RULES if can_show(rule, here.out))
    number = "" if item.number is None else str(item.number)
    room = max(here.width - width - 5, 20)
    shown, more = item.text, ""
    if (fits := fitting(plain(shown), room)) < len(shown):
        more = _MORE if can_show(_MORE, here.out) else ""
        shown = shown[: fitting(plain(shown), room - len(more))]
        fits = len(shown)
    parts, place = [], 0
    for begin, end in (*item.marks, (fits, fits)):
        parts += [styled(shown[place:begin], ""), styled(shown[begin:end], "match")]
        place = end
    line(styled(f"  {number:>{width}} {rule} ", "dim"), *parts, more)
