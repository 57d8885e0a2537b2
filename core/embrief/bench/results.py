"""The results of a run: plain values in one JSON file, written after every row."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import embrief
from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from embrief.bench.settings import Settings

FORMAT = 1
PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "safetensors", "numpy")


@dataclass(slots=True)
class Results:
    """Everything that was measured, and what it was measured with."""

    identity: dict[str, Any]
    """Versions, machine and settings: only runs in which all of them are equal may share a file."""
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Finished rows by key, in the order in which they ran."""
    left: list[str] = field(default_factory=list)
    """Keys of rows that the budget left no time for."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"format": FORMAT, **self.identity, "rows": self.rows, "left": self.left}

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a results file.

        Raises:
            ArgumentError: There is none, or it is something else.
        """
        try:
            data = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ArgumentError(f"{file} cannot be read as results of embrief bench: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("rows"), dict):
            raise ArgumentError(f"{file} holds no results of embrief bench (format {FORMAT})")
        return cls({key: data.get(key) for key in ("versions", "machine", "settings")}, data["rows"], data["left"])

    def save(self, file: Path) -> None:
        """Write the results, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        unfinished.write_text(json.dumps(self.to_json(), indent=2) + "\n", "utf-8")
        unfinished.replace(file)


def identity(settings: Settings, device: str) -> dict[str, Any]:
    """Return what decides whether two measurements belong together."""
    import torch

    versions = {"python": platform.python_version(), "embrief": f"{embrief.__version__} ({_source_digest()})"}
    machine: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
    # Through JSON, so that what was read from a file compares equal.
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "versions": versions | {name: _version(name) for name in PACKAGES},
                "machine": machine,
                "settings": asdict(settings),
            }
        )
    )
    return plain


def now() -> str:
    """Return date and time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source_digest() -> str:
    """Return a name for the code that is measured: a version says too little while it is being changed."""
    root = Path(embrief.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        if file.relative_to(root).parts[0] in ("cli", "demo"):
            continue
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
