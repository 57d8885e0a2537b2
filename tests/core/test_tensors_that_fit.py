"""Tensors that are damaged, quantised, surplus or missing: refused by every runtime, before a vector is computed."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embrief import Embedder, ModelMismatchError, Reranker, WeightsUnavailableError

pytest.importorskip("sentence_transformers")
BACKENDS = ("engine", "sentence-transformers")
TEXT = ["a text about copying directory trees"]


def load(folder: Path, backend: str) -> None:
    Embedder(folder, backend=backend, dtype="float32", device="cpu").load()


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**data, **changes}), "utf-8")


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})


@pytest.fixture
def copy(qwen3_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen3_folder, tmp_path / "model"))


# Damage


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def changed(**changes: object) -> Callable[[bytes], bytes]:
    """Change what the header says of one tensor."""

    def damage(data: bytes) -> bytes:
        header, body = split(data)
        header["norm.weight"] |= changes
        return join(header, body)

    return damage


def without_offsets(data: bytes) -> bytes:
    header, body = split(data)
    del header["norm.weight"]["data_offsets"]
    return join(header, body)


def twice(data: bytes) -> bytes:
    header, body = split(data)
    text = json.dumps(header)
    return join(f'{{"norm.weight": {json.dumps(header["norm.weight"])}, {text[1:]}'.encode(), body)


def overlapping(data: bytes) -> bytes:
    header, body = split(data)
    header["norm.weight"]["data_offsets"] = header["layers.0.input_layernorm.weight"]["data_offsets"]
    return join(header, body)


def with_hole(data: bytes) -> bytes:
    header, body = split(data)
    del header["norm.weight"]
    return join(header, body)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "seven bytes": lambda data: data[:7],
    "cut in the header": lambda data: data[:200],
    "cut in the tensors": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "a pickle": lambda data: b"\x80\x02}q\x00(X\x0c\x00\x00\x00" + data,
    "a zip archive": lambda data: b"PK\x03\x04" + data,
    "an error page": lambda data: b"<!DOCTYPE html><html></html>" * 9,
    "a Git LFS pointer": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 100\n",
    "a header of all memory": lambda data: struct.pack("<Q", 2**63) + data[8:],
    "a header of 4 GB": lambda data: struct.pack("<Q", 2**32) + data[8:],
    "no header": lambda data: struct.pack("<Q", 0) + data[8:],
    "nesting": lambda data: join(b'{"a":' * 200_000, b""),
    "a list": lambda data: join([1, 2], b""),
    "a number with many digits": lambda data: join(b'{"a": ' + b"9" * 10_000 + b"}", b""),
    "not UTF-8": lambda data: join(b'{"\xff": 1}', b""),
    "not a mapping": lambda data: join({"norm.weight": [1]}, b""),
    "metadata of another type": lambda data: join({**split(data)[0], "__metadata__": {"format": 1}}, split(data)[1]),
    "a name twice": twice,
    "overlapping tensors": overlapping,
    "a hole": with_hole,
    "no offsets": without_offsets,
    "an unknown type": changed(dtype="F31"),
    "a type that is a list": changed(dtype=["F32"]),
    "a type of another size": changed(dtype="F16"),
    "a shape of another size": changed(shape=[49]),
    "a negative shape": changed(shape=[-48]),
    "a shape of fractions": changed(shape=[48.0]),
    "a shape of truth": changed(shape=[True, 48]),
    "a shape beyond numbers": changed(shape=[2**62] * 64),
    "a shape of a million": changed(shape=[1] * 1_000_000),
    "a shape that is text": changed(shape="48"),
    "offsets beyond the file": changed(data_offsets=[10**12, 10**12 + 192]),
    "offsets backwards": changed(data_offsets=[192, 0]),
    "three offsets": changed(data_offsets=[0, 192, 192]),
    "one entry more": changed(strides=[1]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_a_remedy(copy: Path, damage: str) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for attempt in (
        lambda: Embedder(copy).space,
        lambda: load(copy, "engine"),
        lambda: load(copy, "sentence-transformers"),
    ):
        with pytest.raises(
            ModelMismatchError, match=r"model\.safetensors is no complete .* fetch or save the file"
        ) as info:
            attempt()
        assert len(str(info.value)) < 600


@pytest.mark.parametrize("damage", ["cut in the tensors", "a shape of another size", "empty"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_damage_in_shards_modules_and_rerankers(
    gemma_folder: Path, reranker_folder: Path, tmp_path: Path, damage: str, backend: str
) -> None:
    gemma = Path(shutil.copytree(gemma_folder, tmp_path / "gemma"))
    file = gemma / "3_Dense" / "model.safetensors"
    name = "norm.weight" if damage == "a shape of another size" else "linear.weight"
    header, body = split(file.read_bytes())
    file.write_bytes(DAMAGES[damage](join({name: header["linear.weight"]}, body)))
    with pytest.raises(ModelMismatchError, match=r"3_Dense.model\.safetensors"):
        load(gemma, backend)
    reranker = Path(shutil.copytree(reranker_folder, tmp_path / "reranker"))
    whole = reranker / "model.safetensors"
    whole.rename(reranker / "part.safetensors")
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(split((reranker / "part.safetensors").read_bytes())[0], "part.safetensors"),
    }
    index["weight_map"].pop("__metadata__")
    (reranker / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    Reranker(reranker, backend=backend, device="cpu").load()
    (reranker / "part.safetensors").write_bytes((reranker / "part.safetensors").read_bytes()[:-5])
    with pytest.raises(ModelMismatchError, match=r"part\.safetensors"):
        Reranker(reranker, backend=backend, device="cpu").load()


def test_a_header_may_have_what_writers_put_there(copy: Path, qwen3_folder: Path) -> None:
    """Spaces, other metadata, another order, tensors without values: none of it is damage."""
    file = copy / "model.safetensors"
    header, body = split(file.read_bytes())
    header.pop("__metadata__")
    text = json.dumps(dict(reversed(header.items()))).encode()
    file.write_bytes(join(text + b" " * 13, body))
    found, original = (Embedder(folder, dtype="float32", device="cpu") for folder in (copy, qwen3_folder))
    assert found.space == original.space
    np.testing.assert_array_equal(found.embed_documents(TEXT), original.embed_documents(TEXT))


def test_weights_that_are_a_folder_are_not_there(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").mkdir()
    with pytest.raises(WeightsUnavailableError, match=r"lacks model\.safetensors"):
        load(copy, "engine")


# Tensors that nobody asked for, or that are not there


@pytest.mark.parametrize(
    "name", ["layers.1.self_attn.q_proj.bias", "layers.3.mlp.up_proj.weight", "extra", "visual.embed_tokens.weight"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_surplus_tensors_are_refused_and_no_other_runtime_is_named(copy: Path, name: str, backend: str) -> None:
    import torch

    rewrite(copy / "model.safetensors", lambda tensors: tensors.update({name: torch.ones(64)}))
    with pytest.raises(ModelMismatchError, match=name.replace(".", r"\.")) as info:
        load(copy, backend)
    assert "backend" not in str(info.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_without_which_a_model_is_the_same_are_accepted(copy: Path, qwen3_folder: Path, backend: str) -> None:
    import torch

    def add(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors["embed_tokens.weight"] * 2
        tensors["rotary_emb.inv_freq"] = torch.ones(8)
        tensors["position_ids"] = torch.arange(8)
        tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    rewrite(copy / "model.safetensors", add)
    found, original = (
        Embedder(folder, backend=backend, dtype="float32", device="cpu") for folder in (copy, qwen3_folder)
    )
    np.testing.assert_allclose(found.embed_documents(TEXT), original.embed_documents(TEXT), atol=1e-6)


def test_leftovers_of_pretraining_in_other_architectures(classifier_folder: Path, tmp_path: Path) -> None:
    import torch

    folder = Path(shutil.copytree(classifier_folder, tmp_path / "model"))
    leftovers = {
        "roberta.embeddings.position_ids": torch.arange(260)[None],
        "roberta.pooler.dense.weight": torch.ones(48, 48),
        "lm_head.bias": torch.ones(9),
    }
    rewrite(folder / "model.safetensors", lambda tensors: tensors.update(leftovers))
    Reranker(folder, device="cpu").load()
    rewrite(folder / "model.safetensors", lambda tensors: tensors.update({"roberta.adapter.weight": torch.ones(3)}))
    with pytest.raises(ModelMismatchError, match=r"roberta\.adapter\.weight"):
        Reranker(folder, device="cpu").load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_rerankers_refuse_surplus_and_missing_tensors_and_other_shapes(
    reranker_folder: Path, tmp_path: Path, backend: str
) -> None:
    import torch

    name = "model.layers.1.mlp.up_proj.weight"
    cases: dict[str, Callable[[dict[str, Any]], None]] = {
        "extra": lambda tensors: tensors.update({"model.layers.0.extra.weight": torch.ones(3)}),
        "a part of the answer": lambda tensors: tensors.update({"lm_head.bias": torch.ones(3)}),
        "missing": lambda tensors: tensors.pop(name),
        "shape": lambda tensors: tensors.update({name: tensors[name][:-1]}),
    }
    for case, change in cases.items():
        folder = Path(shutil.copytree(reranker_folder, tmp_path / case))
        rewrite(folder / "model.safetensors", change)
        with pytest.raises(ModelMismatchError, match="weights of"):
            Reranker(folder, backend=backend, device="cpu").load()


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_of_other_shapes_and_missing_ones_are_refused(copy: Path, backend: str) -> None:
    name = "layers.1.mlp.up_proj.weight"
    rewrite(copy / "model.safetensors", lambda tensors: tensors.update({name: tensors[name][:-1]}))
    with pytest.raises(ModelMismatchError, match="shape"):
        load(copy, backend)
    rewrite(copy / "model.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(ModelMismatchError, match="up_proj"):
        load(copy, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_in_front_that_transformers_does_not_know_hides_no_random_weights(copy: Path, backend: str) -> None:
    """Either the tensors are used, or they are refused as not being there."""

    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[f"encoder.{name}"] = tensors.pop(name)

    rewrite(copy / "model.safetensors", rename)
    with pytest.raises(ModelMismatchError, match="weights of"):
        load(copy, backend)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update({"linear.bias": tensors["linear.weight"][:, 0]}),
        lambda tensors: tensors.update({"linear.weight": tensors["linear.weight"][:, :-1]}),
        lambda tensors: tensors.update({"weight": tensors.pop("linear.weight")}),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dense_layer_has_the_tensors_of_its_configuration(
    gemma_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], backend: str
) -> None:
    folder = Path(shutil.copytree(gemma_folder, tmp_path / "model"))
    rewrite(folder / "2_Dense" / "model.safetensors", change)
    with pytest.raises(ModelMismatchError, match=r"2_Dense.model\.safetensors"):
        load(folder, backend)


def test_a_layer_norm_too(copy: Path) -> None:
    import torch
    from safetensors.torch import save_file

    modules = json.loads((copy / "modules.json").read_text("utf-8"))
    kind = "sentence_transformers.sentence_transformer.modules.LayerNorm"
    modules.insert(2, {"idx": 9, "name": "9", "path": "9_LayerNorm", "type": kind})
    (copy / "modules.json").write_text(json.dumps(modules), "utf-8")
    (copy / "9_LayerNorm").mkdir()
    (copy / "9_LayerNorm" / "config.json").write_text('{"dimension": 48}', "utf-8")
    file = copy / "9_LayerNorm" / "model.safetensors"
    tensors = {"norm.weight": torch.ones(48), "norm.bias": torch.ones(48)}
    save_file(tensors, file)
    Embedder(copy, device="cpu").load()
    save_file({**tensors, "norm.bias": torch.ones(47)}, file)
    with pytest.raises(ModelMismatchError, match=r"9_LayerNorm.model\.safetensors"):
        Embedder(copy, device="cpu").load()


@pytest.mark.parametrize("reranker_folder", ["tied"], indirect=True)
def test_an_output_layer_that_is_stored_counts_as_in_transformers(reranker_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reranker_folder, tmp_path / "model"))

    def untie(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0)

    rewrite(folder / "model.safetensors", untie)
    one, other = (
        Reranker(folder, backend=backend, dtype="float32", device="cpu").score("a query", TEXT) for backend in BACKENDS
    )
    np.testing.assert_allclose(one, other, atol=1e-5)
    before = Reranker(reranker_folder, dtype="float32", device="cpu").score("a query", TEXT)
    assert np.abs(one - before).max() > 1e-3


# Quantised checkpoints

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4, "version": "gemm"}},
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "bitsandbytes of old": {"quantization_config": {"load_in_8bit": True}},
    "fp8": {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}},
    "compressed-tensors": {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
    "compression_config": {"compression_config": {"format": "pack-quantized"}},
    "mlx": {"quantization": {"group_size": 64, "bits": 4}},
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_quantised_configuration_is_refused_with_what_runs_it(
    copy: Path, reranker_folder: Path, tmp_path: Path, case: str
) -> None:
    reranker = Path(shutil.copytree(reranker_folder, tmp_path / "reranker"))
    for folder in (copy, reranker):
        edit(folder / "config.json", **CONFIGURATIONS[case])
    for facade in (
        Embedder(copy),
        Embedder(copy, backend="sentence-transformers"),
        Reranker(reranker, backend="sentence-transformers"),
    ):
        with pytest.raises(ModelMismatchError, match=r"is quantised .*vLLM"):
            facade.load()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("layers.0.mlp.up_proj.weight_scale", "float32"),
        ("layers.0.mlp.up_proj.weight_scale_inv", "float32"),
        ("layers.0.mlp.up_proj.input_scale", "bfloat16"),
        ("layers.0.mlp.up_proj.weight_packed", "int32"),
        ("layers.0.mlp.up_proj.qweight", "int32"),
        ("layers.0.mlp.up_proj.qzeros", "int32"),
        ("layers.0.mlp.up_proj.scales", "float16"),
        ("layers.0.mlp.up_proj.g_idx", "int32"),
        ("layers.0.mlp.up_proj.SCB", "float32"),
        ("layers.0.mlp.up_proj.weight.absmax", "uint8"),
        ("layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "uint8"),
        ("lm_head.weight_scale", "float32"),
        ("layers.0.mlp.up_proj.weight", "int8"),
        ("layers.0.mlp.up_proj.weight", "float8_e4m3fn"),
        ("layers.0.mlp.up_proj.weight", "int32"),
        ("anything", "uint8"),
    ],
)
def test_quantised_tensors_are_known_without_a_configuration(copy: Path, name: str, dtype: str) -> None:
    import torch

    def quantise(tensors: dict[str, Any]) -> None:
        tensors[name] = tensors.get(name, torch.ones(4)).to(getattr(torch, dtype))

    rewrite(copy / "model.safetensors", quantise)
    for backend in BACKENDS:
        with pytest.raises(ModelMismatchError, match=r"is quantised .*vLLM"):
            load(copy, backend)
