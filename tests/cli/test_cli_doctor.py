"""`embrief doctor`."""

import json
import re
import sys
import types
from importlib.metadata import requires

import pytest
from typer.testing import CliRunner

from embrief.cli import app, diagnosis


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "120"})


def data(*arguments):
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_it_shows_what_is_installed():
    import numpy

    found = data()
    assert found["packages"]["numpy"] == numpy.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["problems"] == []
    assert found["model"] is None
    text = run().output
    assert numpy.__version__ in text
    assert "no problems found" in text


def test_every_runtime_requirement_is_among_the_packages():
    needed = set()
    for line in requires("embrief") or ():
        extra = re.search(r"extra == ['\"]([\w-]+)", line)
        if extra is None or extra[1] in ("torch", "llama-index", "langchain", "chroma", "qdrant"):
            needed.add(re.match(r"[\w.-]+", line)[0])
    assert "numpy" in needed
    assert needed <= set(diagnosis.PACKAGES)


def fake_torch(monkeypatch, *, gpus=0, mps=False, native=True, cpu=()):
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(
        current_device=lambda: 0,
        is_available=lambda: gpus > 0,
        device_count=lambda: gpus,
        is_bf16_supported=lambda including_emulation=True: native or including_emulation,
        get_device_properties=lambda number: types.SimpleNamespace(name=f"GPU {number}", total_memory=80 << 30),
    )
    torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: mps))
    torch.cpu = types.SimpleNamespace(get_capabilities=lambda: dict.fromkeys(cpu, True))
    torch.__spec__ = types.SimpleNamespace(name="torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr("embrief.backends.base.Backend.missing", lambda self: ())


@pytest.mark.parametrize(
    ("machine", "device", "dtype", "why"),
    [
        ({"gpus": 2}, "cuda:0", "bfloat16", "torch sees CUDA; bfloat16 is computed natively there"),
        ({"gpus": 1, "native": False}, "cuda:0", "float32", "torch sees CUDA; bfloat16 is not known to be fast there"),
        ({"mps": True}, "mps", "float32", "torch sees MPS and no CUDA; bfloat16 is not known to be fast there"),
        ({"cpu": ["amx_bf16"]}, "cpu", "bfloat16", "neither CUDA nor MPS; bfloat16 is computed natively there"),
        ({}, "cpu", "float32", "neither CUDA nor MPS; bfloat16 is not known to be fast there"),
    ],
)
def test_it_says_what_auto_chooses_and_why(monkeypatch, machine, device, dtype, why):
    fake_torch(monkeypatch, **machine)
    found = data()
    assert (found["auto"]["device"], found["auto"]["dtype"]) == (device, dtype)
    assert why in found["auto"]["why"]
    assert f"{device}, {dtype}: " in run().output


def test_devices_are_listed_with_their_memory(monkeypatch):
    fake_torch(monkeypatch, gpus=2)
    assert [(item["device"], item["memory_bytes"]) for item in data()["devices"]][1:] == [
        ("cuda:0", 80 << 30),
        ("cuda:1", 80 << 30),
    ]
    assert "cuda:1: GPU 1, 80.0 GiB" in run().output


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch):
    fake_torch(monkeypatch)
    sys.modules["torch"].cuda.is_available = lambda: 1 / 0
    result = run()
    assert result.exit_code == 1
    assert "problem: torch is installed but does not work: ZeroDivisionError" in result.output


def test_weights_are_estimated_from_the_record():
    found = data("qwen/qwen3-embedding-0.6b")["model"]
    assert found["id"] == "Qwen/Qwen3-Embedding-0.6B"
    assert found["weights_bytes"] == {
        "float32": 595_776_512 * 4, "bfloat16": 595_776_512 * 2, "float16": 595_776_512 * 2,
    }  # fmt: skip
    assert "2.2 GiB of weights" in run("Qwen/Qwen3-Embedding-0.6B").output


def test_banned_formats_are_not_offered():
    found = data("google/embeddinggemma-300m")["model"]
    assert "float16" not in found["weights_bytes"]
    assert found["banned_dtypes"] == ["float16"]
    assert "gives wrong results in it" in run("google/embeddinggemma-300m").output


def test_working_memory_is_named_and_not_invented():
    assert "not estimated" in " ".join(run("BAAI/bge-m3").output.split())


def test_the_built_in_model_has_no_weights():
    assert data("embrief/hash")["model"]["weights_bytes"] == {}
    assert "none: it is built in" in run("embrief/hash").output


def test_a_folder_is_counted_by_its_headers(tmp_path):
    def save(name, **shapes):
        header = {key: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for key, shape in shapes.items()}
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        (tmp_path / name).write_bytes(len(text).to_bytes(8, "little") + text)

    save("model-00001.safetensors", a=[1000, 30], b=[7])
    save("model-00002.safetensors", c=[])
    assert data(str(tmp_path))["model"]["parameters"] == 30_008


def test_a_model_of_unknown_size_is_an_error_with_a_remedy(tmp_path):
    for name in ("someone/else", str(tmp_path)):
        result = run(name)
        assert result.exit_code == 1
        assert "the size of" in result.stderr
    assert run("Qwen/Qwen3-Embedding").exit_code == 1


def test_variables_are_shown_but_never_a_secret(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:password@mirror.example/hub")
    found = data()
    assert found["environment"]["HF_HUB_OFFLINE"] == "1"
    assert found["environment"]["HF_TOKEN"] == "(set)"
    assert found["environment"]["HF_ENDPOINT"] == "https://(hidden)@mirror.example/hub"
    everything = run().output + json.dumps(found)
    assert "secret" not in everything
    assert "password" not in everything


def test_the_cache_and_its_disk_are_shown(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    found = data()["cache"]
    assert found["folder"] == str(tmp_path / "not" / "yet")
    assert found["free_bytes"] > 0


def test_without_huggingface_hub_the_cache_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert data()["cache"] == {"folder": None, "free_bytes": None}
