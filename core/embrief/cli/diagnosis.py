"""The facts that `embrief doctor` shows, as plain values."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import embrief
from embrief.cli import plugins as plugin_command
from embrief.config import environment
from embrief.errors import MissingDependencyError
from embrief.files.weights import cache_folder
from embrief.serving.choosing import best
from embrief.system.installed import installed_version
from embrief.system.machine import processor

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.discovery.catalog import Catalog
    from embrief.facts.specs import ModelSpec

PACKAGES = (
    "numpy", "pluggy", "rich", "typer", "torch", "sentence-transformers", "transformers", "tokenizers",
    "safetensors", "huggingface-hub", "llama-index-core", "langchain-core", "chromadb", "jsonschema", "qdrant-client",
    "pyyaml", "onnxruntime", "openvino", "pillow",
)  # fmt: skip
VARIABLES = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT",
    "CUDA_VISIBLE_DEVICES", *environment.VARIABLES,
)  # fmt: skip
SECRETS = ("HF_TOKEN",)
DEFAULT = "Qwen/Qwen3-Embedding-0.6B"


def collect(model: str | None, config: Path | None = None) -> dict[str, Any]:
    """Return everything, JSON values only.

    Args:
        model: Also tell whether this model works here, and in which number formats.
        config: The configuration file; `None`: the one that the environment or the user's folder has.

    Raises:
        UnknownModelError: There is no such model.
        ArgumentError: Its size is not known.
    """
    # Inside the function: a command's help needs no numpy.
    from embrief.cli import check_config
    from embrief.cli.verdict import judge

    found = plugin_command.discover()
    problems = plugin_command.problems(found)
    devices = _devices(problems)
    configuration = check_config.check(config)
    problems += configuration.pop("problems")
    described = judge(_plain(model), found.catalog, _room(devices)) if model is not None else None
    spec = found.catalog.find_model(described["id"] if described and described["recorded"] else DEFAULT)
    auto = _auto(spec, found.catalog)
    return {
        "embrief": embrief.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "memory_bytes": _memory(),
        "devices": devices,
        "auto": auto,
        "cache": _cache(),
        "environment": _environment(),
        "configuration": configuration,
        "model": described,
        "problems": problems,
    }


def _plain(model: str) -> str:
    """Return the id, folder or alias behind a name that is configured, or a reference."""
    from embrief.cli.naming import meant_here

    return meant_here(model).model


def _memory() -> int | None:
    """Return the machine's memory in bytes, where the system tells it without a further package."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _room(devices: list[dict[str, Any]]) -> dict[str, int | None]:
    """Return the memory of each device in bytes; a model may also run where torch is not."""
    return {"cpu": _memory()} | {item["device"]: item["memory_bytes"] for item in devices}


def _devices(problems: list[str]) -> list[dict[str, Any]]:
    """Return what torch can compute on; nothing without torch."""
    if importlib.util.find_spec("torch") is None:
        return []
    try:
        # Inside the function: importing torch takes about a second.
        import torch

        found: list[dict[str, Any]] = [{"device": "cpu", "name": processor(), "memory_bytes": _memory()}]
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            facts = torch.cuda.get_device_properties(number)
            found.append({"device": f"cuda:{number}", "name": facts.name, "memory_bytes": facts.total_memory})
        if torch.backends.mps.is_available():
            found.append({"device": "mps", "name": "Apple GPU", "memory_bytes": _memory()})
    except Exception as error:
        # A half-installed torch fails in many ways, and this command is where people look for the reason.
        problems.append(f"torch is installed but does not work: {type(error).__name__}: {error}")
        return []
    return found


def _auto(spec: ModelSpec | None, known: Catalog) -> dict[str, Any]:
    """Return the device and number format that `auto` means for a model, and why."""
    if spec is None:
        return {"device": None, "dtype": None, "why": "there is no model"}
    try:
        offer = best(known, spec).settled(spec).offer
    except MissingDependencyError as error:
        return {"device": None, "dtype": None, "why": str(error)}
    except Exception as error:
        return {"device": None, "dtype": None, "why": f"{type(error).__name__}: {error}"}
    device, dtype = offer.device, offer.dtype
    if offer.artifact is None:
        return {"device": device, "dtype": dtype, "why": f"{spec.id} is built in"}
    place = {"cuda": "torch sees CUDA", "mps": "torch sees MPS and no CUDA"}.get(
        device.partition(":")[0], "torch sees neither CUDA nor MPS"
    )
    if dtype == "bfloat16":
        number = "bfloat16 is computed natively there"
    elif "bfloat16" in spec.banned_dtypes:
        number = f"{spec.id} must not run in bfloat16"
    else:
        number = "bfloat16 is not known to be fast there"
    return {"device": device, "dtype": dtype, "why": f"{place}; {number}"}


def _cache() -> dict[str, Any]:
    try:
        folder = cache_folder(None)
    except MissingDependencyError:
        return {"folder": None, "free_bytes": None}
    there = folder
    while not there.exists():
        there = there.parent
    return {"folder": str(folder), "free_bytes": shutil.disk_usage(there).free}


def _environment() -> dict[str, str]:
    """Return the variables that change what happens. Secrets are named, never shown."""
    shown = {name: _without_password(os.environ[name]) for name in VARIABLES if name in os.environ}
    return shown | {name: "(set)" for name in SECRETS if os.environ.get(name)}


def _without_password(value: str) -> str:
    return re.sub(r"//[^@/\s]*@", "//(hidden)@", value)
