"""`embrief export`: a model as a folder that runs without torch."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from embrief.cli.completion import model_names
from embrief.cli.naming import ConfigFile, meant_here
from embrief.cli.output import size
from embrief.cli.paths import expanded


def export(
    model: Annotated[
        str,
        typer.Argument(autocompletion=model_names, help="A name from `embrief models`, a folder, or an id on the hub."),
    ],
    to: Annotated[Path, typer.Option("--to", callback=expanded, metavar="FOLDER", help="The folder to write.")],
    file_format: Annotated[str, typer.Option("--format", help="onnx, for ONNX Runtime, or openvino.")] = "onnx",
    dtype: Annotated[
        str, typer.Option(help="float32, or int8 for the weights of the layers: smaller, and vectors move.")
    ] = "float32",
    revision: Annotated[str | None, typer.Option(help="The commit on the hub; by default the recorded one.")] = None,
    like: Annotated[
        str | None, typer.Option(help="The recorded model whose prompts and limits files are for that have none.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an export that is there. Nothing else is replaced.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Write a model as a folder that runs without torch.

    For ONNX Runtime or OpenVINO; compared with the original before it is put in place. What it writes runs with
    embrief[onnx] or embrief[openvino] alone, and its vectors are in the model's own space.
    """
    from embrief.exporting import export_model

    def say(step: str) -> None:
        typer.echo(f"{step} ...", err=True)

    # By the name that was typed: a commit may stand in it, or in the configuration behind it.
    _ = meant_here(model)
    done = export_model(
        model, to, format=file_format, dtype=dtype, revision=revision, like=like, force=force, on_step=say
    )
    typer.echo(f"{model} is in {done.folder}: {done.format}, {done.dtype}, {size(done.size)}")
    if done.kind == "embedder":
        typer.echo(f"least cosine with the original: {done.agreement:.6f}")
    else:
        typer.echo(f"log-odds differ from the original's by {done.agreement:.2g} at most")
