"""`embrief parity`: does a server run a model as it should?"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Annotated

import typer

from embrief.cli.completion import model_names
from embrief.cli.naming import ConfigFile  # noqa: TC001 - typer reads it


def parity(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=model_names,
            help="What is checked: a model, or a reference such as ollama:embeddinggemma or tei:http://gpu:8080#MODEL.",
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Argument(
            autocompletion=model_names, help="What it is compared with; by default what the model's authors published."
        ),
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="Least cosine that counts as equal.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens per text, for both.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the vectors of the probe texts, for members of a fallback.")
    ] = False,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a model with the same one elsewhere.

    Names the cause of a difference. Exits with 1 if the vectors differ; then nothing is kept either.
    """
    from embrief.facades.embedder import Embedder
    from embrief.parity import check_parity, kept

    with ExitStack() as stack:
        embedder = stack.enter_context(Embedder(model, max_tokens=max_tokens))
        against = None if reference is None else stack.enter_context(Embedder(reference, max_tokens=max_tokens))
        report = check_parity(embedder, against, tolerance=tolerance)
        typer.echo(json.dumps(report.to_json(), indent=2) if as_json else str(report))
        if report.verdict == "differs":
            raise typer.Exit(1)
        if record:
            typer.echo(f"the vectors are kept in {kept.record(embedder)}", err=True)
