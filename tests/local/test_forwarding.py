"""What somebody types, answered by a process: what it costs, what stays here, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from typing import Annotated

import pytest
import typer

import embrief
from embrief.__main__ import main
from embrief.cli.running import run_command, warn_each_time
from embrief.cli.terminal import terminal
from embrief.errors import ArgumentError, LocalProcessError
from embrief.local import background, client, places

WAIT = 30
"""Seconds against hangs."""
FORBIDDEN = (
    "numpy", "importlib.metadata", "rich", "typer", "click", "httpx", "asyncio", "pluggy", "sqlite3", "subprocess",
    "embrief.cli", "embrief.config", "embrief.facades", "embrief.local.service", "shutil", "ssl",
    "dataclasses", "inspect", "tempfile", "embrief.discovery",
)  # fmt: skip

toy = typer.Typer(rich_markup_mode=None)


@toy.callback()
def _start() -> None:
    """Toy commands."""


@toy.command()
def search(
    question: Annotated[str, typer.Argument()],
    top: Annotated[int, typer.Option(min=1)] = 3,
    fail: Annotated[str, typer.Option()] = "",
) -> None:
    """Print what it knows of the terminal."""
    here = terminal()
    if fail == "error":
        raise ArgumentError("--fail is error")
    if fail == "exit":
        raise typer.Exit(9)
    if fail == "late":
        raise typer.BadParameter("too late")
    if fail == "warning":
        warnings.warn("take care", embrief.PluginWarning, stacklevel=1)
    if fail == "snowman":
        print("\N{SNOWMAN}\udce4", file=here.out)
        return
    if fail == "wait":
        print("waiting", file=here.out, flush=True)
        assert here.stop.wait(WAIT)
        return
    if fail == "fill":
        while True:
            print("x" * 1000, file=here.out)
    print(json.dumps([question, top, here.width, here.colour, str(here.cwd)]), file=here.out)


def run_toy(request):
    return run_command(request, toy)


def typed(*words, **options):
    """Run `embrief` as somebody types it."""
    return subprocess.run(
        [sys.executable, "-m", "embrief", *words], capture_output=True, text=True, timeout=WAIT, **options
    )


@pytest.fixture
def answering(serving):
    with serving(run_toy) as service:
        yield service


def test_a_command_is_answered_by_the_process_and_imports_almost_nothing(answering, tmp_path):
    script = (
        "import sys\nsys.argv = ['embrief', 'search', 'red planet', '--top', '5']\n"
        "from embrief.__main__ import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "COLUMNS": "57"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT, cwd=tmp_path, env=environment
    )
    assert json.loads(done.stdout) == ["red planet", 5, 57, False, str(tmp_path)]
    assert done.returncode == 0
    modules = set(done.stderr.split())
    assert "embrief.local.client" in modules
    assert modules & set(FORBIDDEN) == set()
    assert answering.status()["served"] == 1


def test_a_command_that_no_process_runs_asks_for_none(folder):
    script = (
        "import sys\nsys.argv = ['embrief', '--help']\n"
        "from embrief.__main__ import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT)
    assert "Commands:" in done.stdout
    assert {name for name in done.stderr.split() if name.startswith("embrief.local.")} == set()


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["search", "x", "--top", "0"], 2, "--top"),
        (["search", "x", "--nonsense"], 2, "--nonsense"),
        (["search", "x", "--fail", "exit"], 9, ""),
        (["search", "x", "--fail", "late"], 2, "too late"),
        (["search", "x", "--fail", "warning"], 0, "take care"),
        (["index"], 2, "No such command"),
    ],
)
def test_every_end_is_as_if_it_had_run_here(answering, call, words, code, error, capfd):
    with warnings.catch_warnings():
        warn_each_time()
        for _ in range(2):
            *found, last = call(arguments=words).rest()
            assert last == {"exit": code}
            said = "".join(frame.get("err", "") for frame in found)
            assert error in said
            assert bool(said) == bool(error)
    # Nothing of it in the process's own streams.
    assert capfd.readouterr() == ("", "")
    assert answering.status()["served"] == 2


def test_an_error_of_the_library_is_one_line(serving, call, capfd):
    """With the commands of embrief themselves, since those show such errors."""
    with serving(run_command):
        _, said, last = call(arguments=["pull", "qwen3-next"]).rest()
    assert last == {"exit": 1}
    assert said["err"].startswith("error: 'qwen3-next' is not")
    assert said["err"].count("\n") == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("words", [["--help"], ["--config", "f.yaml"], ["--config=f.yaml"], ["x", "--help"]])
def test_help_and_other_configurations_are_for_the_process_that_was_asked(answering, words):
    assert client.forward(["search", *words]) is None
    assert answering.status()["served"] == 0


def test_a_process_is_not_started_for_a_command_that_runs_without_it(folder, capsys):
    assert client.forward(["search", "--daemon", "x", "--config", "f.yaml"]) is None
    assert capsys.readouterr().err.startswith("warning: this command has --config")
    assert not folder.exists()


def test_characters_that_the_terminal_lacks_are_question_marks(answering):
    done = typed("search", "x", "--fail", "snowman", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "??\n", "")


def test_what_stands_behind_two_dashes_is_no_option(answering, capfd):
    assert client.forward(["search", "--", "--help"]) == 0
    assert json.loads(capfd.readouterr().out)[0] == "--help"
    assert client.forward(["search", "--", "--daemon"]) == 0
    assert json.loads(capfd.readouterr().out)[0] == "--daemon"


def test_the_option_that_starts_it_is_not_for_the_command(answering, capfd):
    words = ["search", "x", "--daemon"]
    assert client.forward(words) == 0
    assert words == ["search", "x"]
    assert json.loads(capfd.readouterr().out)[0] == "x"


def test_a_process_that_dies_before_it_says_anything_is_not_missed(serving, monkeypatch):
    def die(connection, reply, request):
        reply.send({"accepted": True})

    with serving(run_toy) as service:
        monkeypatch.setattr(service, "_run", die)
        assert client.forward(["search", "x"]) is None


def test_a_process_that_dies_in_the_middle_is_told(serving, monkeypatch, capfd):
    def die(connection, reply, request):
        reply.send({"accepted": True})
        reply.send({"out": "half"})

    with serving(run_toy) as service:
        monkeypatch.setattr(service, "_run", die)
        assert client.forward(["search", "x"]) == 1
    said = capfd.readouterr()
    assert (said.out, said.err) == ("half", "error: the process that ran this command has ended\n")


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "embrief", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # In the background of a shell the tests themselves may be deaf to it.
        preexec_fn=None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(service):
    with service._changed:
        return service._changed.wait_for(lambda: not service._running, WAIT)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone there")
def test_an_interrupted_command_ends_on_both_sides(answering):
    with start("search", "x", "--fail", "wait") as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
        assert process.stderr.read() == ""
    assert ended(answering)


def test_a_pipe_that_is_closed_ends_it_quietly(answering):
    with start("search", "x", "--fail", "fill") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT) == 1
        assert process.stderr.read() == ""
    assert ended(answering)


def test_terminals_of_threads_are_their_own(serving, call):
    """Two commands at once, each printing to its own client."""
    together = threading.Barrier(2)
    app = typer.Typer()

    @app.command()
    def echo(word: str) -> None:
        together.wait(WAIT)
        print(word, file=terminal().out)

    answers = {}

    def ask(word):
        answers[word] = call(arguments=[word]).rest()

    with serving(lambda request: run_command(request, app)):
        threads = [threading.Thread(target=ask, args=(word,)) for word in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    for word in ("a", "b"):
        assert "".join(frame.get("out", "") for frame in answers[word]) == f"{word}\n"


@pytest.mark.slow
def test_the_process_is_started_used_and_ended(folder):
    """The real commands, as somebody types them."""
    assert typed("daemon", "status").returncode == 1
    assert not folder.exists()
    try:
        first = typed("daemon", "start", "--idle", "5")
        assert first.stdout.startswith("started: process "), first.stderr
        number = int(first.stdout.split()[2].rstrip(","))
        again = typed("daemon", "start")
        assert again.stdout.startswith(f"runs already: process {number},")
        (found,) = json.loads(typed("daemon", "status", "--json").stdout)
        assert found["pid"] == number != os.getpid()
        assert found["this_environment"]
        assert found["ends_in"] <= 300
        elsewhere = typed("daemon", "status", env={**os.environ, "EMBRIEF_DEVICE": "cpu"})
        assert elsewhere.returncode == 1
        assert "of another environment" in elsewhere.stdout
        if sys.platform != "win32":
            os.kill(number, signal.SIGKILL)
            assert typed("daemon", "status").returncode == 1
            assert typed("daemon", "start").stdout.startswith("started: process ")
    finally:
        stopped = typed("daemon", "stop")
    assert stopped.stdout.startswith("stopped: process ")
    assert typed("daemon", "stop").stdout == "no process for this environment\n"


def test_a_process_that_does_not_start_says_why_in_its_log(folder, monkeypatch):
    # Nothing is waited for once it has ended.
    monkeypatch.setattr(background, "_PATIENCE", 3600.0)
    monkeypatch.setenv("EMBRIEF_DAEMON_IDLE", "soon")
    place = places.own_place()
    with pytest.raises(LocalProcessError, match="did not start"):
        background.start_background(place)
    assert "error: EMBRIEF_DAEMON_IDLE='soon' is no number of minutes" in place.log.read_text()


@pytest.mark.parametrize("words", [["start", "--idle", "0"], ["start", "--idle", "-1"], ["run", "--idle", "nan"]])
def test_minutes_that_are_none_are_refused(folder, words):
    from typer.testing import CliRunner

    from embrief.cli import app

    done = CliRunner().invoke(app, ["daemon", *words])
    assert done.exit_code == 1
    assert "error: --idle is" in done.output
    assert not folder.exists()


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf"])
def test_a_variable_that_is_no_number_of_minutes_is_refused(monkeypatch, text):
    monkeypatch.setenv("EMBRIEF_DAEMON_IDLE", text)
    with pytest.raises(ArgumentError, match="EMBRIEF_DAEMON_IDLE"):
        background.idle_minutes()
    monkeypatch.setenv("EMBRIEF_DAEMON_IDLE", " 2.5 ")
    assert background.idle_minutes() == 2.5


def test_a_terminal_of_any_width_is_answered(answering, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "123456789")
    assert client.forward(["search", "planets"]) == 0
    assert json.loads(capsys.readouterr().out)[2] > 1000


@pytest.mark.parametrize("command", ["search", "index", "models"])
def test_a_folder_that_is_no_longer_there_is_told(command, monkeypatch, capsys):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    monkeypatch.setattr(sys, "argv", ["embrief", command, "planets"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the folder that this runs in is no longer there; go to another one\n"


@pytest.mark.parametrize(("command", "code"), [(["search", "planets"], 0), (["embed", "--model", "embrief/hash"], 1)])
def test_closed_streams_end_nothing_in_a_traceback(command, code, answering, monkeypatch, tmp_path):
    told = tmp_path / "told"
    monkeypatch.setattr(sys, "argv", ["embrief", *command])
    with told.open("w", encoding="utf-8") as errors, monkeypatch.context() as closed:
        for name, stream in (("stdin", None), ("stdout", None), ("stderr", errors)):
            closed.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == code
    assert told.read_text("utf-8") == ("error: stdin: cannot be read (it is closed)\n" if code else "")
