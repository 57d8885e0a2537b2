"""`embrief plugins`: what was discovered, what is installed, and what is broken."""

from __future__ import annotations

import os
import warnings
from typing import Annotated, Any

import typer

from embrief.cli.output import console, plain, print_json, print_table, table, yes_no
from embrief.discovery.plugins import VARIABLE, Plugins
from embrief.errors import PluginWarning
from embrief.serving.choosing import serving


def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List plugins, integrations and runtimes.

    Ends with 1 if a plugin is broken.
    """
    found = discover()
    data = {
        "plugins": [_plugin(report) for report in found.reports],
        "integrations": [
            {
                "name": item.name,
                "package": item.package,
                "installed": item.installed,
                "install": item.install,
                "provides": list(item.provides),
            }
            for item in found.catalog.integrations.values()
        ],
        "backends": [
            {"name": item.name, "missing": list(item.missing()), "install": item.install}
            for item in found.catalog.backends.values()
        ],
        "only": os.environ.get(VARIABLE),
    }
    if as_json:
        print_json(data)
    else:
        _print(data)
    if problems(found):
        raise typer.Exit(1)


def discover() -> Plugins:
    """Return everything registered, without the warnings: these commands show the problems themselves."""
    from embrief.discovery.plugins import plugins as discovered

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        found = discovered()
        for spec in list(found.catalog.models.values()):
            # A hook that fails when it is asked shows only if it is asked.
            able = [runtime for runtime in serving(found.catalog, spec) if not runtime.missing()]
            found.preferred_backend(spec, tuple(runtime.name for runtime in able))
        return found


def problems(found: Plugins) -> list[str]:
    """Return one line per problem of a plugin."""
    return [
        f"plugin {report.name} of {report.distribution} {report.version}: {problem}"
        for report in found.reports
        for problem in report.problems
    ]


def _plugin(report: Any) -> dict[str, Any]:
    return {
        "name": report.name,
        "distribution": report.distribution,
        "version": report.version,
        "status": report.status,
        "adds": list(report.adds),
        "problems": list(report.problems),
    }


def _print(data: dict[str, Any]) -> None:
    out = console()
    shown = table("plugin", "from", "adds", "status", title="Plugins")
    for item in data["plugins"]:
        shown.add_row(
            plain(item["name"]),
            plain(f"{item['distribution']} {item['version']}"),
            plain(", ".join(item["adds"])) or "-",
            item["status"],
        )
    print_table(out, shown)
    for item in data["plugins"]:
        for problem in item["problems"]:
            out.print(plain(f"{item['name']}: {problem}"), style="red", soft_wrap=True)
    if data["only"] is not None:
        out.print(plain(f"{VARIABLE}={data['only']!r} leaves out other plugins than these."), style="dim")
    integrations = [(item, item["installed"], ", ".join(item["provides"])) for item in data["integrations"]]
    _print_installs(out, "Integrations", "gives", integrations)
    backends = [(item, not item["missing"], ", ".join(item["missing"]) or "nothing") for item in data["backends"]]
    _print_installs(out, "Runtimes", "lacks", backends)


def _print_installs(out: Any, title: str, last: str, items: list[tuple[dict[str, Any], bool, str]]) -> None:
    shown = table("name", "installed", last, title=title)
    for item, installed, details in items:
        shown.add_row(plain(item["name"]), yes_no(installed), plain(details))
    out.print()
    print_table(out, shown)
    for item, installed, _ in items:
        if not installed and item["install"]:
            out.print(plain(f"for {item['name']}: {item['install']}"), soft_wrap=True)
