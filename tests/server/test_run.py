"""`embrief serve`: what it refuses, what it says, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from embrief.cli import app
from embrief.server.models import served_models

ENTRY = [sys.executable, "-c", "from embrief.cli import main; main()", "serve"]


def refused(*arguments: str) -> str:
    # Nobody can listen there: what should have been refused before serves no one.
    port = () if "--port" in arguments else ("--port", "70000")
    done = CliRunner().invoke(app, ["serve", *arguments, *port])
    assert done.exit_code == 1, done.output
    return " ".join(done.output.split())


def test_other_machines_need_a_key():
    told = refused("embrief/hash", "--host", "0.0.0.0")
    assert "no key is set" in told
    assert "--insecure" in told
    assert "no key is set" in refused("embrief/hash", "--host", "::")


def test_a_port_in_use_is_told_plainly():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = refused("embrief/hash", "--port", str(port))
    assert f"port {port} is in use" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is no model to serve"),
        (("embrief/hash", "--port", "70000"), "70000"),
        (("embrief/hash", "--host", "no.such.host.invalid", "--insecure", "--port", "1"), "no address of this machine"),
        (("no-such-model",), "no-such-model"),
        (("embrief/hash", "embrief/hash"), "two models"),
        (("embrief/hash", "--reranker", "embrief/hash"), "embedding model"),
        (("embrief/hash", "--key-file", "/no/such/file"), "cannot be read"),
    ],
)
def test_what_cannot_be_is_told_before_anything_listens(arguments, said):
    assert said in refused(*arguments)


def test_help_needs_no_server():
    code = (
        "import sys; from typer.testing import CliRunner; from embrief.cli import app; "
        "done = CliRunner().invoke(app, ['serve', '--help']); assert done.exit_code == 0; "
        "heavy = ('fastapi', 'uvicorn', 'starlette', 'prometheus_client', 'numpy', 'httpx', 'embrief.server.app'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture
def process():
    made = []

    def start(*arguments: str) -> tuple[subprocess.Popen, str]:
        environment = {**os.environ, "EMBRIEF_API_KEYS": ""}
        found = subprocess.Popen(
            [*ENTRY, *arguments, "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment
        )
        made.append(found)
        line = found.stderr.readline()
        return found, line

    yield start
    for item in made:
        item.kill()
        item.wait(30)
        item.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can answer")
def test_it_says_where_it_is_and_ends_when_it_is_told_to(process):
    found, line = process("small=embrief/hash")
    match = re.fullmatch(r"embrief serves small at (http://127\.0\.0\.1:\d+)\n", line)
    assert match, line
    got = httpx.post(f"{match[1]}/v1/embeddings", json={"input": "red", "model": "small"})
    assert got.status_code == 200
    assert "server" not in got.headers
    found.send_signal(signal.SIGTERM)
    found.wait(30)
    assert found.stderr.read() == ""


def test_names_of_a_command_line():
    models = served_models(["small=embrief/hash", "embrief/tiny-reranker"], ["rank=embrief/tiny-reranker"])
    assert models.names == ["small", "embrief/tiny-reranker", "rank"]


@pytest.fixture
def registry(tmp_path):
    pytest.importorskip("yaml")
    from embrief import Registry

    file = tmp_path / "embrief.yaml"
    file.write_text(
        "models:\n"
        "  docs: {provider: native, model_id: embrief/tiny-embedding}\n"
        "  twin: {provider: native, model_id: embrief/tiny-embedding}\n"
        "  spare: {provider: native, model_id: embrief/hash}\n"
        "  rank: {provider: native, model_id: embrief/tiny-reranker}\n"
        "  rank2: {provider: native, model_id: embrief/tiny-reranker}\n"
        "fallback_chain: [docs, twin, spare]\n"
        "allow_degraded: true\n"
        "reranker_chain: [rank, rank2]\n"
    )
    with Registry.from_config(file) as found:
        yield found


def test_without_names_all_of_the_configuration_is_served_its_chains_too(registry):
    from embrief import FallbackEmbedder, FallbackReranker

    models = served_models(registry=registry)
    assert models.names == ["docs", "twin", "spare", "rank", "rank2"]
    docs = models.embedders["docs"]
    assert isinstance(docs.facade, FallbackEmbedder)
    assert len(docs.facade.members) == 2
    assert len(docs.any_space.members) == 3
    assert isinstance(models.rerankers["rank"].facade, FallbackReranker)
    assert models.embedders["twin"].any_space is None


def test_a_name_of_ones_own_is_not_the_chain(registry):
    from embrief import FallbackEmbedder

    models = served_models(["docs=spare", "mine=docs"], registry=registry)
    assert not isinstance(models.embedders["docs"].facade, FallbackEmbedder)
    assert isinstance(models.embedders["mine"].facade, FallbackEmbedder)


def test_the_configuration_named_on_the_command_line_counts(tmp_path):
    pytest.importorskip("yaml")
    from embrief.config.process import use_config

    file = tmp_path / "embrief.yaml"
    file.write_text("models:\n  docs: {provider: no-such-provider}\n")
    try:
        assert "no-such-provider" in refused("docs", "--config", str(file))
        file.write_text("models: {}\n")
        assert "there is no model to serve" in refused("--config", str(file))
    finally:
        use_config(None)


def test_without_its_packages_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr("embrief.cli.serve.is_installed", lambda name: name != "uvicorn")
    told = refused("embrief/hash")
    assert "a server needs uvicorn" in told
    assert "[server]" in told
