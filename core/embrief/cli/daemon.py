"""`embrief daemon`: the process in the background that holds models and collections open."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from embrief.cli.output import plain, print_json
from embrief.errors import ArgumentError

app = typer.Typer(help="Keep models open for the next search.", no_args_is_help=True)

_Idle = Annotated[
    float | None,
    typer.Option(
        "--idle",
        metavar="MINUTES",
        help="Minutes without a command after which it ends [default: EMBRIEF_DAEMON_IDLE, else 30].",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def start(idle: _Idle = None) -> None:
    """Start it in the background, if there is none."""
    from embrief.local.background import start_background
    from embrief.local.places import own_place

    place = own_place()
    started = start_background(place, _minutes(idle))
    found = _ask(place, "status") or {}
    print(f"{'started' if started else 'runs already'}: process {found.get('status', {}).get('pid')}, log {place.log}")


@app.command()
def status(as_json: _Json = False) -> None:
    """Show which processes there are. Ends with 1 if there is none for this environment."""
    from embrief.local.places import Place, check, exists, own_place

    own = own_place()
    found: list[dict[str, Any]] = []
    if exists(own.folder):
        check(own.folder)
        for path in sorted([*own.folder.glob("*.sock"), *own.folder.glob("*.door")]):
            answer = _ask(Place(own.folder, path.stem), "status")
            if answer is not None and isinstance(answer.get("status"), dict):
                found.append({**answer["status"], "this_environment": path.stem == own.name, "socket": str(path)})
    if as_json:
        print_json(found)
    else:
        for item in found:
            whose = "" if item["this_environment"] else "; of another environment or version"
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(item["started"]))
            left = "" if item["ends_in"] is None else f", ends in {max(item['ends_in'], 0) / 60:.0f} min if unused"
            print(
                plain(
                    f"process {item['pid']} ({item['kind']}, {item['version']}) since {since}: {item['running']} "
                    f"running, {item['served']} served{left}{whose}"
                )
            )
        if not any(item["this_environment"] for item in found):
            print("no process for this environment; `embrief daemon start` starts one")
    if not any(item["this_environment"] for item in found):
        raise typer.Exit(1)


@app.command()
def stop() -> None:
    """End the process of this environment. Commands that run in it are told to end."""
    from embrief.errors import LocalProcessError
    from embrief.local.places import own_place

    place = own_place()
    answer = _ask(place, "stop")
    if answer is None:
        print("no process for this environment")
        return
    if "refused" in answer:
        raise LocalProcessError(plain(str(answer["refused"])))
    end = time.monotonic() + 10
    while _ask(place, "status") is not None and time.monotonic() < end:
        time.sleep(0.05)
    print(f"stopped: process {answer.get('stopping')}")


@app.command()
def run(idle: _Idle = None) -> None:
    """Be the process, in this terminal. `start` does this in the background."""
    from embrief.cli.running import run_command, warn_each_time
    from embrief.indexing.workspace import shared_workspace
    from embrief.local.background import idle_minutes, run_until_idle

    minutes = _minutes(idle)
    warn_each_time()
    shared_workspace().keep_open()
    run_until_idle(run_command, idle_minutes() if minutes is None else minutes)


def _minutes(idle: float | None) -> float | None:
    if idle is not None and not 0 < idle < 1e6:
        raise ArgumentError(f"--idle is {idle:g}; give a number of minutes above 0, such as 30")
    return idle


def _ask(place: Any, what: str) -> dict[str, Any] | None:
    from embrief.local.client import ask, reach
    from embrief.local.places import exists

    if not exists(place.folder):
        return None
    connection = reach(place)
    if connection is None:
        return None
    with connection:
        return ask(connection, what)
