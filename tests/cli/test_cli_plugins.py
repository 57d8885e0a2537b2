"""`embrief plugins`, with real distributions on the path: good, broken and hostile."""

import json
import os
import subprocess
import sys

import pytest

from embrief.system.installed import install_command

SCRIPT = "import sys; sys.argv[0] = 'embrief'\nfrom embrief.cli import main; main()"
GOOD = """
from dataclasses import replace
from embrief import hookimpl
from embrief.facts.records.hashing import MODELS
@hookimpl
def register_models(register):
    register(replace(MODELS[0], id="third/party", aliases=()))
"""
STOLEN = GOOD.replace("third/party", "embrief/hash")
BROKEN = "raise ImportError('its \\x1b[31mfriend is missing')"
# Everything that embrief itself can run without.
OPTIONAL = [
    "torch", "transformers", "sentence_transformers", "huggingface_hub", "chromadb", "llama_index", "langchain_core",
    "mistralrs", "qdrant_client",
]  # fmt: skip
BARE = f"""
import importlib.machinery as machinery, sys
find = machinery.PathFinder.find_spec
def without(name, path=None, target=None):
    return None if name.partition(".")[0] in {OPTIONAL!r} else find(name, path, target)
machinery.PathFinder.find_spec = without
"""


@pytest.fixture
def embrief(tmp_path):
    """Run a command beside the third-party distributions that `install` made."""

    def command(*arguments, bare=False, **env):
        return subprocess.run(
            [sys.executable, "-c", (BARE if bare else "") + SCRIPT, *arguments],
            capture_output=True, encoding="utf-8", timeout=600,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUTF8": "1", "COLUMNS": "100", **env},
        )  # fmt: skip

    return command


@pytest.fixture
def install(tmp_path):
    def make(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[embrief]\n{name} = {name}\n")

    return make


def test_a_good_plugin_is_listed(embrief, install):
    install("goodone", GOOD)
    result = embrief("plugins")
    assert result.returncode == 0, result.stderr
    line = next(line for line in result.stdout.splitlines() if line.startswith("goodone"))
    assert line.split() == ["goodone", "goodone", "2.5", "third/party", "ok"]
    assert "embrief_chroma" in result.stdout
    assert "third/party" in embrief("models").stdout


def test_broken_plugins_are_reported_and_the_exit_code_says_so(embrief, install):
    install("badone", BROKEN)
    install("thief", STOLEN)
    install("goodone", GOOD)
    result = embrief("plugins")
    assert result.returncode == 1
    assert "its [31mfriend is missing" in result.stdout.replace("\\x1b", "")
    assert "\x1b" not in result.stdout
    assert "thief: the model name 'embrief/hash' already belongs to 'embrief/hash'" in result.stdout
    assert "third/party" in result.stdout
    # The table says it; a warning would say it twice.
    assert "warning" not in result.stderr
    data = json.loads(embrief("plugins", "--json").stdout)
    states = {item["name"]: item["status"] for item in data["plugins"]}
    assert states["badone"] == states["thief"] == "failed"
    assert states["goodone"] == states["embrief_chroma"] == "ok"


def test_other_commands_warn_in_one_line_and_work(embrief, install):
    install("badone", BROKEN)
    result = embrief("models")
    assert result.returncode == 0
    assert result.stderr.startswith("warning: plugin 'badone' of badone 2.5: it could not be loaded")
    assert len(result.stderr.splitlines()) == 1


def test_doctor_reports_broken_plugins(embrief, install):
    install("badone", BROKEN)
    result = embrief("doctor", "--json", bare=True)
    assert result.returncode == 1
    assert [
        problem
        for problem in json.loads(result.stdout)["problems"]
        if problem.startswith("plugin badone of badone 2.5")
    ]


def test_the_variable_that_leaves_plugins_out_is_named(embrief, install):
    install("badone", BROKEN)
    result = embrief("plugins", EMBRIEF_PLUGINS="")
    assert result.returncode == 0
    assert "badone" not in result.stdout
    assert "EMBRIEF_PLUGINS='' leaves out" in result.stdout


def test_a_base_install_names_what_is_missing(embrief):
    result = embrief("plugins", bare=True)
    assert result.returncode == 0, result.stderr
    for name in ("llama-index", "langchain", "chroma", "qdrant"):
        assert f"for {name}: {install_command(name)}" in result.stdout
    assert f"for sentence-transformers: {install_command('torch')}" in result.stdout
    data = json.loads(embrief("plugins", "--json", bare=True).stdout)
    assert {item["installed"] for item in data["integrations"]} == {False}
    assert {item["name"]: item["missing"] for item in data["backends"]}["hash"] == []


def test_every_command_works_on_a_base_install(embrief):
    models, doctor, demo, pull = (
        embrief(*words, bare=True)
        for words in (["models"], ["doctor"], ["demo", "--limit", "5"], ["pull", "Qwen/Qwen3-Embedding-0.6B"])
    )
    assert models.returncode == 0
    assert "unknown" in models.stdout
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "nothing yet" in doctor.stdout
    assert (demo.returncode, pull.returncode) == (1, 1)
    assert install_command("demo") in demo.stderr
    assert install_command("torch") in pull.stderr
    assert "Traceback" not in demo.stderr + pull.stderr + models.stderr + doctor.stderr
