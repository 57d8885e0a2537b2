"""`embrief models` and `embrief pull`: records, the cache, and errors."""

import json
import sys

import pytest
from typer.testing import CliRunner

import embrief.cli.pull
from embrief.cli import app
from embrief.discovery.plugins import catalog
from embrief.facts.records import built_in_models
from embrief.files.weights import CachedModel
from embrief.system.installed import install_command

MODEL = "Qwen/Qwen3-Embedding-0.6B"


def run(*arguments, columns="130"):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": columns})


def put(cache, model, revision, *, complete=True, branch=None):
    """Lay out one revision as huggingface_hub does."""
    folder = cache / f"models--{model.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, text in (("config.json", "{}"), ("tokenizer.json", "{}"), ("modules.json", "[]")):
        (snapshot / name).write_text(text)
    if complete:
        (snapshot / "model.safetensors").write_bytes(b"x" * 3000)
    if branch:
        (folder / "refs").mkdir()
        (folder / "refs" / branch).write_text(revision)
    return snapshot


def row(output, name):
    return next(line for line in output.splitlines() if line.startswith(name + " "))


@pytest.fixture
def pinned():
    return catalog().models[MODEL].revision


@pytest.fixture
def hub():
    return pytest.importorskip("huggingface_hub")


def test_every_record_is_listed(tmp_path, hub):
    output = run("models", "--cache-dir", str(tmp_path)).output
    for name in catalog().models:
        assert row(output, name)
    line = row(output, MODEL).split()
    assert line[1:] == ["embed", "32-1024", "8192", "apache-2.0", "no", "-"]
    assert row(output, "google/embeddinggemma-300m").split()[2:9] == [
        "128,", "256,", "512,", "768", "2048", "gemma,", "gated",
    ]  # fmt: skip
    assert row(output, "embrief/hash").split()[-2:] == ["built", "in"]
    assert row(output, "Qwen/Qwen3-Reranker-8B").split()[1:3] == ["rerank", "-"]


def test_json_has_everything(tmp_path, hub):
    data = json.loads(run("models", "--json", "--cache-dir", str(tmp_path)).output)
    models = {item["id"]: item for item in data["models"]}
    assert list(models) == list(catalog().models)
    assert data["cache_known"] is True
    gemma = models["google/embeddinggemma-300m"]
    assert (gemma["kind"], gemma["dim"], gemma["shorter_dims"], gemma["gated"], gemma["license"]) == (
        "embedding", 768, [128, 256, 512, 768], True, "gemma",
    )  # fmt: skip
    assert models[MODEL]["shorter_dims"] == "32-1024"
    assert (models[MODEL]["modalities"], models[MODEL]["max_pixels"]) == (["text"], None)
    vision = models["Qwen/Qwen3-VL-Reranker-2B"]
    assert (vision["modalities"], vision["max_pixels"]) == (["text", "image"], 1_310_720)
    assert models[MODEL]["cached"] == []
    assert models["Qwen/Qwen3-Reranker-0.6B"]["dim"] is None
    assert models["embrief/hash"]["needs_download"] is False
    # Other tests of this process may have records of their own.
    own = [models[spec.id] for spec in built_in_models()]
    # Of two the commit is not known; what is fetched first stays.
    branches = {item["id"] for item in own if item["needs_download"] and len(item["revision"]) != 40}
    assert branches == {"Qwen/Qwen3-VL-Reranker-2B", "Qwen/Qwen3-VL-Reranker-8B"}


def test_models_that_take_pictures_are_named(tmp_path, hub):
    output = " ".join(run("models", "--cache-dir", str(tmp_path)).output.split())
    told = output[output.index("Texts and pictures: ") :].partition(". All others")[0]
    assert {"Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Reranker-8B"} <= set(told.replace(",", "").split())
    assert MODEL not in told


def test_the_cache_is_shown(tmp_path, hub, pinned):
    put(tmp_path, MODEL, pinned)
    put(tmp_path, "Qwen/Qwen3-Embedding-4B", "b" * 40)
    put(tmp_path, "Qwen/Qwen3-Embedding-8B", "c" * 40, complete=False)
    put(tmp_path, "someone/else", "d" * 40)
    output = run("models", "--cache-dir", str(tmp_path)).output
    assert row(output, MODEL).endswith(pinned[:7])
    assert row(output, "Qwen/Qwen3-Embedding-4B").endswith("another: bbbbbbb")
    # A configuration without weights is no cached model.
    assert row(output, "Qwen/Qwen3-Embedding-8B").endswith("-")
    assert "someone/else at dddddddddddd, 3 KiB" in output
    data = json.loads(run("models", "--json", "--cache-dir", str(tmp_path)).output)
    assert data["others"] == [{"id": "someone/else", "revision": "d" * 40, "bytes": 3006}]


