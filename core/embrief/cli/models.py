"""`embrief models`: every model that has a record, and what of it is on this machine."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embrief.cli.output import console, plain, print_json, print_table, size, table, yes_no
from embrief.cli.paths import expanded
from embrief.errors import MissingDependencyError
from embrief.facts.specs import EmbeddingSpec, ModelSpec
from embrief.files.weights import CachedModel, cached_models
from embrief.serving.choosing import to_fetch
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from embrief.discovery.catalog import Catalog


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with everything that is known.")] = False,
    cache_dir: Annotated[
        Path | None, typer.Option(callback=expanded, help="Where downloads are kept, if not in the usual place.")
    ] = None,
) -> None:
    """List known models, and which are on this machine."""
    from embrief.discovery.plugins import catalog

    known = catalog()
    cached = _cached(cache_dir)
    rows = [_describe(spec, known, cached) for spec in known.models.values()]
    others = [
        {"id": item.id, "revision": item.revision, "bytes": item.size}
        for item in cached or ()
        if item.id not in known.models
    ]
    if as_json:
        print_json({"models": rows, "cache_known": cached is not None, "others": others})
        return
    _print(rows, others, cached is not None)


def _cached(cache_dir: Path | None) -> list[CachedModel] | None:
    """Return what is downloaded, `None` if that cannot be told."""
    try:
        return list(cached_models(cache_dir))
    except MissingDependencyError:
        return None


def _describe(spec: ModelSpec, known: Catalog, cached: list[CachedModel] | None) -> dict[str, Any]:
    embedding = isinstance(spec, EmbeddingSpec)
    revisions = [{"revision": item.revision, "bytes": item.size} for item in cached or () if item.id == spec.id]
    return {
        "id": spec.id,
        "kind": "embedding" if embedding else "reranker",
        "revision": spec.revision,
        "dim": spec.dim if isinstance(spec, EmbeddingSpec) else None,
        "shorter_dims": _widths(spec) if isinstance(spec, EmbeddingSpec) else None,
        "modalities": list(spec.modalities),
        "max_pixels": spec.images.max_pixels if spec.images is not None else None,
        "max_tokens": spec.max_tokens,
        "context": spec.context,
        "parameters": spec.parameters,
        "license": spec.license,
        "non_commercial": spec.non_commercial,
        "gated": spec.gated,
        "verified": spec.verified,
        "lexical": isinstance(spec, EmbeddingSpec) and spec.lexical,
        "hosted": spec.hosted,
        "needs_server": spec.needs_server,
        "served_names": [list(pair) for pair in spec.served_names],
        "needs_download": to_fetch(known, spec) is not None,
        "cached": revisions if cached is not None else None,
        "source": spec.source,
    }


def _widths(spec: EmbeddingSpec) -> str | list[int]:
    """Return the widths a vector can be cut to: `"32-1024"` for a range, else a list."""
    if isinstance(spec.mrl, range):
        return f"{spec.mrl[0]}-{spec.mrl[-1]}"
    return list(spec.mrl)


def _print(rows: list[dict[str, Any]], others: list[dict[str, Any]], cache_known: bool) -> None:
    out = console()
    wide = out.width >= 115
    run = "verified" if wide else "run"
    shown = table("model", "kind", "dims", "tokens", "licence", run, "cached", padding=int(wide))
    if not wide:
        # So that names such as Qwen/Qwen3-Embedding-0.6B stay in one piece on 80 characters.
        shown.columns[2].max_width, shown.columns[4].max_width = 9, 12
    for row in rows:
        shown.add_row(
            plain(row["id"]),
            "embed" if row["kind"] == "embedding" else "rerank",
            _dims(row),
            _tokens(row["max_tokens"]),
            plain(row["license"]) + (", gated" if row["gated"] else ""),
            yes_no(row["verified"]),
            _cache_cell(row),
        )
    print_table(out, shown)
    out.print(
        "\ndims: widths a vector may have, the last one is the default. tokens: what a text may have by default. "
        f"{run}: whether this release was run with the real weights. cached: the commit on this machine. "
        "hosted, server: not loaded on this machine; name the runtime that asks there.",
        style="dim",
    )
    if pictures := [str(row["id"]) for row in rows if "image" in row["modalities"]]:
        out.print(plain(f"Texts and pictures: {', '.join(pictures)}. All others: texts only."), style="dim")
    if not cache_known:
        out.print(f"What is cached is unknown without huggingface_hub: {install_command('torch')}", style="dim")
    if others:
        out.print("\nAlso in the cache, without a record:")
    for item in others:
        out.print(f"  {plain(item['id'])} at {item['revision'][:12]}, {size(item['bytes'])}", soft_wrap=True)


def _dims(row: dict[str, Any]) -> str:
    if row["dim"] is None:
        return "-"
    shorter = row["shorter_dims"]
    if isinstance(shorter, str):
        # The built-in model makes any width; its default lies inside the range.
        return shorter if shorter.endswith(f"-{row['dim']}") else f"{row['dim']} ({shorter})"
    return ", ".join(str(width) for width in sorted({*shorter, row["dim"]}))


def _tokens(count: int) -> str:
    return f"{count // 1_000_000}M" if count >= 1_000_000 else str(count)


def _cache_cell(row: dict[str, Any]) -> str:
    if row["hosted"] is not None or row["needs_server"] is not None:
        return "hosted" if row["hosted"] is not None else "server"
    if not row["needs_download"]:
        return "built in"
    if row["cached"] is None:
        return "unknown"
    revisions = [str(item["revision"]) for item in row["cached"]]
    if row["revision"] in revisions:
        return str(row["revision"])[:7]
    return f"another: {revisions[0][:7]}" if revisions else "-"
