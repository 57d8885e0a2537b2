"""`embrief doctor`: what is installed, which device runs models, and whether a model fits."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated, Any

import typer

from embrief.cli.completion import model_names
from embrief.cli.output import console, plain, print_json, print_table, size, table
from embrief.cli.paths import expanded

_WORKING_MEMORY = "working memory for one batch, which grows with batch_tokens and the length of texts; not estimated"
_FITS = {True: ", fits", False: ", does not fit", None: ""}


def doctor(
    model: Annotated[
        str | None, typer.Argument(autocompletion=model_names, help="A model, to see whether it works here.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(callback=expanded, metavar="FILE", help="A configuration file to check, if not your own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions, devices, memory and disk.

    Checks the configuration, if there is one. With a model, also whether it works here. Ends with 1 if something is
    broken, or if the model does not load or does not fit.
    """
    from embrief.cli import diagnosis

    data = diagnosis.collect(model, config)
    if as_json:
        print_json(data)
    else:
        _print(data)
    if data["problems"] or (data["model"] and not data["model"]["verdict"]["works"]):
        raise typer.Exit(1)


def _print(data: dict[str, Any]) -> None:
    out = console()
    facts: list[tuple[str, str]] = [
        ("embrief", data["embrief"]),
        ("python", f"{data['python']} ({data['executable']})"),
        ("platform", data["platform"]),
        ("memory", size(data["memory_bytes"]) if data["memory_bytes"] else "unknown"),
    ]
    facts += [("device", _device(item)) for item in data["devices"]]
    facts += [("auto", _auto(data["auto"])), ("cache", _cache(data["cache"]))]
    facts += [("set", f"{name}={value}") for name, value in data["environment"].items()]
    _pairs(out, facts)
    out.print()
    installed = {name: version or "not installed" for name, version in data["packages"].items()}
    _pairs(out, list(installed.items()))
    if data["configuration"]["file"]:
        _print_configuration(out, data["configuration"])
    if data["model"]:
        out.print()
        _pairs(out, _model(data["model"]))
    out.print()
    for note in data["configuration"]["notes"]:
        out.print(plain(f"note: {note}"), style="yellow", soft_wrap=True)
    for problem in data["problems"]:
        out.print(plain(f"problem: {problem}"), style="red", soft_wrap=True)
    if not data["problems"] and (data["model"] is None or data["model"]["verdict"]["works"]):
        out.print("no problems found", style="green")


def _print_configuration(out: Any, found: dict[str, Any]) -> None:
    out.print()
    out.print(plain(f"configuration {found['file']}"), style="bold", soft_wrap=True)
    if not found["models"]:
        return
    shown = table("name", "kind", "provider", "model", "dim", "works")
    for row in found["models"]:
        cells = (row["name"], row["kind"], row["provider"], row["model"], str(row["dim"] or "-"))
        shown.add_row(*map(plain, cells), "no" if row["problem"] else "yes")
    print_table(out, shown)


def _pairs(out: Any, rows: list[tuple[str, str]]) -> None:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, plain(value))
    print_table(out, grid)


def _device(item: dict[str, Any]) -> str:
    memory = f", {size(item['memory_bytes'])}" if item["memory_bytes"] else ""
    return f"{item['device']}: {item['name']}{memory}"


def _auto(auto: dict[str, Any]) -> str:
    if auto["device"] is None:
        return f"nothing yet: {auto['why']}"
    return f"{auto['device']}, {auto['dtype']}: {auto['why']}"


def _cache(cache: dict[str, Any]) -> str:
    if cache["folder"] is None:
        return "unknown without huggingface_hub"
    return f"{cache['folder']} ({size(cache['free_bytes'])} free)"


def _model(model: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("model", model["id"])]
    if model["parameters"]:
        rows.append(("parameters", f"{model['parameters']:,}"))
    elif model["verdict"]["works"]:
        rows.append(("weights", "none: it is built in"))
    for dtype, count in model["weights_bytes"].items():
        chosen = " (what auto takes here)" if dtype == model["auto_dtype"] else ""
        rows.append((dtype, f"{size(count)} of weights{_FITS[model['fits'][dtype]]}{chosen}"))
    rows += [(dtype, "not usable: this model gives wrong results in it") for dtype in model["banned_dtypes"]]
    if model["weights_bytes"]:
        rows.append(("memory", _memory(model["needs_bytes"])))
        rows.append(("besides", _WORKING_MEMORY))
    if model["page"]:
        rows += _page(model["page"], model["modalities"])
    if model["tells_truncation"] is False:
        rows = [*rows, ("truncation", "unknown: the runtime does not say which texts it cuts off")]
    return [*rows, ("verdict", _verdict(model))]


def _memory(needs: dict[str, int]) -> str:
    told = ", ".join(f"{size(count)} in {dtype}" for dtype, count in needs.items())
    return f"{told} at least: the weights, a fifth more while they are loaded, and the smallest batch"


def _page(page: dict[str, Any], modalities: list[str] | None) -> list[tuple[str, str]]:
    seen = f"seen in {page['seen_width']:,} x {page['seen_height']:,}"
    told = f"an A4 page in {page['width']:,} x {page['height']:,} pixels is {seen}: {page['tokens']:,} tokens"
    rows = [("pictures", f"{told} with max_pixels={page['max_pixels']}; less is faster and sees less")]
    if page["authors_tokens"] is not None:
        more = f"max_pixels={page['authors_max_pixels']}, the limit of the authors' own code"
        rows.append(("", f"{page['authors_tokens']:,} tokens with {more}"))
    if modalities is not None and "image" not in modalities:
        rows.append(("", "none here: the runtime that serves this model gives it texts only"))
    return rows


def _verdict(model: dict[str, Any]) -> str:
    verdict = model["verdict"]
    if not verdict["works"]:
        return f"it does not work here: {verdict['problem']}"
    how = "it loads and fits" if verdict["loaded"] else "it fits; its weights are not on this machine yet"
    if verdict["dtype"] not in (None, model["auto_dtype"]):
        return f"{how} with dtype={verdict['dtype']!r}, which has to be passed: {model['auto_dtype']} is too large"
    return how
