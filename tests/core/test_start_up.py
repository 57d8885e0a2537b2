"""What a start imports: no more than it needs. By what is in memory, since seconds depend on the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import embrief

HEAVY = {
    "numpy",
    "pluggy",
    "importlib.metadata",
    "email",
    "asyncio",
    "typer",
    "rich",
    "huggingface_hub",
    "json",
    "torch",
}


def in_memory(code: str) -> set[str]:
    code += "\nimport sys; print('', *sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.splitlines())


def command(*arguments: str) -> str:
    return (
        f"import sys; sys.argv = {['embrief', *arguments]!r}\nfrom embrief.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
    )


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import embrief", set()),
        ("from embrief import ArgumentError, EmbriefError, plugins", set()),
        ("from embrief import hookimpl, EmbeddingSpec, Runtime", {"pluggy", "importlib.metadata", "email", "json"}),
        ("from embrief import Embedder, Reranker", {"numpy", "json"}),
        (command("--help"), {"typer", "json"}),
        (command("--version"), {"typer", "json"}),
        # typer's types may bring pydantic where that is installed, and pydantic these.
        (command("demo", "--help"), {"typer", "json", "importlib.metadata", "email"}),
        (command("embed", "--help"), {"typer", "json", "importlib.metadata", "email"}),
        (command("rerank", "--help"), {"typer", "json", "importlib.metadata", "email"}),
        ("from embrief import plugins; plugins()", {"pluggy", "importlib.metadata", "email", "json"}),
        (command("models"), HEAVY - {"asyncio", "torch", "numpy"}),
        (command("models", "--json"), HEAVY - {"asyncio", "torch", "numpy", "rich"}),
        (command("plugins"), HEAVY - {"asyncio", "torch", "numpy", "huggingface_hub"}),
    ],
)
def test_a_start_imports_what_it_needs(code: str, allowed: set[str]) -> None:
    if "sys.argv" in code and "EMBRIEF_LOWEST" in os.environ:
        pytest.skip("the lowest typer imports rich and more by itself")
    found = in_memory(code)
    assert not found & (HEAVY - allowed)
    assert not found & {"httpx", "requests", "transformers", "tokenizers", "safetensors"}


def test_every_public_name_is_there_and_no_other() -> None:
    for name in embrief.__all__:
        assert getattr(embrief, name) is not None
    assert set(embrief.__all__) <= set(dir(embrief))
    everything: dict[str, object] = {}
    exec("from embrief import *", everything)
    assert set(embrief.__all__) <= set(everything)
    with pytest.raises(AttributeError, match="'embrief' has no attribute 'Embeder'"):
        _ = embrief.Embeder  # type: ignore[attr-defined]


def test_plugins_is_the_function_whatever_is_imported() -> None:
    import embrief.discovery.plugins

    assert embrief.plugins() is embrief.plugins()  # type: ignore[operator]
