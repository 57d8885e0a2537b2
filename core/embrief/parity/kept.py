"""Vectors of the probe texts, kept by space: what a member of a fallback is compared with before it may answer."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.errors import ArgumentError
from embrief.facts.vectors import finish
from embrief.parity.probe import VERSION, options_of, probes, rendered
from embrief.serving.jobs import Request
from embrief.system.places import user_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from embrief.facades.embedder import Embedder
    from embrief.facts.prompts import Rendered
    from embrief.facts.space import VectorSpace

_LARGEST = 64 * 2**20


@dataclass(frozen=True, slots=True)
class KeptProbes:
    """Unit vectors of the probe texts in one space."""

    space: str
    """Id of the space."""
    by: str
    """Who made them: fingerprint and runtime."""
    vectors: dict[str, NDArray[np.float32]]
    """By the text's name."""

    def worst(self, found: dict[str, NDArray[np.float32]]) -> tuple[str, float]:
        """Return the text on which other vectors agree least, and their cosine there."""
        near = {name: float(vector @ found[name]) for name, vector in self.vectors.items()}
        name = min(near, key=near.__getitem__)
        return name, near[name]


def whole(embedder: Embedder) -> VectorSpace:
    """Return the space under which probes are kept: of whole unit vectors, whatever width and length is asked for.

    What is cut or scaled later says nothing of who computed it.
    """
    return replace(embedder.space, dim=embedder.spec.dim, normalize=True)


def place_of(space: VectorSpace, folder: str | Path | None = None) -> Path:
    """Return the file for a space."""
    return (Path(folder).expanduser() if folder is not None else user_folder("data") / "probes") / f"{space.id}.json"


def items_of(embedder: Embedder) -> dict[str, Rendered]:
    """Return the probe texts with a model's prompts, by their names. The longest are left out where it is short."""
    found = probes(embedder.spec.final_token, embedder.max_tokens)
    # A space has one prompt for documents and any number for queries: these get the model's own.
    plain = embedder._view(instruction=None, task=None)
    # Some providers refuse an empty text.
    return {probe.name: rendered(plain if probe.role == "query" else embedder, probe) for probe in found if probe.text}


def ask(embedder: Embedder, items: dict[str, Rendered]) -> dict[str, NDArray[np.float32]]:
    """Return the whole unit vectors that a model gives for the probe texts, read as the embedder reads texts."""
    spec = embedder.spec
    inputs: Sequence[Rendered] = list(items.values())
    output = embedder._shared.served.run(Request(inputs, options_of(embedder, spec.dim)))
    vectors = finish(output.array("dense"), count=len(inputs), dim=spec.dim, normalize=True, what=spec.id)
    return dict(zip(items, vectors, strict=True))


def record(embedder: Embedder, folder: str | Path | None = None) -> Path:
    """Embed the probe texts and keep their whole vectors, which serve all widths of the model; return the file."""
    shared, space = embedder._shared, whole(embedder)
    vectors = ask(embedder, items_of(embedder))
    data = {
        "format": 1,
        "probes": VERSION,
        "space": space.to_json(),
        "by": f"{shared.backend.name} {shared.offer.dtype} {embedder.fingerprint}",
        "vectors": {
            name: base64.b64encode(vector.astype("<f4").tobytes()).decode() for name, vector in vectors.items()
        },
    }
    file = place_of(space, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Another process may read it meanwhile.
    number, name = tempfile.mkstemp(dir=file.parent, prefix=file.stem)
    with os.fdopen(number, "w", encoding="utf-8") as out:
        json.dump(data, out)
    Path(name).replace(file)
    return file


def load(space: VectorSpace, folder: str | Path | None = None) -> KeptProbes | None:
    """Return what is kept for a space, `None` if nothing is.

    Raises:
        ArgumentError: The file cannot be read, or is not what it should be.
    """
    file = place_of(space, folder)
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        data: Any = json.loads(file.read_text("utf-8"))
        if data["space"]["id"] != space.id or data["format"] != 1:
            raise ValueError("it is another space's, or a newer release's")
        if data["probes"] != VERSION:
            return None
        vectors = {
            str(name): np.frombuffer(base64.b64decode(text, validate=True), "<f4")
            for name, text in data["vectors"].items()
        }
        wrong = [
            name for name, vector in vectors.items() if vector.shape != (space.dim,) or not np.isfinite(vector).all()
        ]
        if wrong or not vectors:
            raise ValueError(f"its vectors are damaged ({', '.join(wrong[:3])})")
        return KeptProbes(space.id, str(data["by"]), vectors)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentError(
            f"the probe vectors in {file} cannot be read ({error}); make them again with `embrief parity NAME --record`"
        ) from error
