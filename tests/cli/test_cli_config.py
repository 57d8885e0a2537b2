"""The configuration on the command line: `doctor --config`, and the names in it wherever a model is named."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from embrief import ArgumentError, Embedder, use_config
from embrief.cli import app


@pytest.fixture(autouse=True)
def none_before_and_after():
    use_config(None)
    yield
    use_config(None)


def run(*arguments, **environment):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", **environment})


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "embrief.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


def _beir(folder):
    """Write the smallest retrieval set."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "red"}\n{"_id": "2", "text": "blue"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "red"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")


GOOD = """
default_model: small
models:
  small: {provider: hash, dim: 64, batch_size: 8}
  judge: {model_id: embrief/tiny-reranker}
reranker: judge
"""


def test_doctor_checks_a_configuration(write):
    path = write(GOOD)
    shown = run("doctor", "--config", path)
    assert shown.exit_code == 0, shown.output
    assert f"configuration {path}" in shown.output
    assert f"note: {path}:4:3: small: batch_size counts texts" in shown.output
    assert "no problems found" in shown.output
    found = json.loads(run("doctor", "--json", "--config", path).output)
    assert found["configuration"]["file"] == str(path)
    assert found["configuration"]["models"][0] == {
        "name": "small", "kind": "embedding", "provider": "hash", "model": "embrief/hash", "dim": 64,
        "max_tokens": 1_000_000, "problem": None,
    }  # fmt: skip
    assert [row["kind"] for row in found["configuration"]["models"]] == ["embedding", "reranker"]


def test_what_is_wrong_has_a_place_and_a_remedy_and_ends_with_1(write):
    path = write("models:\n  a: {provider: hsah}\n  b: {dmi: 3}\n")
    shown = run("doctor", "--config", path)
    assert shown.exit_code == 1
    assert f"problem: {path}:2:17: models.a.provider: 'hsah' is not known; did you mean hash?" in shown.output
    assert f"problem: {path}:3:7: models.b has no setting 'dmi'; did you mean dim?" in shown.output
    path = write(
        "default_model: nobody/x:y\nmodels:\n  a: {provider: hash, dim: 4}\n"
        "  b: {provider: native}\n  c: {provider: hash}\n"
        "runs: {BAAI/bge-m3: c}\n"
    )
    shown = run("doctor", "--json", "--config", path)
    assert shown.exit_code == 1
    found = json.loads(shown.output)
    told = found["problems"]
    assert told[0].startswith(f"{path}:3:3: a: dim=4 does not fit embrief/hash")
    assert told[1].startswith(f"{path}:4:3: b: it does not say which model it is; add model_id:")
    assert told[2].startswith("the embedding model where none is named: 'nobody/x:y' is a name with a tag")
    assert told[3].startswith(f"{path}: runs: says that BAAI/bge-m3 runs as 'c', and that is embrief/hash")
    assert [row["problem"] is None for row in found["configuration"]["models"]] == [False, False, True]
    shown = run("doctor", "--config", path.parent / "gone.yaml")
    assert shown.exit_code == 1
    assert "gone.yaml: the configuration cannot be read" in shown.output


def test_doctor_finds_the_users_own_and_tells_of_unknown_variables(write):
    shown = run("doctor", EMBRIEF_CONFIG=str(write(GOOD)), EMBRIEF_DEVISE="cpu", EMBRIEF_XYZ="1", EMBRIEF_PLUGINS="")
    assert "small" in shown.output
    assert "note: the variable EMBRIEF_DEVISE is not known; did you mean EMBRIEF_DEVICE?" in shown.output
    assert "note: the variable EMBRIEF_XYZ is not known, and not read" in shown.output
    assert "EMBRIEF_PLUGINS is not known" not in shown.output
    assert shown.exit_code == 0
    shown = run("doctor", EMBRIEF_DEFAULT_EMBEDDING_MODEL="x", EMBRIEF_MODEL_PATH="/y")
    assert (
        "problem: the embedding model where none is named: EMBRIEF_DEFAULT_EMBEDDING_MODEL='x' and EMBRIEF_MODEL_PATH"
        in shown.output
    )
    assert shown.exit_code == 1
    shown = run("doctor", EMBRIEF_NATIVE="maybe")
    assert "EMBRIEF_NATIVE='maybe' is not known" in shown.output
    assert shown.exit_code == 1


def test_without_one_there_is_nothing_to_tell():
    found = json.loads(run("doctor", "--json").output)
    assert found["configuration"] == {"file": None, "models": [], "notes": []}


def test_names_and_references_on_the_command_line(write):
    path = write(GOOD)
    shown = run("doctor", "--config", path, "small", "--json")
    assert json.loads(shown.output)["model"]["id"] == "embrief/hash"
    assert (
        json.loads(run("doctor", "--config", path, "judge", "--json").output)["model"]["id"] == "embrief/tiny-reranker"
    )
    assert json.loads(run("doctor", "local:hash", "--json").output)["model"]["id"] == "embrief/hash"
    assert "embrief/hash is built in" in run("pull", "--config", path, "small").output
    use_config(None)
    assert "embrief/hash is built in" in run("pull", "local:hash").output
    shown = run("pull", "small")
    assert shown.exit_code == 1
    assert "no model has the name 'small'" in shown.output
    shown = run("pull", "--config", write("modles: 1"), "small")
    assert shown.exit_code == 1
    assert "error: " in shown.output
    assert "no setting 'modles'" in shown.output


