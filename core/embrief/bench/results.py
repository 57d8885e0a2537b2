"""The results of a run: plain values in one JSON file, written after every row."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import embrief
from embrief.evaluation import result_files
from embrief.system.installed import installed_version
from embrief.system.machine import processor

if TYPE_CHECKING:
    from embrief.bench.settings import Settings

FORMAT = 1
_COMMAND = "embrief bench"
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
        return {"command": _COMMAND, "format": FORMAT, **self.identity, "rows": self.rows, "left": self.left}

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a results file.

        Raises:
            ArgumentError: There is none, or it is something else.
        """
        data = result_files.load(file, _COMMAND, FORMAT, dict)
        return cls({key: data.get(key) for key in ("versions", "machine", "settings")}, data["rows"], data["left"])

    def save(self, file: Path) -> None:
        """Write the results, whole or not at all."""
        result_files.save(self.to_json(), file)


def identity(settings: Settings, device: str) -> dict[str, Any]:
    """Return what decides whether two measurements belong together."""
    import torch

    versions = {"python": platform.python_version(), "embrief": f"{embrief.__version__} ({_source_digest()})"}
    machine: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
    # Through JSON, so that what was read from a file compares equal.
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "versions": versions | {name: installed_version(name) for name in PACKAGES},
                "machine": machine,
                "settings": asdict(settings),
            }
        )
    )
    return plain


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
