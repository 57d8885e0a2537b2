"""Exports in ONNX Runtime: weights beside the graph, and where a file may say that they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import BackendError, Embedder, ModelMismatchError, export_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

MARK = "embrief-export.json"


def mend(folder: Path) -> None:
    """Give the mark of a changed export the right digests: what somebody does who means harm."""
    values = json.loads((folder / MARK).read_text("utf-8"))
    values.pop("digest")
    for name in values["files"]:
        data = (folder / name).read_bytes()
        values["files"][name] = {"bytes": len(data), "digest": "sha256:" + hashlib.sha256(data).hexdigest()}
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    values["digest"] = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    (folder / MARK).write_text(json.dumps(values), "utf-8")


@pytest.fixture
def beside(graphs_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Export with the weights beside the graph, as those of large models are."""
    from embrief.exporting import graphs

    monkeypatch.setattr(graphs, "INLINE", 0)

    def export(dtype: str) -> Path:
        export_model("embrief/tiny-embedding", tmp_path / dtype, dtype=dtype)
        return tmp_path / dtype

    return export


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999999), ("int8", 0.998)])
def test_weights_beside_the_graph(dtype: str, least: float, beside: Callable[[str], Path]) -> None:
    folder = beside(dtype)
    assert (folder / "model.onnx").stat().st_size < 2**20 < (folder / "model.onnx.data").stat().st_size
    with Embedder(folder) as export, Embedder("embrief/tiny-embedding", dtype="float32") as source:
        assert export.space == source.space
        texts = ["Mars is the Red Planet.", "b"]
        assert (export.embed_documents(texts) * source.embed_documents(texts)).sum(1).min() > least
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx.data").write_bytes(bytes(data))
    with Embedder(folder) as export, pytest.raises(ModelMismatchError, match=r"model\.onnx\.data was changed"):
        export.embed_documents(["a"])


def test_weights_elsewhere_are_refused_before_the_library_opens_the_file(
    beside: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = beside("float32")
    graph = (folder / "model.onnx").read_bytes()
    assert graph.count(b"model.onnx.data") > 3
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    for elsewhere in (b"../odel.nx.data", b"/tmp/nnx.data.x"):
        (folder / "model.onnx").write_bytes(graph.replace(b"model.onnx.data", elsewhere, 1))
        mend(folder)
        with Embedder(folder) as export, pytest.raises(ModelMismatchError, match="keeps weights in"):
            export.embed_documents(["a"])


def test_all_places_of_weights_are_seen() -> None:
    """In a subgraph, an attribute, a function, and a sparse tensor."""
    from embrief.files.onnx_file import external_files

    def outside(name: str) -> object:
        tensor = onnx.TensorProto(name=name, data_type=1, data_location=1)
        tensor.external_data.add(key="location", value=name)
        return tensor

    model = onnx.ModelProto()
    model.graph.initializer.append(outside("initializer"))
    node = model.graph.node.add(op_type="If")
    node.attribute.add(name="value").t.CopyFrom(outside("attribute"))
    node.attribute.add(name="values").tensors.append(outside("attributes"))
    branch = node.attribute.add(name="then_branch").g
    branch.initializer.append(outside("subgraph"))
    node.attribute.add(name="branches").graphs.add().initializer.append(outside("subgraphs"))
    model.graph.sparse_initializer.add().values.CopyFrom(outside("sparse"))
    node.attribute.add(name="sparse").sparse_tensor.indices.CopyFrom(outside("indices"))
    function = model.functions.add()
    function.node.add().attribute.add(name="value").t.CopyFrom(outside("function"))
    function.attribute_proto.add(name="default").t.CopyFrom(outside("default"))
    model.training_info.add().initialization.initializer.append(outside("training"))
    assert external_files(model.SerializeToString(), Path("model.onnx")) == {
        "initializer", "attribute", "attributes", "subgraph", "subgraphs", "sparse", "indices", "function", "default",
        "training",
    }  # fmt: skip


@pytest.mark.parametrize(
    "data", [b"\x3a\xff", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b", b"\xff" * 20]
)
def test_what_is_no_onnx_file(data: bytes) -> None:
    from embrief.files.onnx_file import external_files

    with pytest.raises(ModelMismatchError, match="not an ONNX file"):
        external_files(data, Path("model.onnx"))


def test_a_graph_of_another_kind_is_refused(beside: Callable[[str], Path]) -> None:
    folder = beside("float32")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["input_ids"], ["last_hidden_state"])
    graph = onnx.helper.make_graph(
        [node], "other", [value("input_ids", 1, ["n", 256])], [value("last_hidden_state", 1, ["n", 256])]
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        folder / "model.onnx",
    )
    mend(folder)
    with Embedder(folder) as export, pytest.raises(ModelMismatchError, match="as no export does"):
        export.embed_documents(["a"])


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_gpu_that_cannot_be_used_is_not_the_cpu(
    device: str, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build for CUDA says that it has it wherever it is installed, and computes on the CPU where it has not."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with (
        Embedder(exported("tiny-embedding"), device=device) as export,
        pytest.raises(BackendError, match=r"cannot use 'cuda.* pass device='cpu'"),
    ):
        export.load()


def test_a_file_cut_short_in_use_ends_no_process(beside: Callable[[str], Path]) -> None:
    folder = beside("float32")
    with Embedder(folder) as export:
        due = export.embed_documents(["a"])
        (folder / "model.onnx.data").write_bytes(b"")
        np.testing.assert_array_equal(export.embed_documents(["a"]), due)
