"""`embrief embed`: vectors for lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embrief.cli.items import Keys
from embrief.cli.naming import ConfigFile, MaxPixels, given
from embrief.cli.piping import Batch, Files, Format, Input, OnError, Out, Pipe, one_of
from embrief.cli.rows import Row
from embrief.config.offline import offline_models
from embrief.errors import ArgumentError
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embrief.cli.items import Item
    from embrief.facts.specs import Truncate

_TRUNCATE: dict[str, Truncate] = {"warn": "silent", "silent": "silent", "error": "error"}
"""What becomes of a text that is too long; cut ones are counted here, over all blocks."""


def embed(
    files: Files = None,
    model: Annotated[str | None, typer.Option(help="The embedding model or its folder.")] = None,
    role: Annotated[str, typer.Option(help="document, or query.")] = "document",
    instruction: Annotated[str | None, typer.Option(help="What the queries are for, in a sentence.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, metavar="N", help="Values per vector.")] = None,
    truncate: Annotated[str, typer.Option(help="Texts that are too long: warn, silent or error.")] = "warn",
    max_pixels: MaxPixels = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    form: Input = "auto",
    format: Format = "jsonl",
    out: Out = None,
    on_error: OnError = "stop",
    batch: Batch = 1024,
    config: ConfigFile = None,
) -> None:
    """Embed lines, each as it comes.

    A line is a text, or a JSON object with "text" and, if there is one, "title" and "id". For models that take
    pictures also with "image", a file or data:image/...;base64,..., alone or beside "text". Answers come in the order
    of the lines.

    Ends with 0; 1: a line or an option cannot be used; 2: wrong usage; 130: interrupted; 141: nobody reads any more.
    """
    one_of("--role", role, ("document", "query"))
    one_of("--truncate", truncate, tuple(_TRUNCATE))
    if instruction is not None and role != "query":
        raise ArgumentError("--instruction is for queries; give --role query, or leave it out")
    pipe = Pipe(files, form, format, out, on_error, batch, Keys("text", title="title"))

    from embrief import Embedder, EmbeddingSpec
    from embrief.config.names import named_default

    name = model or named_default(EmbeddingSpec)
    if name is None:
        offline = offline_models()
        name = offline.embedding
        if offline.missing:
            typer.echo(
                f"{name} compares spelling only; for a model that compares meaning: {install_command('torch')}",
                err=True,
            )
    embedder = Embedder(
        name,
        dim=dim,
        instruction=instruction,
        truncate=_TRUNCATE[truncate],
        max_pixels=max_pixels,
        **given(device=device),
    )
    cut = 0

    def answer(items: Sequence[Item]) -> list[Row]:
        nonlocal cut
        titles = [item.title for item in items]
        result = embedder.encode(
            [item.content for item in items],
            role="query" if role == "query" else "document",
            titles=titles if any(titles) else None,
        )
        rows = []
        for place, (item, vector) in enumerate(zip(items, result.vectors, strict=True)):
            more: dict[str, int | bool] = {}
            if result.token_counts is not None:
                more["tokens"] = int(result.token_counts[place])
            if result.image_tokens is not None and result.image_tokens[place]:
                more["image_tokens"] = int(result.image_tokens[place])
            if result.truncated is not None and result.truncated[place]:
                more["truncated"] = True
                cut += 1
            rows.append(Row(item, vector, more))
        return rows

    try:
        pipe.run(answer, "embedding", embedder.dim)
    finally:
        if cut and truncate == "warn":
            typer.echo(
                f"warning: {cut:,} texts are longer than {embedder.max_tokens} tokens and lost their end", err=True
            )
