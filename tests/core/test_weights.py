"""Getting weights, against a small hub that runs on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("huggingface_hub")

PINNED = "b22da495047858cce924d27d76261e96be6febc0"
OTHER = "c" * 40
QWEN = "Qwen/Qwen3-Embedding-0.6B"


@dataclass
class Hub:
    """Repositories by id, each with its revisions; and what was asked."""

    repositories: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    extra_size: int = 0
    url: str = ""

    def files(self, model: str, commit: str) -> dict[str, Path]:
        root = self.repositories[model][commit]
        return {file.relative_to(root).as_posix(): file for file in sorted(root.rglob("*")) if file.is_file()}


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None: ...

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).strip("/")
            state.requests.append(path)
            if path.startswith("api/models/"):
                kind = "/tree/" if "/tree/" in path else "/revision/"
                model, _, revision = path.removeprefix("api/models/").partition(kind)
            else:
                model, _, rest = path.partition("/resolve/")
                revision, _, name = rest.partition("/")
            revision = revision or "main"
            if model in state.gated:
                return self.answer(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="gated")
            if model not in state.repositories:
                return self.answer(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="not found")
            commit = next(iter(state.repositories[model])) if revision == "main" else revision
            if commit not in state.repositories[model]:
                return self.answer(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="no revision")
            files = state.files(model, commit)
            if path.startswith("api/") and kind == "/tree/":
                tree = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in files]
                return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
            if path.startswith("api/"):
                siblings = [
                    {"rfilename": name, "size": file.stat().st_size + state.extra_size} for name, file in files.items()
                ]
                body = {
                    "id": model,
                    "modelId": model,
                    "sha": commit,
                    "siblings": siblings,
                    "tags": [],
                    "private": False,
                }
                return self.answer(200, json.dumps(body).encode(), Content_Type="application/json")
            if name not in files:
                return self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            content = files[name].read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(200, content, ETag=etag, X_Repo_Commit=commit, Accept_Ranges="bytes")

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def repository(qwen3_folder: Path, tmp_path: Path) -> Path:
    """A tiny model with the leftovers that real repositories hold."""
    folder = Path(shutil.copytree(qwen3_folder, tmp_path / "repository"))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_evil.py").write_text("raise SystemExit", "utf-8")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}", "utf-8")
    return folder


def run(code: str, hub: Hub, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process whose hub is ours. huggingface_hub reads its settings at import."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **variables}
    prelude = (
        "import sys, warnings\n"
        "from pathlib import Path\n"
        "from embrief import *\n"
        "from embrief.files.weights import *\n"
        "def source(id='acme/tiny', revision=None, **more): return ModelSource(id, revision, **more)\n"
        "def attempt(call):\n"
        "    try: print(call())\n"
        "    except EmbriefError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done


def test_only_safe_files_are_fetched_and_then_found_without_the_hub(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories["acme/tiny"] = {OTHER: repository}
    code = (
        "found = fetch(source()); print(found.revision)\n"
        "print(sorted(file.name for file in found.folder.rglob('*') if file.is_file()))"
    )
    out = run(code, hub, tmp_path / "home").stdout
    assert OTHER in out
    assert "model.safetensors" in out
    assert "modules.json" in out
    for forbidden in ("pytorch_model.bin", "modeling_evil.py", "onnx"):
        assert forbidden not in out
        assert not any(forbidden in request for request in hub.requests)
    asked = len(hub.requests)
    pinned = run(f"print(fetch(source(revision={OTHER!r})).revision)", hub, tmp_path / "home").stdout
    assert pinned.strip() == OTHER
    assert len(hub.requests) == asked, "a pinned revision that is here needs no request"
    offline = run("print(fetch(source()).revision)", hub, tmp_path / "home", HF_HUB_OFFLINE="1").stdout
    assert offline.strip() == OTHER, "the branch is remembered for offline use"


@pytest.mark.parametrize("layout", ["one file", "shards", "shards with the names of others"])
def test_only_the_weights_that_are_read_are_fetched(layout: str, hub: Hub, repository: Path, tmp_path: Path) -> None:
    weights = (repository / "model.safetensors").read_bytes()
    shard = {"shards": "weights/model-1.safetensors"}.get(layout, "consolidated.safetensors")
    for name in ("model.fp16.safetensors", "model.fp16-00001-of-00002.safetensors", "consolidated.safetensors", shard):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_bytes(weights)
    if layout != "one file":
        (length,) = struct.unpack("<Q", weights[:8])
        names = [name for name in json.loads(weights[8 : 8 + length]) if name != "__metadata__"]
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        (repository / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
        (repository / "model.safetensors").unlink()
    hub.repositories["acme/tiny"] = {OTHER: repository}
    code = (
        "found = fetch(source())\n"
        "print(sorted(file.relative_to(found.folder).as_posix() for file in found.folder.rglob('*.safetensors')))"
    )
    due = "model.safetensors" if layout == "one file" else shard
    assert run(code, hub, tmp_path / "home").stdout.strip() == repr([due])


def test_one_damaged_download_hides_no_other(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories["acme/tiny"] = {OTHER: repository}
    code = (
        "found = fetch(source())\n"
        "import shutil; bad = Path(shutil.copytree(found.folder, found.folder.parent / ('d' * 40)))\n"
        "(bad / 'modules.json').unlink(); (bad / 'modules.json').write_text('{')\n"
        "print([item.revision for item in cached_models()])"
    )
    assert run(code, hub, tmp_path / "home").stdout.strip() == repr([OTHER])


def test_a_model_without_a_record_runs_from_the_hub(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories["acme/tiny"] = {OTHER: repository}
    code = (
        "e = Embedder('acme/tiny', dtype='float32'); print(e.embed_query('q').shape, e.space.weights, e.space.model, "
        "e.spec.id)\nfrom embrief.files.weights import cached_models\n"
        "print([(m.id, m.revision) for m in cached_models()])\n"
    )
    out = run(code, hub, tmp_path / "home").stdout
    assert out.splitlines() == [f"(48,) {OTHER} acme/tiny acme/tiny", str([("acme/tiny", OTHER)])]


def test_a_recorded_model_is_fetched_at_its_pin_and_must_be_what_its_record_says(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    hub.repositories[QWEN] = {OTHER: repository, PINNED: repository}
    out = run("attempt(lambda: Embedder().load())", hub, tmp_path / "home").stdout
    assert out.startswith("ModelMismatchError")
    assert "hidden_size is 48, recorded is 1024" in out
    assert all(PINNED in request for request in hub.requests if "resolve" in request)


def test_offline_with_another_revision_names_it(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories[QWEN] = {OTHER: repository}
    run(f"fetch(source({QWEN!r}, {OTHER!r}))", hub, tmp_path / "home")
    for variables, how in (({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1"), ({}, "local_files_only=True")):
        local = "local_files_only=True" if not variables else ""
        out = run(f"attempt(lambda: Embedder({local}).load())", hub, tmp_path / "home", **variables).stdout
        assert out.startswith("WeightsUnavailableError")
        assert how in out
        assert f"pass revision='{OTHER}'" in out


@pytest.mark.parametrize(
    ("call", "tiny"),
    [
        ("Embedder().load()", "'embrief/tiny-embedding'"),
        ("Embedder('acme/unknown', revision='" + OTHER + "').load()", "'embrief/tiny-embedding'"),
        ("Reranker().load()", "'embrief/tiny-reranker'"),
        ("Reranker('acme/unknown', revision='" + OTHER + "').load()", "'embrief/tiny-reranker'"),
        ("fetch(ModelSource.of('acme/unknown', None))", "'embrief/tiny-embedding' or 'embrief/tiny-reranker'"),
    ],
)
def test_offline_with_nothing_here_says_what_to_do(call: str, tiny: str, hub: Hub, tmp_path: Path) -> None:
    out = run(f"attempt(lambda: {call})", hub, tmp_path / "home", HF_HUB_OFFLINE="1").stdout
    name = "acme/unknown" if "acme" in call else call.partition("(")[0].replace("Embedder", "Embedding")
    assert re.search(f"run `embrief pull [^`]*{name}[^`]*` once", out)
    assert f"without any download, model={tiny} tries" in out


def test_what_the_message_names_needs_no_download(hub: Hub, tmp_path: Path) -> None:
    code = "Embedder('embrief/tiny-embedding').load(); Reranker('embrief/tiny-reranker').load()"
    run(code, hub, tmp_path / "home", HF_HUB_OFFLINE="1")


def test_a_hub_that_cannot_be_reached(hub: Hub, tmp_path: Path) -> None:
    dead = Hub(url="http://127.0.0.1:9")
    out = run("attempt(lambda: fetch(source()))", dead, tmp_path / "home").stdout
    assert out.startswith("WeightsUnavailableError")
    assert "cannot be reached" in out


def test_a_configuration_without_weights_does_not_count_as_cached(hub: Hub, repository: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "home" / "hub" / "models--acme--tiny" / "snapshots" / OTHER
    shutil.copytree(repository, snapshot)
    (snapshot / "model.safetensors").unlink()
    out = run(f"attempt(lambda: fetch(source(revision={OTHER!r})))", hub, tmp_path / "home", HF_HUB_OFFLINE="1").stdout
    assert out.startswith("WeightsUnavailableError")


def test_shards_must_all_be_there(tmp_path: Path) -> None:
    from embrief.files.folders import missing_files

    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (tmp_path / "model-1.safetensors").touch()
    assert missing_files(tmp_path) == ["config.json", "tokenizer.json", "model-2.safetensors"]
    (tmp_path / "model-2.safetensors").touch()
    (tmp_path / "config.json").touch()
    (tmp_path / "tokenizer.json").touch()
    assert missing_files(tmp_path) == []


def test_a_gated_model_names_licence_page_and_token(hub: Hub, repository: Path, tmp_path: Path) -> None:
    gemma = "google/embeddinggemma-300m"
    hub.repositories[gemma] = {OTHER: repository}
    hub.gated.add(gemma)
    out = run(f"attempt(lambda: Embedder({gemma!r}).load())", hub, tmp_path / "home").stdout
    assert out.startswith("GatedModelError")
    assert f"https://huggingface.co/{gemma}" in out
    assert "HF_TOKEN" in out


def test_an_unknown_repository_or_revision(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories["acme/tiny"] = {OTHER: repository}
    code = f"attempt(lambda: fetch(source('acme/none')))\nattempt(lambda: fetch(source(revision={PINNED!r})))"
    none, revision = run(code, hub, tmp_path / "home").stdout.splitlines()
    assert none.startswith("UnknownModelError")
    assert "no model 'acme/none'" in none
    assert revision.startswith("UnknownModelError")
    assert f"no revision '{PINNED}'" in revision


def test_no_safetensors_is_refused_before_any_download(hub: Hub, repository: Path, tmp_path: Path) -> None:
    (repository / "model.safetensors").unlink()
    hub.repositories["acme/tiny"] = {OTHER: repository}
    out = run("attempt(lambda: fetch(source()))", hub, tmp_path / "home").stdout
    assert out.startswith("WeightsUnavailableError")
    assert "no safetensors weights" in out
    assert not any("resolve" in request for request in hub.requests)


def test_a_full_disk_is_noticed_before_any_download(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories["acme/tiny"] = {OTHER: repository}
    hub.extra_size = 2**60
    out = run("attempt(lambda: fetch(source()))", hub, tmp_path / "home").stdout
    assert out.startswith("NotEnoughSpaceError")
    assert "GiB" in out
    assert not any("resolve" in request for request in hub.requests)


def test_remote_code_needs_a_pin(hub: Hub, tmp_path: Path) -> None:
    code = (
        "attempt(lambda: Embedder('acme/tiny', trust_remote_code=True))\n"
        "attempt(lambda: Embedder('acme/tiny', trust_remote_code=True, revision='main'))\n"
        f"attempt(lambda: Embedder('acme/tiny', trust_remote_code=True, revision={OTHER!r}))\n"
    )
    first, second, third = run(code, hub, tmp_path / "home").stdout.splitlines()
    assert "ArgumentError" in first
    assert "40 hex" in first
    assert "ArgumentError" in second
    assert third.startswith("Embedder(")


def test_a_partial_snapshot_is_completed(hub: Hub, repository: Path, tmp_path: Path) -> None:
    """Another library fetched the weights only; or a download was interrupted."""
    hub.repositories["acme/tiny"] = {OTHER: repository}
    code = f"print(Embedder('acme/tiny', revision={OTHER!r}, dtype='float32').embed_query('q').shape)"
    run(code, hub, tmp_path / "home")
    snapshot = tmp_path / "home" / "hub" / "models--acme--tiny" / "snapshots" / OTHER
    for lost in ("tokenizer.json", "model.safetensors"):
        (snapshot / lost).unlink()
        code_offline = f"attempt(lambda: fetch(source(revision={OTHER!r})))"
        out = run(code_offline, hub, tmp_path / "home", HF_HUB_OFFLINE="1").stdout
        assert out.startswith("WeightsUnavailableError")
        assert f"lacks {lost}" in out
        assert run(code, hub, tmp_path / "home").stdout.strip() == "(48,)"


def test_a_branch_that_was_fetched_serves_when_the_hub_is_away(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories["acme/tiny"] = {OTHER: repository}
    run("fetch(source())", hub, tmp_path / "home")
    done = run("print(fetch(source()).revision)", Hub(url="http://127.0.0.1:9"), tmp_path / "home")
    assert done.stdout.strip() == OTHER
    assert "as it was fetched before" in done.stderr


def test_a_branch_never_names_a_space(hub: Hub, repository: Path, tmp_path: Path) -> None:
    hub.repositories["acme/tiny"] = {OTHER: repository}
    out = run("print(Embedder('acme/tiny', revision='main').space.weights)", hub, tmp_path / "home").stdout
    assert out.strip() == OTHER
    hub.repositories[QWEN] = {OTHER: repository}
    out = run(f"print(Embedder({QWEN!r}, revision='main').space.weights)", hub, tmp_path / "home").stdout
    assert out.strip() == OTHER


ARTIFACTS = """
from dataclasses import replace
import numpy as np
from embrief.serving.choosing import to_fetch
HEX = "c" * 40
files = {"q8_0": "m-q8_0.gguf", "q4_0": "m-q4_0.gguf", "f16": "absent.gguf"}
artifacts = tuple(Artifact("gguf", "acme/many-gguf", HEX, (name,), dtype) for dtype, name in files.items())
SPEC = replace(plugins().catalog.models["embrief/hash"], id="acme/many", revision="a" * 40, architecture="many",
               aliases=(), dim=8, mrl=(), artifacts=artifacts)
