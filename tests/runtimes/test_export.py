"""What `embrief export` writes, what it refuses to write, and what is refused of a folder that says it is an export."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import (
    ArgumentError,
    Embedder,
    EmbriefError,
    InputTooLongError,
    ModelMismatchError,
    NewerFormatError,
    Reranker,
    UnknownModelError,
    WeightsUnavailableError,
    export_model,
)

for _package in ("torch", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package)

MARK = "embrief-export.json"
Export = Callable[..., Path]


def facts(folder: Path) -> dict:
    return json.loads((folder / MARK).read_text("utf-8"))


def sealed(values: dict) -> str:
    """The text of a mark whose own digest is right: by somebody who means harm, or by another release."""
    values.pop("digest", None)
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return json.dumps({**values, "digest": "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()})


def change(folder: Path, **changes: object) -> None:
    (folder / MARK).write_text(sealed({**facts(folder), **changes}), "utf-8")


def flip(file: Path, place: int | None = None) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    file.write_bytes(bytes(data))


def test_the_folder_says_what_it_is(exported: Export) -> None:
    found = facts(exported("tiny-embedding"))
    assert found["record"] == "embrief/tiny-embedding"
    assert found["dtype"] == "float32"
    assert found["agreement"] > 0.99999
    assert {"embrief", "torch", "onnx", "onnxruntime"} <= found["versions"].keys()
    for name, entry in found["files"].items():
        data = (exported("tiny-embedding") / name).read_bytes()
        assert entry == {"bytes": len(data), "digest": "sha256:" + hashlib.sha256(data).hexdigest()}
    assert {file.name for file in exported("tiny-embedding").iterdir()} == {*found["files"], MARK}


@pytest.mark.parametrize("name", ["tiny-embedding", "gemma"])
def test_its_space_is_the_originals(name: str, exported: Export, original: Callable[[str], str]) -> None:
    with Embedder(exported(name)) as export, Embedder(original(name)) as source:
        assert export.space == source.space
        assert export.space.id == source.space.id
        assert export.space.label == source.space.label
        assert export.fingerprint != source.fingerprint
        assert export.spec.prompts == source.spec.prompts
        assert (export.dim, export.max_tokens) == (source.dim, source.max_tokens)
        assert export.spec.mrl == source.spec.mrl


def test_info_says_what_runs_it(exported: Export) -> None:
    with Embedder(exported("gemma")) as embedder:
        found = embedder.info()
    assert (found["backend"], found["dtype"], found["device"]) == ("onnx", "float32", "cpu")
    assert found["prompts_from"] == "folder"


def test_its_revision_is_that_of_its_weights(copied: Export) -> None:
    folder = copied("tiny-embedding")
    with Embedder(folder) as embedder:
        assert embedder.info()["revision"] is None
        assert embedder.spec.revision == ""
    change(folder, weights="c" * 40, origin="embrief/tiny-embedding")
    with Embedder(folder) as embedder:
        assert embedder.space.weights == embedder.info()["revision"] == "c" * 40


def test_nobody_is_sent_to_other_files(exported: Export) -> None:
    with Embedder(exported("tiny-embedding")) as embedder:
        assert "name one" not in embedder.info()["backend_reason"]


def test_a_copy_elsewhere_is_the_same(copied: Export, exported: Export) -> None:
    with Embedder(copied("tiny-embedding")) as copy, Embedder(exported("tiny-embedding")) as export:
        assert copy.space == export.space
        assert copy.fingerprint == export.fingerprint


def test_the_other_kind_is_named(exported: Export) -> None:
    with pytest.raises(ArgumentError, match="Reranker"):
        _ = Embedder(exported("tiny-reranker")).spec
    with pytest.raises(ArgumentError, match="Embedder"):
        _ = Reranker(exported("tiny-embedding")).spec


def test_like_is_refused(exported: Export) -> None:
    with pytest.raises(ArgumentError, match="leave open what they are"):
        _ = Embedder(exported("tiny-embedding"), like="google/embeddinggemma-300m").spec


def test_the_engine_is_not_for_exports(exported: Export) -> None:
    with pytest.raises(ArgumentError, match="these files are onnx"):
        Embedder(exported("tiny-embedding"), backend="engine")


def test_exports_are_not_for_other_files() -> None:
    with pytest.raises(ArgumentError, match="embrief export MODEL --to FOLDER"):
        Embedder("embrief/tiny-embedding", backend="onnx")
    with Embedder("embrief/tiny-embedding") as embedder:
        assert embedder.info()["backend"] == "engine"


# What is refused to be written.


def test_an_existing_folder_is_left_alone(tmp_path: Path, copied: Export) -> None:
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="exists"):
        export_model("embrief/tiny-embedding", kept)
    with pytest.raises(ArgumentError, match="is no export"):
        export_model("embrief/tiny-embedding", kept, force=True)
    export = copied("tiny-embedding")
    with pytest.raises(ArgumentError, match="exists"):
        export_model("embrief/tiny-embedding", export)
    (tmp_path / "link").symlink_to(export)
    with pytest.raises(ArgumentError, match="is no export"):
        export_model("embrief/tiny-embedding", tmp_path / "link", force=True)
    assert (kept / "notes.txt").read_text() == "mine"


def test_force_replaces_an_export(graphs_once: None, copied: Export) -> None:
    folder = copied("gemma")
    report = export_model("embrief/tiny-embedding", folder, force=True)
    assert facts(folder)["record"] == "embrief/tiny-embedding"
    assert report.folder == folder
    assert report.size == sum(file.stat().st_size for file in folder.iterdir())
    assert [found.name for found in folder.parent.iterdir()] == [folder.name]


def test_force_replaces_nothing_that_lies_beside_an_export(copied: Export) -> None:
    folder = copied("gemma")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"holds 'notes\.txt', which is no part of an export"):
        export_model("embrief/tiny-embedding", folder, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert facts(folder)["record"] is None


@pytest.mark.parametrize("to", [".", "../copy", "../copy/."])
def test_a_folder_may_be_named_by_dots(
    to: str, graphs_once: None, copied: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("gemma")
    monkeypatch.chdir(folder)
    report = export_model("embrief/tiny-embedding", to, force=True)
    assert report.folder == folder
    assert facts(folder)["record"] == "embrief/tiny-embedding"
    assert [found.name for found in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("to", ["a\0b", "x" * 5000])
def test_a_folder_that_cannot_be_called_so(to: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="cannot be a path"):
        export_model("embrief/tiny-embedding", tmp_path / to)


def test_an_interrupted_replacement_leaves_what_was_there(
    graphs_once: None, copied: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("gemma")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model("embrief/tiny-embedding", folder, force=True)
    assert facts(folder)["record"] is None
    assert [found.name for found in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("embrief/hash", "runs qwen3"),
        ("BAAI/bge-m3", "runs qwen3"),
        ("text-embedding-3-small", "loads models from their files"),
    ],
)
def test_what_the_engine_does_not_run_is_refused_with_the_reason(model: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(EmbriefError, match=reason):
        export_model(model, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_not_exported_again(exported: Export, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is an export already"):
        export_model(exported("tiny-embedding"), tmp_path / "export")


def test_words_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="format='coreml'"):
        export_model("embrief/tiny-embedding", tmp_path / "export", format="coreml")
    with pytest.raises(ArgumentError, match="dtype='float16'"):
        export_model("embrief/tiny-embedding", tmp_path / "export", dtype="float16")


def test_a_graph_that_computes_something_else_is_not_written(
    graphs_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embrief.exporting import graphs

    read = graphs.graph_of

    def wrong(*args: object, **options: object):
        graph = read(*args, **options)
        graph.layers[0].norms["before_mlp"].weight *= 1.3
        return graph

    monkeypatch.setattr(graphs, "graph_of", wrong)
    with pytest.raises(ModelMismatchError, match="least cosine"):
        export_model("embrief/tiny-embedding", tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_nothing_usable(tmp_path: Path) -> None:
    script = (
        "import sys, time; from embrief.exporting import export_model, graphs;"
        "graphs.write_onnx = lambda graph, file, **more: "
        "(file.write_bytes(b'half'), print('writing', flush=True), time.sleep(600));"
        "export_model('embrief/tiny-embedding', sys.argv[1])"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "export")], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    left = [path for path in tmp_path.rglob("*") if path.name == MARK]
    assert left == []
    assert not (tmp_path / "export").exists()
    (partial,) = tmp_path.iterdir()
    with pytest.raises(EmbriefError):
        Embedder(partial).embed_documents(["a"])


# What is refused to be run.


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused_by_its_name(name: str, copied: Export) -> None:
    folder = copied("tiny-embedding")
    flip(folder / name)
    with Embedder(folder) as embedder, pytest.raises(ModelMismatchError, match=f"{name} was changed"):
        embedder.embed_documents(["a"])


def test_a_file_that_changes_after_it_was_found_right_is_read_again(copied: Export) -> None:
    folder = copied("tiny-embedding")
    with Embedder(folder) as embedder:
        embedder.embed_documents(["a"])
    flip(folder / "model.onnx")
    with Embedder(folder) as embedder, pytest.raises(ModelMismatchError, match=r"model\.onnx was changed"):
        embedder.embed_documents(["a"])


def test_a_changed_mark_is_refused(copied: Export) -> None:
    folder = copied("tiny-embedding")
    text = (folder / MARK).read_text("utf-8")
    (folder / MARK).write_text(text.replace('"apache-2.0"', '"apache-2.1"'), "utf-8")
    with pytest.raises(ModelMismatchError, match=rf"{MARK} was changed"):
        Embedder(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_missing_or_shortened_file_is_refused_at_once(name: str, copied: Export) -> None:
    folder = copied("tiny-embedding")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelMismatchError, match=rf"{name} has \d+ bytes and had"):
        Embedder(folder)
    (folder / name).unlink()
    with pytest.raises(WeightsUnavailableError, match=f"lacks {name}"):
        Embedder(folder)


def test_prompts_that_were_recorded_otherwise_are_refused(copied: Export) -> None:
    folder = copied("tiny-embedding")
    kept = facts(folder)["facts"]
    kept["prompts"]["tasks"][0]["document"]["head"] = "passage: "
    change(folder, facts=kept)
    with pytest.raises(ModelMismatchError, match=r"recorded otherwise .* export the model again"):
        Embedder(folder)


def test_a_record_that_is_gone_is_told(copied: Export) -> None:
    folder = copied("tiny-embedding")
    kept = {**facts(folder)["facts"], "id": "somebody/new"}
    change(folder, facts=kept, record="somebody/new")
    with pytest.raises(UnknownModelError, match="somebody/new, of which nothing is recorded here; upgrade"):
        Embedder(folder)


def test_a_newer_format_says_upgrade(copied: Export) -> None:
    folder = copied("tiny-embedding")
    (folder / MARK).write_text('{"format": 2, "whatever": []}')
    with pytest.raises(NewerFormatError, match="upgrade embrief"):
        Embedder(folder)


HOSTILE: dict[str, object] = {
    "format": "1",
    "kind": "both",
    "record": 7,
    "origin": "../../etc",
    "label": ["a"],
    "weights": "latest",
    "files_format": "gguf",
    "dtype": "float64",
    "positions": 10**400,
    "vocabulary": -1,
    "parameters": 1e9,
    "lower_case": "no",
    "agreement": "high",
    "facts": [],
    "files": {"model.onnx": {"bytes": 1, "digest": "sha256:0"}},
}


@pytest.mark.parametrize("key", HOSTILE)
def test_values_that_cannot_be_are_refused(key: str, copied: Export) -> None:
    folder = copied("tiny-embedding")
    change(folder, **{key: HOSTILE[key]})
    with pytest.raises((ModelMismatchError, EmbriefError), match=MARK):
        Embedder(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dim", 0),
        ("dim", 10**30),
        ("dim", 256.0),
        ("mrl", {"from": 1, "to": 10**12}),
        ("mrl", [0]),
        ("max_tokens", -5),
        ("context", True),
        ("default_dim", 9999),
        ("pooling", "first"),
        ("padding_side", None),
        ("architecture", ""),
        ("prompts", {"tasks": []}),
        ("prompts", {"tasks": [{"name": "x", "query": {"head": 1, "tail": ""}, "document": {}}]}),
        ("final_token", 5),
        ("lexical", "x"),
    ],
)
def test_facts_that_cannot_be_are_refused(key: str, value: object, copied: Export) -> None:
    folder = copied("gemma")
    change(folder, facts={**facts(folder)["facts"], key: value})
    with pytest.raises(ModelMismatchError, match=MARK):
        Embedder(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "C:\\secret", "sub/model.onnx", "model.py", "model.onnx\0"]
)
def test_no_other_file_is_ever_read(name: str, copied: Export) -> None:
    folder = copied("tiny-embedding")
    files = facts(folder)["files"]
    change(folder, files={**files, name: files["tokenizer.json"]})
    with pytest.raises(ModelMismatchError, match="names the file"):
        Embedder(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_refused(name: str, copied: Export, tmp_path: Path) -> None:
    folder = copied("tiny-embedding")
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(ModelMismatchError, match="leads out of the folder"):
        Embedder(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "[" * 100_000, '{"format": ' + "9" * 5000 + "}"])
def test_a_mark_that_is_none(text: str, copied: Export) -> None:
    folder = copied("tiny-embedding")
    (folder / MARK).write_text(text)
    with pytest.raises(EmbriefError):
        Embedder(folder)


def test_a_text_beyond_the_graph_is_refused_by_its_index(copied: Export) -> None:
    folder = copied("tiny-embedding")
    change(folder, positions=8)
    with Embedder(folder) as embedder:
        assert embedder.embed_documents(["a"]).shape == (1, 256)
        with pytest.raises(InputTooLongError, match=r"at index 1 has \d+ tokens, .* takes 8") as raised:
            embedder.embed_documents(["a", "one two three four five six seven eight nine ten eleven twelve"])
        assert raised.value.index == 1


def test_files_beside_it_are_not_read(copied: Export) -> None:
    folder = copied("tiny-embedding")
    (folder / "config.json").write_text("{broken")
    (folder / "modules.json").write_text("{broken")
    (folder / "tokenizer_config.json").write_text("{broken")
    with Embedder(folder) as embedder:
        assert embedder.embed_documents(["a"]).shape == (1, 256)


# Foreign files, and the command.


def test_an_onnx_folder_of_other_makers_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen3-Embedding-0.6B-ONNX"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(b"\x08\x07")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(WeightsUnavailableError, match="export from the original"):
        Embedder(folder)
    with pytest.raises(UnknownModelError, match="export from the original"):
        Embedder(str(folder / "onnx" / "model.onnx"))


def test_the_file_of_an_export_names_its_folder(exported: Export) -> None:
    folder = exported("tiny-embedding")
    with pytest.raises(UnknownModelError, match="pass the folder around it") as raised:
        Embedder(str(folder / "model.onnx"))
    assert str(folder) in str(raised.value)


def test_the_name_of_a_folder_may_be_as_long_as_they_are(graphs_once: None, gemma_folder: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(gemma_folder, tmp_path / ("n" * 240)))
    export_model(source, tmp_path / "export")
    with Embedder(tmp_path / "export") as export, Embedder(source) as original:
        assert export.space == original.space


def test_what_could_not_be_opened_again_is_not_put_in_place(
    graphs_once: None, gemma_folder: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(gemma_folder, tmp_path / "model"))
    prompts = {"query": "q: ", "document": "d: ", "t" * 300 + "_query": "t: "}
    (source / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}), "utf-8")
    with pytest.raises(ModelMismatchError, match="'name' in"):
        export_model(source, tmp_path / "export")
    assert list(tmp_path.iterdir()) == [source]


def test_the_command(graphs_once: None, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from embrief.cli import app

    run = CliRunner().invoke
    done = run(app, ["export", "embrief/tiny-embedding", "--to", str(tmp_path / "export")])
    assert done.exit_code == 0, done.output
    assert "least cosine with the original: 1.0000" in done.output
    again = run(app, ["export", "embrief/tiny-embedding", "--to", str(tmp_path / "export")])
    assert again.exit_code == 1
    assert "exists" in again.output
    doctor = run(app, ["doctor", str(tmp_path / "export"), "--json"])
    found = json.loads(doctor.stdout)["model"]
    assert found["verdict"]["works"], found
    assert found["verdict"]["loaded"]
    assert found["parameters"] == 7_144_960
    assert list(found["weights_bytes"]) == ["float32"]


HUB = """
import json, sys
from embrief import Embedder
from embrief.cli import app
from embrief.exporting import steps
main, pinned, name, to, *options = sys.argv[1:]
def write(facade, folder, **options):
    spec, shared = facade.spec, facade._shared
    print(json.dumps([shared.origin, shared.weights, type(facade).__name__]))
    raise SystemExit(0)
