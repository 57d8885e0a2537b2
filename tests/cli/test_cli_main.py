"""What all commands share: start-up cost, version, help, errors."""

import importlib
import inspect
import json
import os
import subprocess
import sys
import warnings

import pytest
import typer
from typer.testing import CliRunner

import embrief
from embrief import cli
from embrief.cli import COMMANDS, app
from embrief.cli.output import plain, size

HEAVY = (
    "torch", "transformers", "sentence_transformers", "tokenizers", "huggingface_hub", "chromadb", "llama_index.core",
    "langchain_core", "qdrant_client", "pydantic",
)  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100"})


def python(script, *arguments, **options):
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, **options)


def test_the_version_is_shown():
    result = run("--version")
    assert result.exit_code == 0
    assert result.output == f"embrief {embrief.__version__}\n"


def test_help_lists_every_command():
    text = run("--help").output
    assert all(f"  {name} " in text for name in ("demo", "models", "plugins", "pull", "export", "doctor"))
    # Cut off by a narrow terminal, a summary says little.
    assert "..." not in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output.partition("Commands:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_each_command_what_it_says_of_itself(name):
    later = COMMANDS[name]
    found = getattr(importlib.import_module(later.module), later.attribute)
    own = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert own.splitlines()[0] == later.help
    assert later.help in run(name, "--help").output


def commands_in_memory(*arguments):
    script = (
        "import sys; sys.argv[0] = 'embrief'\nfrom embrief.cli import COMMANDS, main\ntry: main()\nfinally:\n"
        "    import json; modules = {later.module for later in COMMANDS.values()} & set(sys.modules)\n"
        "    print(json.dumps(sorted(modules)), file=sys.stderr)"
    )
    return json.loads(python(script, *arguments).stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        ([], []),
        (["--help"], []),
        (["--version"], []),
        (["nonsense"], []),
        (["cache", "--help"], ["embrief.cli.cache"]),
        (["cache", "stats", "--help"], ["embrief.cli.cache"]),
        (["pull", "--help"], ["embrief.cli.pull"]),
        (["plugins"], ["embrief.cli.plugins"]),
    ],
)
def test_a_command_is_imported_when_it_is_wanted(arguments, modules):
    assert commands_in_memory(*arguments) == modules


def test_a_typing_error_gets_a_suggestion():
    assert "Did you mean 'doctor'?" in run("doctr").output


def test_starting_imports_nothing_heavy():
    script = f"import sys, embrief.cli; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = python(script, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize("command", [["plugins"], ["pull", "embrief/hash"], ["--help"]])
def test_light_commands_import_no_framework_and_no_torch(command):
    names = tuple(name for name in HEAVY if name != "pydantic")
    script = (
        "import sys; sys.argv[0] = 'embrief'\nfrom embrief.cli import main\n"
        f"try: main()\nfinally: print([name for name in {names!r} if name in sys.modules], file=sys.stderr)"
    )
    result = python(script, *command)
    assert result.stderr.splitlines()[-1] == "[]", result.stderr


def test_an_error_of_the_library_is_one_line_on_stderr():
    script = "import sys; sys.argv[0] = 'embrief'\nfrom embrief.cli import main; main()"
    result = python(script, "pull", "qwen3-next")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: 'qwen3-next' is not an embedding or reranking model")
    assert result.stderr.count("\n") == 1


def test_a_defect_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("embrief.cli.pull.find_cached", lambda *_: 1 / 0)
    assert isinstance(run("pull", "x/y").exception, ZeroDivisionError)


def test_wrong_usage_is_explained():
    result = run("demo", "--limit", "none")
    assert result.exit_code == 2
    assert "--limit" in result.output
    assert run("nonsense").exit_code == 2


def test_warnings_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cli, "app", lambda: warnings.warn("careful", embrief.PluginWarning, stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.main()
    assert capsys.readouterr().err == "warning: careful\n"


def test_texts_of_others_cannot_steer_the_terminal():
    assert plain("a\x1b[31mb\tc\rd\u202ee\x9b") == "a [31mb c d e "


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (2048, "2 KiB"), (3 << 19, "1.5 MiB"), (600 << 20, "600 MiB"),
        (5 << 40, "5120 GiB"),
    ],
)  # fmt: skip
def test_sizes_are_readable(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("embrief do", ["doctor"]),
        ("embrief ", list(COMMANDS)),
        ("embrief pull Qwen/Qwen3-Rer", [f"Qwen/Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B")]),
        ("embrief eval comp", ["compare"]),
        ("embrief eval data --instr", ["--instruction"]),
    ],
)
def test_a_shell_can_complete_what_is_typed(words, offered):
    environment = {"_EMBRIEF_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    script = "import sys; sys.argv[0] = 'embrief'\nfrom embrief.cli import main; main()"
    result = python(script, env={**os.environ, **environment})
    assert result.stdout.split() == offered, result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(shell):
    environment = {"_EMBRIEF_COMPLETE": f"source_{shell}"}
    script = "import sys; sys.argv[0] = 'embrief'\nfrom embrief.cli import main; main()"
    result = python(script, env={**os.environ, **environment})
    assert "_EMBRIEF_COMPLETE" in result.stdout
    assert "--install-completion" in run("--help").output