class Letters:
    def run(self, inputs, options):
        return Output.dense([[0.1 + sum(ord(c) % 8 == n for c in item.text) for n in range(8)] for item in inputs])
    def close(self): pass
class Gguf(Runtime):
    name, dtypes, preference = "letters", tuple(files), 5
    def offer(self, spec, ask):
        wanted = "q8_0" if ask.dtype == "auto" else ask.dtype
        if spec.architecture != "many": return Refusal("reads GGUF")
        return Offer(device="cpu", dtype=wanted, artifact=next(a for a in spec.artifacts if a.dtype == wanted))
    def load(self, request):
        (name,) = request.artifact.files
        print(name, (request.folder / name).read_bytes(), sorted(file.name for file in request.folder.iterdir()))
        return Letters()
plugins().catalog.add_backend(Gguf())
plugins().catalog.add_model(SPEC)
"""


def test_what_is_fetched_follows_from_the_offer(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    for dtype in ("q8_0", "q4_0"):
        (folder / f"m-{dtype}.gguf").write_text(f"weights in {dtype}", "utf-8")
    hub.repositories["acme/many-gguf"] = {OTHER: folder}
    code = ARTIFACTS + (
        "print(to_fetch(plugins().catalog, SPEC).dtype, Embedder('acme/many').info()['dtype'])\n"
        "print(Embedder('acme/many').embed_query('q').shape)\n"
        "print(Embedder('acme/many', dtype='q4_0').embed_query('q').shape)\n"
        "attempt(lambda: Embedder('acme/many', dtype='f16').load())\n"
        "from embrief.testing import check_runtime; check_runtime(Letters(), SPEC)\n"
    )
    out = run(code, hub, tmp_path / "home").stdout.splitlines()
    assert out[:5] == [
        "q8_0 q8_0",
        "m-q8_0.gguf b'weights in q8_0' ['m-q8_0.gguf']",
        "(8,)",
        "m-q4_0.gguf b'weights in q4_0' ['m-q4_0.gguf', 'm-q8_0.gguf']",
        "(8,)",
    ]
    assert "WeightsUnavailableError" in out[5]
    assert "has no absent.gguf, which its record names" in out[5]
    asked = len(hub.requests)
    again = run(ARTIFACTS + "Embedder('acme/many').load()", hub, tmp_path / "home", HF_HUB_OFFLINE="1").stdout
    assert again.startswith("m-q8_0.gguf")
    assert len(hub.requests) == asked
    missing = run(
        ARTIFACTS + "attempt(lambda: Embedder('acme/many').load())", hub, tmp_path / "other", HF_HUB_OFFLINE="1"
    )
    assert "acme/many-gguf" in missing.stdout
    assert "are not on this machine" in missing.stdout


def test_a_tokenizer_alone_is_fetched_and_then_counts_texts_for_servers(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    hub.repositories[QWEN] = {OTHER: repository, PINNED: repository}
    code = (
        "from typer.testing import CliRunner; from embrief.cli import app\n"
        f"for _ in range(2): done = CliRunner().invoke(app, ['pull', {QWEN!r}, '--tokenizer']); print(done.output)\n"
        "from embrief.servers.counting import Tokens; from embrief.discovery.plugins import catalog\n"
        f"tokens = Tokens.at_hand(catalog().models[{QWEN!r}], None)\n"
        "print(len(tokens.encoded([''], ['one two'])[0]) > 1)\n"
        "from embrief.files.weights import cached_models; print(list(cached_models()))\n"
    )
    out = run(code, hub, tmp_path / "home").stdout
    assert f"Getting the tokenizer of {QWEN} at revision {PINNED}" in out
    assert f"{QWEN} at revision {PINNED} was already here" in out
    assert out.splitlines()[-2:] == ["True", "[]"], "a tokenizer is no model"
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert fetched == {"tokenizer.json"}


def test_a_tokenizer_that_is_not_there_is_said_to_be_missing(hub: Hub, repository: Path, tmp_path: Path) -> None:
    (repository / "tokenizer.json").unlink()
    hub.repositories["acme/tiny"] = {OTHER: repository}
    code = (
        "attempt(lambda: fetch(ModelSource.of_tokenizer('acme/tiny', None)))\n"
        "import huggingface_hub.constants as c; c.HF_HUB_OFFLINE = True\n"
        "attempt(lambda: fetch(ModelSource.of_tokenizer('acme/tiny', None)))\n"
    )
    online, offline = run(code, hub, tmp_path / "home").stdout.splitlines()
    assert online.startswith("WeightsUnavailableError acme/tiny at revision main has no tokenizer.json, so that texts")
    assert "the tokenizer of acme/tiny at revision main is not on this machine and downloading is switched" in offline
    assert "run `embrief pull acme/tiny --tokenizer` once" in offline


GGUF_REPOSITORY = "Qwen/Qwen3-Embedding-0.6B-GGUF"


def gguf_repository(folder: Path) -> Path:
    folder.mkdir()
    for name in ("Qwen3-Embedding-0.6B-Q8_0.gguf", "Qwen3-Embedding-0.6B-f16.gguf", "README.md"):
        (folder / name).write_bytes(b"GGUF" + name.encode())
    return folder


PULL = """
from embrief.cli import main
def pull(*more):
    sys.argv = ["embrief", "pull", "Qwen/Qwen3-Embedding-0.6B", "--backend", "gguf", *more]
    try: main()
    except SystemExit as error: print("exit", error.code)
