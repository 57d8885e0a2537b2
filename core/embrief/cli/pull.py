"""`embrief pull`: get a model's files now, so that everything later works offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embrief.cli.completion import model_names
from embrief.cli.naming import ConfigFile, meant_here
from embrief.cli.output import size
from embrief.cli.paths import expanded
from embrief.errors import ArgumentError
from embrief.files.weights import ModelSource, fetch, find_cached

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec


def pull(
    model: Annotated[
        str, typer.Argument(autocompletion=model_names, help="A name from `embrief models`, or an id on the hub.")
    ],
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag; by default the recorded commit.")] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(callback=expanded, help="Where to keep it, if not in the usual place.")
    ] = None,
    tokenizer: Annotated[
        bool, typer.Option("--tokenizer", help="Only what counts and cuts texts for a model on a server.")
    ] = False,
    backend: Annotated[
        str | None, typer.Option(help="The runtime that will read the files, such as gguf; by default the best.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="The number format of the files, where there are several: q8_0, for instance.")
    ] = "auto",
    config: ConfigFile = None,
) -> None:
    """Download a model: safetensors, or one GGUF file."""
    from embrief.discovery.plugins import catalog
    from embrief.facades import arguments
    from embrief.serving.choosing import named, to_fetch, to_fetch_for

    arguments.revision(revision)
    meant = meant_here(model, also_on_servers=tokenizer)
    model, revision = meant.model, revision or meant.revision
    known = catalog()
    found = known.resolve(model, pinned=revision is not None)
    if isinstance(found, Path):
        raise ArgumentError(f"{found} is a folder on this machine; there is nothing to download")
    if tokenizer:
        _pull_tokenizer(model, found, revision, cache_dir)
        return
    recorded = found is not None and revision in (None, found.revision)
    # What names a runtime, such as gguf:NAME, means the files that it reads.
    runtime = backend if backend is not None or not recorded else meant.backend
    if runtime is None and dtype != "auto":
        raise ArgumentError(f"--dtype {dtype} chooses among GGUF files; add --backend gguf")
    if runtime is not None:
        if found is None or not recorded:
            raise ArgumentError(f"--backend {backend} is for recorded models at their recorded commit; {model} is none")
        wanted = dtype if dtype != "auto" else meant.keywords.get("dtype", dtype)
        artifact = to_fetch_for(known, found, runtime, wanted)
        if artifact is None:
            raise ArgumentError(f"the backend {named(known, runtime).name!r} needs no files of {found.id}")
        _pull(ModelSource.of(model, found, cache_dir=cache_dir, artifact=artifact))
        return
    artifact = to_fetch(known, found) if found is not None else None
    if found is not None and artifact is None and found.elsewhere is not None:
        raise ArgumentError(f"there is nothing to download to this machine: {found.id} {found.elsewhere}")
    if found is not None and artifact is None:
        typer.echo(f"{found.id} is built in; there is nothing to download")
        return
    _pull(ModelSource.of(model, found, revision=revision, cache_dir=cache_dir, artifact=artifact))


def _pull_tokenizer(model: str, spec: ModelSpec | None, revision: str | None, cache_dir: Path | None) -> None:
    if spec is not None and spec.hosted is not None:
        raise ArgumentError(
            f"there is no tokenizer to download: {spec.id} is served by {spec.hosted} and has no files; texts are sent "
            "as they are, and the provider refuses what is too long"
        )
    if spec is not None and (spec.folder is not None or spec.architecture == "hash"):
        typer.echo(f"{spec.id} is built in; there is nothing to download")
        return
    _pull(ModelSource.of_tokenizer(model, spec, revision=revision, cache_dir=cache_dir))


def _pull(wanted: ModelSource) -> None:
    there = find_cached(wanted) is not None
    if not there:
        what = "the tokenizer of " if wanted.what == "tokenizer" else ""
        typer.echo(f"Getting {what}{wanted.id} at revision {wanted.revision or 'main'}", err=True)
    got = fetch(wanted)
    typer.echo(f"{got.id} at revision {got.revision} {'was already here' if there else 'is here'}")
    typer.echo(f"{size(got.size)} in {got.folder}")