steps.write_export = write
app(["export", name, "--to", to, *options])
"""


@pytest.mark.parametrize(
    ("name", "options", "commit"),
    [
        ("acme/tiny", [], "main"),
        ("acme/tiny", ["--revision", "PINNED"], "pinned"),
        ("hf:acme/tiny@PINNED", [], "pinned"),
        ("mine", ["--config", "CONFIG"], "pinned"),
    ],
)
def test_the_commit_that_is_named_is_exported(
    name: str, options: list[str], commit: str, qwen3_folder: Path, tmp_path: Path
) -> None:
    commits = {"main": "a" * 40, "pinned": "b" * 40}
    cached = tmp_path / "hub" / "models--acme--tiny"
    for each in commits.values():
        shutil.copytree(qwen3_folder, cached / "snapshots" / each)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commits["main"])
    config = tmp_path / "embrief.yaml"
    config.write_text(f"models:\n  mine: {{provider: native, model_id: acme/tiny, revision: {commits['pinned']}}}\n")
    known = {"PINNED": commits["pinned"], "CONFIG": str(config)}
    words = [
        name.replace("PINNED", commits["pinned"]),
        str(tmp_path / "to"),
        *(known.get(word, word) for word in options),
    ]
    done = subprocess.run(
        [sys.executable, "-c", HUB, *commits.values(), *words],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["acme/tiny", commits[commit], "Embedder"]


def test_files_that_leave_open_what_they_are(
    graphs_once: None, qwen3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine-tune as transformers alone saves it; it is like one record or another."""
    from embrief.exporting import steps

    source = Path(shutil.copytree(qwen3_folder, tmp_path / "saved"))
    (source / "modules.json").unlink()
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    (source / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}), "utf-8")
    asked: list[type] = []

    def write(facade: object, *args: object, **options: object) -> None:
        asked.append(type(facade))
        raise ArgumentError("enough")

    monkeypatch.setattr(steps, "write_export", write)
    # The folder has a prompt that the recorded reranker has no place for.
    (source / "config_sentence_transformers.json").unlink(missing_ok=True)
    for like in ("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Reranker-0.6B"):
        with pytest.raises(ArgumentError, match="enough"):
            export_model(source, tmp_path / "to", like=like)
    assert asked == [Embedder, Reranker]