"""


def test_a_gguf_file_is_found_by_its_format_whatever_it_is_called(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[GGUF_REPOSITORY] = {OTHER: gguf_repository(tmp_path / "gguf")}
    done = run(f"{PULL}pull('--dtype', 'q8_0')\npull('--dtype', 'q8_0')", hub, tmp_path / "home")
    assert f"at revision {OTHER} is here" in done.stdout
    assert f"at revision {OTHER} was already here" in done.stdout
    files = {Path(path).name for path in hub.requests if path.endswith(".gguf")}
    assert files == {"Qwen3-Embedding-0.6B-Q8_0.gguf"}


@pytest.mark.parametrize("how", ["reference", "configuration"])
def test_a_name_that_means_gguf_files_pulls_one_of_these(how: str, hub: Hub, tmp_path: Path) -> None:
    hub.repositories[GGUF_REPOSITORY] = {OTHER: gguf_repository(tmp_path / "gguf")}
    name, more, due = "gguf:Qwen/Qwen3-Embedding-0.6B", [], "f16"
    if how == "configuration":
        file = tmp_path / "embrief.yaml"
        file.write_text(
            "models:\n  small:\n    provider: gguf\n    model_id: Qwen/Qwen3-Embedding-0.6B\n    dtype: q8_0\n", "utf-8"
        )
        name, more, due = "small", ["--config", str(file)], "Q8_0"
    code = f"from embrief.cli import main\nsys.argv = ['embrief', 'pull', {name!r}, *{more!r}]\nmain()"
    assert f"at revision {OTHER} is here" in run(code, hub, tmp_path / "home").stdout
    assert {Path(path).name for path in hub.requests if "/resolve/" in path} == {f"Qwen3-Embedding-0.6B-{due}.gguf"}


def test_a_gguf_file_stays_here_where_another_was_fetched_from_a_newer_commit(hub: Hub, tmp_path: Path) -> None:
    """And it names what is kept of its vectors: the next file of that name may be another one."""
    repository = gguf_repository(tmp_path / "gguf")
    hub.repositories[GGUF_REPOSITORY] = {OTHER: repository}
    # Nothing is loaded: that the package can be found is enough.
    stub = tmp_path / "stub"
    (stub / "llama_cpp").mkdir(parents=True)
    (stub / "llama_cpp" / "__init__.py").touch()
    code = (
        f"sys.path.append({str(stub)!r})"
        + """
