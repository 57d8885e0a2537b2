"""A model whose files come with the package that registers it."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embrief import ArgumentError, Embedder, plugins
from embrief.cli import app
from embrief.facts.specs import EmbeddingSpec

NAME = "acme/bundled"


@pytest.fixture
def bundled(qwen3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Register a record with a folder of its own; the hub cannot be reached and holds nothing."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "bundled"
    shutil.copytree(qwen3_folder, folder)
    catalog = plugins().catalog
    like = catalog.models["Qwen/Qwen3-Embedding-0.6B"]
    assert isinstance(like, EmbeddingSpec)
    catalog.add_model(
        replace(
            like, id=NAME, aliases=(), revision="v1", folder=folder, dim=48, hidden_size=48, mrl=range(8, 49),
            context=1024, max_tokens=256, parameters=100_000, defines_family=False,
        )
    )  # fmt: skip
    yield folder
    catalog.remove("", [NAME])


def test_it_gives_the_vectors_of_its_folder(bundled: Path, texts: list[str]) -> None:
    with Embedder(NAME, dtype="float32") as named, Embedder(str(bundled), dtype="float32", max_tokens=256) as folder:
        assert named.info()["folder"] == str(bundled)
        assert named.info()["recorded"]
        np.testing.assert_array_equal(named.embed_documents(texts), folder.embed_documents(texts))
        np.testing.assert_array_equal(named.embed_query("which?"), folder.embed_query("which?"))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(named)).embed_query("a"), named.embed_query("a"))


def test_the_content_of_its_files_names_its_space(bundled: Path) -> None:
    named = Embedder(NAME).space
    assert named.weights == Embedder(str(bundled)).space.weights
    weights = bundled / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = Embedder(NAME, max_tokens=128).space  # nothing is shared with what was read before
    assert changed.weights != named.weights


def test_there_is_no_revision_to_choose(bundled: Path) -> None:
    with pytest.raises(ArgumentError, match="'acme/bundled' comes with its package"):
        Embedder(NAME, revision="0" * 40)
    assert Embedder(NAME, revision="v1").space == Embedder(NAME).space


def test_commands_say_that_nothing_is_downloaded(bundled: Path) -> None:
    pulled = CliRunner().invoke(app, ["pull", NAME])
    assert pulled.exit_code == 0
    assert pulled.output == f"{NAME} is built in; there is nothing to download\n"
    listed = CliRunner().invoke(app, ["models"], env={"COLUMNS": "140"})
    (row,) = (line for line in listed.output.splitlines() if line.startswith(NAME))
    assert row.split()[-2:] == ["built", "in"]