def test_doctor_finds_what_is_wrong(copied: Export) -> None:
    from typer.testing import CliRunner

    from embrief.cli import app

    folder = copied("tiny-embedding")
    flip(folder / "model.onnx")
    doctor = CliRunner().invoke(app, ["doctor", str(folder), "--json"])
    assert doctor.exit_code == 1
    assert "model.onnx was changed" in json.loads(doctor.stdout)["model"]["verdict"]["problem"]


# Where torch and its like are not installed.

WITHOUT = """
import sys
banned = ("torch", "transformers", "sentence_transformers", "huggingface_hub", "safetensors", "onnx", "onnxscript")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in banned:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import json
import numpy as np
from embrief import Embedder, Reranker
texts, embedding, reranker = json.load(sys.stdin)
with Embedder(embedding) as embedder:
    vectors = embedder.embed_documents(texts), embedder.embed_queries(texts)
    space = embedder.space.id
with Reranker(reranker) as judge:
    scores = judge.score("which planet is red", texts)
assert not [name for name in sys.modules if name.partition(".")[0] in banned]
print(json.dumps([space, [part.tolist() for part in vectors], np.asarray(scores).tolist()]))
"""


def test_it_runs_where_torch_is_not_installed(exported: Export) -> None:
    texts = ["Mars is the Red Planet.", "Venus is bright. " * 60, "日本語 and émoji 🙂"]
    asked = json.dumps([texts, str(exported("tiny-embedding")), str(exported("tiny-reranker"))])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], input=asked, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    space, vectors, scores = json.loads(done.stdout)
    with Embedder("embrief/tiny-embedding", dtype="float32") as embedder:
        assert space == embedder.space.id
        for found, due in zip(vectors, (embedder.embed_documents(texts), embedder.embed_queries(texts)), strict=True):
            assert np.abs(np.array(found) - due).max() < 1e-4
    with Reranker("embrief/tiny-reranker", dtype="float32") as judge:
        assert np.abs(np.array(scores) - judge.score("which planet is red", texts)).max() < 1e-4


def test_what_is_missing_for_an_export_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import embrief.exporting as exporting

    monkeypatch.setattr(exporting, "is_installed", lambda name: name != "onnxscript")
    with pytest.raises(EmbriefError, match=r"an export needs onnxscript: .*export"):
        export_model("embrief/tiny-embedding", tmp_path / "export")