def test_a_model_on_a_server_is_not_pulled():
    for command in ("pull", "doctor"):
        shown = run(command, "tei:http://127.0.0.1:1#BAAI/bge-m3")
        assert shown.exit_code == 1
        assert "is BAAI/bge-m3 on a server (tei at http://127.0.0.1:1); this command is" in shown.output


def test_the_tokenizer_of_a_model_on_a_server_may_be_pulled():
    shown = run("pull", "--tokenizer", "openai:text-embedding-3-small")
    assert "there is no tokenizer to download: openai/text-embedding-3-small is served by" in shown.output


@pytest.mark.parametrize("command", [("demo", "--reranker", "none"), ("eval", ".", "--baseline", "none")])
def test_an_option_left_alone_leaves_the_configurations(write, tmp_path, monkeypatch, command):
    pytest.importorskip("chromadb")
    monkeypatch.chdir(tmp_path)
    _beir(tmp_path)
    path = write("models: {odd: {provider: native, model_id: embrief/tiny-embedding, device: gpu0}}\n")
    shown = run(*command, "--config", path, "--model", "odd")
    assert shown.exit_code == 1
    assert "device='gpu0' is not known" in shown.output
    shown = run(*command, "--config", path, "--model", "odd", "--device", "gpu1")
    assert "device='gpu1' is not known" in shown.output


def test_demo_takes_a_configured_model(write):
    pytest.importorskip("chromadb")
    shown = run("demo", "--config", write(GOOD), "--model", "small", "--limit", 20)
    assert shown.exit_code == 0, shown.output
    assert "Model     embrief/hash, 64 values per vector" in shown.output


def test_eval_takes_a_configured_model(write, tmp_path):
    data = tmp_path / "data"
    _beir(data)
    shown = run(
        "eval", data, "--config", write(GOOD), "--model", "small", "--baseline", "none", "--out", tmp_path / "o.json"
    )
    assert shown.exit_code == 0, shown.output
    assert Embedder("embrief/hash", dim=64).fingerprint in (tmp_path / "o.json").read_text("utf-8")


TWO = (
    "models:\n  a: {provider: hash, dim: 64}\n  b: {model_id: embrief/tiny-embedding}\n"
    "  r: {model_id: embrief/tiny-reranker}\n"
)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("fallback_chain: [a, b]\n", "fallback_chain: "),
        ("fallback_chain: [a, r]\n", "fallback_chain: 'r' is a reranker"),
        ("reranker: a\n", "the reranker where none is named: 'a' is an embedding model"),
        ("default_model: r\n", "the embedding model where none is named: 'r' is a reranker"),
    ],
)
def test_doctor_makes_what_is_made_of_several_models_and_of_defaults(write, more, says):
    path = write(TWO + more)
    shown = run("doctor", "--json", "--config", path)
    found = json.loads(shown.output)["problems"]
    assert shown.exit_code == 1
    assert len(found) == 1
    assert says in found[0]
    assert run("doctor", "--config", write(TWO + "fallback_chain: [a, b]\nallow_degraded: true\n")).exit_code == 0


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("EMBRIEF_DEVICE", "tpu", "the variable EMBRIEF_DEVICE: device='tpu' is not known; use "),
        ("EMBRIEF_SERVER_URL", "nonsense", "EMBRIEF_SERVER_URL is no address: write "),
        ("EMBRIEF_SERVER_URL", "tei+http://u:p@h", "EMBRIEF_SERVER_URL='http://...@h' has a user or a password"),
        ("EMBRIEF_DEFAULT_EMBEDDING_MODEL", "nosuch", "where none is named: no model has the name 'nosuch'"),
        ("EMBRIEF_RERANKER_MODEL", "embrief/hash", "the reranker where none is named: "),
        ("EMBRIEF_CONFIG", "/gone/x.yaml", "the variable EMBRIEF_CONFIG names a file that cannot be used: /gone/x"),
    ],
)
def test_doctor_checks_the_variables(name, value, says):
    shown = run("doctor", "--json", **{name: value})
    found = json.loads(shown.output)["problems"]
    assert shown.exit_code == 1
    assert len(found) == 1
    assert says in found[0]


def test_messages_about_servers_name_them_and_not_all_their_options(monkeypatch):
    monkeypatch.setenv("EMBRIEF_NATIVE", "1")
    with pytest.raises(ArgumentError, match=r"would run on a server \(tei at http://127.0.0.1:1\); unset"):
        Embedder("tei:http://127.0.0.1:1#BAAI/bge-m3")


def test_parity_and_bench_take_a_configuration(write):
    path = write(GOOD + "  far: {provider: tei, base_url: 'http://127.0.0.1:1', model_id: BAAI/bge-m3}\n")
    text = path.read_text("utf-8").replace("reranker: judge\n", "")
    path.write_text(text, "utf-8")
    shown = run("parity", "--config", path, "small", "embrief/tiny-embedding")
    assert "embrief/hash has vectors of 1024 values, and embrief/tiny-embedding of 256" in shown.output
    shown = run("bench", "--config", path, "--model", "far")
    assert shown.exit_code == 1
    assert "'far' is BAAI/bge-m3 on a server (tei at http://127.0.0.1:1)" in shown.output
    shown = run("doctor", "--config", write(TWO + "reranker_chain: [r, a]\n"))
    assert "reranker_chain: 'a' is an embedding model" in shown.output
