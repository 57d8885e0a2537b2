"""Exports of tiny models, each made once per session: exporting takes ten seconds and more."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
MODELS = {"tiny-embedding": "embrief/tiny-embedding", "tiny-reranker": "embrief/tiny-reranker"}


@pytest.fixture(scope="session")
def graphs_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write the graph of equal weights once: all formats are made of it."""
    from embrief.exporting import graphs

    kept = tmp_path_factory.mktemp("graphs")
    write = graphs.write_onnx

    def once(graph, file: Path) -> None:
        weights = float(sum(buffer.double().sum() for buffer in graph.buffers()))
        place = kept / f"{weights!r}-{graphs.INLINE}"
        if not place.is_dir():
            place.mkdir()
            write(graph, place / file.name)
        for found in place.iterdir():
            shutil.copyfile(found, file.with_name(found.name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "write_onnx", once)
        yield


@pytest.fixture(scope="session")
def original(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return what is exported: a recorded model, or a folder."""
    return lambda name: MODELS.get(name) or str(request.getfixturevalue(f"{name}_folder"))


@pytest.fixture(scope="session")
def exported(
    graphs_once: None, original: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Export a model, once for each format and number format; nobody may change the folder."""
    root = tmp_path_factory.mktemp("exports")

    def export(name: str, format: str = "onnx", dtype: str = "float32") -> Path:
        from embrief import export_model

        for package in (*NEEDED[format], *["nncf"] * (format == "openvino" and dtype == "int8")):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        folder = root / f"{name}-{format}-{dtype}"
        if not folder.is_dir():
            export_model(original(name), folder, format=format, dtype=dtype)
        return folder

    return export


@pytest.fixture
def copied(exported: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of an export, which may be changed."""

    def copy(name: str, format: str = "onnx", dtype: str = "float32") -> Path:
        return Path(shutil.copytree(exported(name, format, dtype), tmp_path / "copy"))

    return copy