from embrief import Embedder
made = Embedder("gguf:Qwen/Qwen3-Embedding-0.6B", dtype="q8_0", device="cpu")
print(made.info()["artifact"], made.fingerprint)
"""
    )
    before = run(code, hub, tmp_path / "home", HF_HUB_OFFLINE="1").stdout.split()
    run(f"{PULL}pull('--dtype', 'q8_0')", hub, tmp_path / "home")
    one = run(code, hub, tmp_path / "home").stdout.split()
    hub.repositories[GGUF_REPOSITORY] = {PINNED: repository, OTHER: repository}
    run(f"{PULL}pull('--dtype', 'float16')", hub, tmp_path / "home")
    # A part of a third, broken off.
    snapshot = next((tmp_path / "home").rglob(f"snapshots/{OTHER}"))
    (snapshot / "Qwen3-Embedding-0.6B-Q4_K_M-00001-of-00002.gguf").write_bytes(b"GGUF")
    other = run(code, hub, tmp_path / "home", HF_HUB_OFFLINE="1").stdout.split()
    assert (before[0], one[0]) == (f"{GGUF_REPOSITORY}@main", f"{GGUF_REPOSITORY}@{OTHER}")
    assert other == one
    assert before[1] != one[1]


def test_the_finest_gguf_file_is_taken_where_none_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[GGUF_REPOSITORY] = {OTHER: gguf_repository(tmp_path / "gguf")}
    run(f"{PULL}pull()", hub, tmp_path / "home")
    assert {Path(path).name for path in hub.requests if path.endswith(".gguf")} == {"Qwen3-Embedding-0.6B-f16.gguf"}


def test_a_format_that_a_repository_lacks_is_told_with_what_it_has(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[GGUF_REPOSITORY] = {OTHER: gguf_repository(tmp_path / "gguf")}
    done = run(f"{PULL}pull('--dtype', 'q4_k_m')", hub, tmp_path / "home")
    told = " ".join((done.stdout + done.stderr).split())
    assert "has no GGUF file in q4_k_m" in told
    assert "Qwen3-Embedding-0.6B-Q8_0.gguf" in told


def test_a_fetched_gguf_file_is_used_offline_and_its_commit_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[GGUF_REPOSITORY] = {OTHER: gguf_repository(tmp_path / "gguf")}
    run(f"{PULL}pull('--dtype', 'q8_0')", hub, tmp_path / "home")
    hub.requests.clear()
    code = """
from embrief.facts.specs import Artifact
artifact = Artifact("gguf", "Qwen/Qwen3-Embedding-0.6B-GGUF", "main", dtype="q8_0")
wanted = ModelSource.of("Qwen/Qwen3-Embedding-0.6B", None, artifact=artifact)
print(fetch(wanted).revision, find_cached(wanted).revision)
"""
    assert run(code, hub, tmp_path / "home").stdout.split() == [OTHER, OTHER]
    assert hub.requests == []