def test_without_huggingface_hub_the_cache_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = run("models")
    assert result.exit_code == 0
    assert row(result.output, MODEL).endswith("unknown")
    assert row(result.output, "embrief/hash").endswith("built in")
    assert install_command("torch") in result.output
    data = json.loads(run("models", "--json").output)
    assert data["cache_known"] is False
    assert data["models"][0]["cached"] is None


def test_names_stay_in_one_piece_on_80_columns(tmp_path, hub):
    output = run("models", "--cache-dir", str(tmp_path), columns="80").output
    for name in (MODEL, "google/embeddinggemma-300m", "Qwen/Qwen3-Reranker-0.6B"):
        assert row(output, name)
    assert max(map(len, output.splitlines())) <= 80


def test_pull_uses_the_recorded_revision(monkeypatch, tmp_path, hub, pinned):
    asked = []

    def fetch(source):
        asked.append(source)
        return CachedModel(source.id, source.revision, tmp_path / "there", 3 << 20)

    monkeypatch.setattr(embrief.cli.pull, "fetch", fetch)
    result = run("pull", MODEL.lower(), "--cache-dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert (asked[0].id, asked[0].revision, asked[0].gated, asked[0].cache_dir) == (MODEL, pinned, False, tmp_path)
    assert f"{MODEL} at revision {pinned} is here" in result.stdout
    assert f"3.0 MiB in {tmp_path / 'there'}" in result.stdout
    run("pull", MODEL, "--revision", "main", "--cache-dir", str(tmp_path))
    assert asked[1].revision == "main"
    run("pull", "google/embeddinggemma-300m", "--cache-dir", str(tmp_path))
    assert asked[2].gated
    run("pull", "someone/else", "--cache-dir", str(tmp_path))
    assert (asked[3].id, asked[3].revision) == ("someone/else", None)


def test_what_is_here_is_not_fetched_again(tmp_path, hub, pinned):
    snapshot = put(tmp_path, MODEL, pinned)
    result = run("pull", MODEL, "--cache-dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "was already here" in result.stdout
    assert str(snapshot) in result.stdout.replace("\n", "")
    assert "Getting" not in result.output


def test_offline_with_another_revision_names_it(tmp_path, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True, raising=False)
    put(tmp_path, MODEL, "e" * 40)
    result = run("pull", MODEL, "--cache-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "e" * 40 in result.stderr
    assert result.stderr.count("error: ") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("google/embedding-gemma-300m", "google/embeddinggemma-300m"),
        ("Qwen/Qwen3-Embeding-0.6B", "did you mean 'Qwen/Qwen3-Embedding-0.6B'"),
        ("nonsense", "no model has the name 'nonsense'"),
        ("./nowhere", "no model folder './nowhere'"),
        ("a/b/c", "no model has the name"),
        ("", "name is empty"),
    ],
)
def test_pull_knows_wrong_names(name, message, monkeypatch):
    monkeypatch.setattr(embrief.cli.pull, "fetch", lambda source: pytest.fail("asked the hub"))
    result = run("pull", name)
    assert result.exit_code == 1
    assert message in result.stderr


def test_pull_needs_no_network_for_what_has_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(embrief.cli.pull, "fetch", lambda source: pytest.fail("asked the hub"))
    assert "built in" in run("pull", "embrief/hash").output
    refused = run("pull", str(tmp_path))
    assert refused.exit_code == 1
    assert "is a folder on this machine" in refused.stderr


def test_pull_without_huggingface_hub_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = run("pull", MODEL)
    assert result.exit_code == 1
    assert install_command("torch") in result.stderr


def test_pull_gets_a_tokenizer_alone_where_there_is_one(monkeypatch, tmp_path, hub, pinned):
    asked = []

    def fetch(source):
        asked.append(source)
        return CachedModel(source.id, source.revision, tmp_path / "there", 3 << 20)

    monkeypatch.setattr(embrief.cli.pull, "fetch", fetch)
    assert run("pull", MODEL, "--tokenizer").exit_code == 0
    assert (asked[0].id, asked[0].revision, asked[0].files) == (MODEL, pinned, ("tokenizer.json",))
    # Models that only servers run have one, too.
    assert run("pull", "nomic-ai/nomic-embed-text-v2-moe", "--tokenizer").exit_code == 0
    assert asked[1].files == ("tokenizer.json",)
    hosted = run("pull", "openai-3-small", "--tokenizer")
    assert hosted.exit_code == 1
    assert "openai/text-embedding-3-small is served by OpenAI and has no files" in hosted.stderr
    assert "built in" in run("pull", "embrief/hash", "--tokenizer").output
    assert "built in" in run("pull", "embrief/tiny-embedding", "--tokenizer").output
    assert len(asked) == 2
