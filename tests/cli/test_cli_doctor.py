"""`embrief doctor`."""

import json
import re
import shutil
import sys
import types
from importlib.metadata import requires

import pytest
from typer.testing import CliRunner

from embrief.cli import app, diagnosis
from embrief.system.installed import install_command, is_installed

from ..gguf_writer import write_embedder


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
        _is_in_bad_fork=lambda: False,
        is_available=lambda: gpus > 0,
        device_count=lambda: gpus,
        is_bf16_supported=lambda including_emulation=True: native or including_emulation,
        get_device_properties=lambda number: types.SimpleNamespace(name=f"GPU {number}", total_memory=80 << 30),
    )
    torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: mps))
    torch.cpu = types.SimpleNamespace(get_capabilities=lambda: dict.fromkeys(cpu, True))
    torch.__spec__ = types.SimpleNamespace(name="torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr("embrief.runtimes.base.Runtime.missing", lambda self: ())


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


def test_an_apple_gpu_has_the_memory_of_its_machine(monkeypatch):
    fake_torch(monkeypatch, mps=True)
    processor, gpu = data()["devices"]
    assert (gpu["device"], gpu["memory_bytes"]) == ("mps", processor["memory_bytes"])


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


@pytest.mark.parametrize(
    ("name", "needs"), [("Qwen/Qwen3-VL-Embedding-2B", "5.0 GiB"), ("Qwen/Qwen3-VL-Reranker-8B", "18.5 GiB")]
)
def test_it_says_what_a_page_costs_and_how_much_memory_is_needed(name, needs):
    # The sizes are those that transformers' processor of Qwen2-VL gives.
    page = data(name)["model"]["page"]
    assert (page["seen_width"], page["seen_height"], page["tokens"]) == (960, 1344, 1260)
    assert (page["max_pixels"], page["authors_max_pixels"], page["authors_tokens"]) == (1_310_720, 1_843_200, 1750)
    shown = " ".join(run(name).output.split())
    assert "an A4 page in 1,240 x 1,754 pixels is seen in 960 x 1,344: 1,260 tokens" in shown
    assert "1,750 tokens with max_pixels=1843200" in shown
    assert f"{needs} in bfloat16" in shown


def test_a_model_of_texts_says_nothing_of_pictures():
    assert data("Qwen/Qwen3-Embedding-0.6B")["model"]["page"] is None
    assert "A4" not in run("Qwen/Qwen3-Embedding-0.6B").output


def test_the_built_in_model_has_no_weights():
    assert data("embrief/hash")["model"]["weights_bytes"] == {}
    assert "none: it is built in" in run("embrief/hash").output


def test_a_folder_is_counted_by_what_would_be_read(tmp_path, qwen3_folder):
    from safetensors.torch import load_file

    shutil.copytree(qwen3_folder, tmp_path / "mine")
    # Weights of a checkpoint that lies inside are no part of the model.
    shutil.copytree(qwen3_folder, tmp_path / "mine" / "checkpoint-10")
    expected = sum(tensor.numel() for tensor in load_file(qwen3_folder / "model.safetensors").values())
    assert data(str(tmp_path / "mine"))["model"]["parameters"] == expected


def test_a_model_of_unknown_size_is_an_error_with_a_remedy():
    result = run("someone/else")
    assert result.exit_code == 1
    assert "the size of someone/else is not known; run `embrief pull someone/else` first" in result.stderr
    assert run("Qwen/Qwen3-Embedding").exit_code == 1
    result = run("someone/model-GGUF")
    assert (result.exit_code, "llama.cpp" in result.stderr, "embrief pull" in result.stderr) == (1, True, False)


@pytest.mark.parametrize("model", ["embrief/hash", "embrief/tiny-embedding", "embrief/tiny-reranker"])
def test_what_is_here_is_loaded_and_approved(model):
    assert data(model)["model"]["verdict"] == {
        "works": True, "loaded": True, "dtype": data(model)["model"]["auto_dtype"], "problem": None,
    }  # fmt: skip
    result = run(model)
    assert "it loads and fits" in result.output
    assert "no problems found" in result.output


def test_a_folder_of_either_kind_is_approved(qwen3_folder, reranker_folder):
    for folder in (qwen3_folder, reranker_folder):
        found = data(str(folder))["model"]
        assert found["verdict"]["loaded"]
        assert set(found["fits"].values()) == {True}


def only(folder, *names):
    for file in folder.iterdir():
        if file.is_file() and file.name not in names:
            file.unlink()


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def change(file, **keys):
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def without_a_tensor(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors[next(name for name in tensors if "layers.0" in name)]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def adapter(folder):
    only(folder)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"x")


def gguf(folder):
    only(folder)
    (folder / "model-q8_0.gguf").write_bytes(b"GGUF")


DAMAGES = {
    "adapter": (adapter, "merge_and_unload"),
    "gguf": (gguf, "is no GGUF file"),
    "empty": (lambda folder: only(folder), "config.json is missing"),
    "pickled": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "lacks model.safetensors"
    ),
    "quantised": (
        lambda folder: change(folder / "config.json", quantization_config={"quant_method": "gptq"}), "gptq"
    ),
    "cut short": (lambda folder: cut(folder / "model.safetensors"), "model.safetensors"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "JSON"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "lacks tokenizer.json"),
    "no module": (lambda folder: (folder / "1_Pooling" / "config.json").unlink(), "1_Pooling"),
    "tensor missing": (without_a_tensor, "layers.0"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_nothing_is_approved_that_does_not_load(tmp_path, qwen3_folder, damage, words):
    folder = tmp_path / "mine"
    shutil.copytree(qwen3_folder, folder)
    damage(folder)
    result = run("--json", str(folder))
    assert result.exit_code == 1
    verdict = json.loads(result.stdout)["model"]["verdict"]
    assert (verdict["works"], verdict["loaded"], verdict["dtype"]) == (False, False, None)
    assert words in verdict["problem"]
    result = run(str(folder))
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "it does not work here:" in text
    assert "no problems found" not in text
    assert "embrief pull" not in text + verdict["problem"]
    assert isinstance(result.exception, SystemExit)


def test_a_runtime_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("embrief.runtimes.base.Runtime.missing", lambda self: self.requires)
    result = run("Qwen/Qwen3-Embedding-0.6B")
    assert result.exit_code == 1
    assert install_command("torch") in " ".join(result.output.split())


GIB = 2**30


@pytest.mark.parametrize(
    ("memory", "native", "fits", "exit_code", "said"),
    [
        (64 * GIB, False, {"float32": True, "bfloat16": True}, 0, "it fits;"),
        (12 * GIB, False, {"float32": False, "bfloat16": True}, 0, "with dtype='bfloat16', which has to be passed"),
        (12 * GIB, True, {"float32": False, "bfloat16": True}, 0, "it fits;"),
        (4 * GIB, False, {"float32": False, "bfloat16": False}, 1, "it needs 9.2 GiB at least, and cpu has 4.0 GiB"),
        (None, False, {"float32": None, "bfloat16": None}, 0, "it fits;"),
    ],
)
def test_it_says_which_number_format_fits(monkeypatch, memory, native, fits, exit_code, said):
    fake_torch(monkeypatch, cpu=["amx_bf16"] if native else [])
    monkeypatch.setattr(diagnosis, "_memory", lambda: memory)
    result = run("--json", "Qwen/Qwen3-Embedding-4B")
    assert result.exit_code == exit_code
    found = json.loads(result.stdout)["model"]
    assert {dtype: found["fits"][dtype] for dtype in fits} == fits
    assert found["verdict"]["loaded"] is False
    text = " ".join(run("Qwen/Qwen3-Embedding-4B").output.split())
    assert said in text
    assert ("does not fit" in text) is (False in fits.values())


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


def test_a_gguf_file_is_counted_and_its_missing_runtime_named(qwen3_folder, tmp_path):
    from safetensors.torch import load_file

    file = write_embedder(qwen3_folder, tmp_path / "mine-F32.gguf")
    found = json.loads(run("--json", str(file)).output)["model"]
    assert found["parameters"] == sum(part.numel() for part in load_file(qwen3_folder / "model.safetensors").values())
    assert found["weights_bytes"] == {"float32": file.stat().st_size}
    if not is_installed("llama_cpp"):
        assert "needs llama_cpp" in found["verdict"]["problem"]
