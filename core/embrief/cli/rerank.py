"""`embrief rerank`: how relevant documents are to queries, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embrief.cli.items import Keys
from embrief.cli.naming import ConfigFile, MaxPixels, given
from embrief.cli.piping import Batch, Files, Format, Input, OnError, Out, Pipe, one_of
from embrief.cli.rows import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embrief.cli.items import Item
    from embrief.facts.specs import Truncate

_TRUNCATE: dict[str, Truncate] = {"warn": "warn", "silent": "silent", "error": "error"}


def rerank(
    files: Files = None,
    query: Annotated[
        str | None, typer.Option(help="The query of all lines that bring none; then a line may be a document alone.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The reranker or its folder.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What makes a document relevant, in a sentence.")] = None,
    truncate: Annotated[str, typer.Option(help="Documents that are too long: warn, silent or error.")] = "warn",
    max_pixels: MaxPixels = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    form: Input = "auto",
    format: Format = "jsonl",
    out: Out = None,
    on_error: OnError = "stop",
    batch: Batch = 1024,
    config: ConfigFile = None,
) -> None:
    """Score pairs of query and document, each as it comes.

    A line is a document, with --query for all, or a JSON object with "document", "query" and, if there is one, "id".
    For models that take pictures also with "image", a file or data:image/...;base64,..., alone or beside "document";
    and "document" and "query" may be objects with "text" and "image".
    A score is the chance that the document is relevant, from 0 to 1. Answers come in the order of the lines.

    Ends with 0; 1: a line or an option cannot be used; 2: wrong usage; 130: interrupted; 141: nobody reads any more.
    """
    one_of("--truncate", truncate, tuple(_TRUNCATE))
    pipe = Pipe(files, form, format, out, on_error, batch, Keys("document", query="query", default_query=query))

    from embrief import Reranker
    from embrief.config.offline import usual_reranker

    reranker = Reranker(
        model or usual_reranker(),
        instruction=instruction,
        truncate=_TRUNCATE[truncate],
        max_pixels=max_pixels,
        **given(device=device),
    )

    def answer(items: Sequence[Item]) -> list[Row]:
        scores = reranker.score_pairs([(item.query or "", item.content) for item in items])
        return [Row(item, score) for item, score in zip(items, scores, strict=True)]

    pipe.run(answer, "score", None)
