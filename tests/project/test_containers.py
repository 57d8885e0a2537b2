"""The container example: what can be said of it without a container engine."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "containers"
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((FOLDER / "docker-compose.yml").read_text("utf-8"))
SERVICES = COMPOSE["services"]


@pytest.mark.skipif(importlib.util.find_spec("check_jsonschema") is None, reason="check-jsonschema is not installed")
def test_the_compose_file_fits_its_schema():
    """By the schema of the compose specification that check-jsonschema carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(FOLDER / "docker-compose.yml")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_may_do_no_more_than_it_must(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert not service.get("privileged")
    # To other machines no port is open.
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_keys_are_files_and_never_in_the_environment():
    assert COMPOSE["secrets"] == {"embrief_keys": {"file": "./secrets/embrief_keys"}}
    for service in SERVICES.values():
        assert not [key for key in service.get("environment", {}) if re.search("key|token|secret|password", key, re.I)]
    assert "examples/containers/secrets/" in (FOLDER.parents[1] / ".gitignore").read_text("utf-8")
    assert "examples/containers/secrets" in (FOLDER.parents[1] / ".dockerignore").read_text("utf-8")


def test_a_gpu_and_ollama_are_asked_for():
    assert {name: service.get("profiles") for name, service in SERVICES.items() if service.get("profiles")} == {
        "embrief-gpu": ["gpu"],
        "ollama": ["ollama"],
    }
    (device,) = SERVICES["embrief-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert {"test", "interval", "timeout", "retries"} <= SERVICES["ollama"]["healthcheck"].keys()


def test_the_image_runs_as_nobody_in_particular_and_says_when_it_is_ready():
    lines = DOCKERFILE.splitlines()
    last = [line for line in lines if line.startswith("USER")][-1]
    assert last == "USER embrief"
    assert lines.index(last) < next(n for n, line in enumerate(lines) if line.startswith("ENTRYPOINT"))
    assert "HEALTHCHECK" in DOCKERFILE
    assert "/readyz" in DOCKERFILE
    assert "--key-file" in DOCKERFILE
