"""A model folder of random weights at a published shape, or a real one."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

from embrief.bench.shapes import Kind, Shape, linear_flops, record_of
from embrief.bench.tokenizer import write_tokenizer
from embrief.bench.tower import preprocessor, tower_flops, whole_config
from embrief.errors import ArgumentError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.config_keys import architecture, text_part
from embrief.files.json_files import read_object
from embrief.files.modules import transformer_folder
from embrief.system.places import user_folder

_FORMAT = 1
_BLOCK = 4_000_000
"""Random values made at once: the table of a large vocabulary would otherwise be in memory several times."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder, and what a measurement must know of it."""

    folder: Path
    kind: Kind
    architecture: str
    """`model_type` of config.json; of a text model that is stored alone that of the whole it is a part of."""
    config: dict[str, Any]
    """What config.json says of the text model."""

    @classmethod
    def read(cls, folder: Path, kind: Kind) -> Checkpoint:
        """Return what is in a folder."""
        config = read_object(transformer_folder(folder) / "config.json")
        return cls(folder, kind, architecture(config), dict(text_part(config)))

    @staticmethod
    def kind_of(folder: Path) -> Kind:
        """Return what a folder that bench has written, or a real one, is used as: embedders say how they pool."""
        return "embedder" if (folder / "modules.json").is_file() else "reranker"

    @property
    def layers(self) -> int:
        """Return the number of layers."""
        return int(self.config["num_hidden_layers"])

    @property
    def flops(self) -> int | None:
        """Return floating-point operations per token in the linear layers."""
        return linear_flops(self.config)

    def picture_flops(self, rows: Iterable[Sequence[int]]) -> int:
        """Return floating-point operations in the tower for rows of token ids, with one picture at most in each."""
        whole = read_object(transformer_folder(self.folder) / "config.json")
        pad = int(whole["image_token_id"])
        return tower_flops(whole["vision_config"], (row.count(pad) for row in rows))


def default_folder() -> Path:
    """Return where checkpoints and results are kept: in the user's cache folder.

    Raises:
        RuntimeError: There is no home folder.
    """
    return user_folder("cache") / "bench"


def make(shape: Shape, layers: int, kind: Kind, root: Path) -> Checkpoint:
    """Return a folder of random bfloat16 weights, written if it is not there yet.

    Args:
        shape: The architecture.
        layers: Layers to write.
        kind: What it is used as; decides tokenizer and layout.
        root: Where such folders are kept.

    Raises:
        ArgumentError: The model has fewer layers.
    """
    if not shape.least_layers <= layers <= shape.layers:
        raise ArgumentError(
            f"--layers {layers} does not fit {shape.name}, which has {shape.least_layers} to {shape.layers}"
        )
    # The docstrings, and so the tokenizer, are those of this Python.
    python = f"py{sys.version_info[0]}{sys.version_info[1]}"
    folder = root / f"{shape.name}-{kind}-{layers}-{python}-v{_FORMAT}"
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _write(shape, layers, kind, unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process was faster.
            shutil.rmtree(unfinished, ignore_errors=True)
            if not folder.is_dir():
                raise
    return Checkpoint.read(folder, kind)


def _write(shape: Shape, layers: int, kind: Kind, folder: Path) -> None:
    specials = write_tokenizer(shape, kind, folder)
    config, record = shape.config(layers), record_of(shape, kind)
    if (tower := shape.tower_of(layers)) is not None and record.images is not None:
        config = whole_config(config, tower, specials)
        _json(folder / "preprocessor_config.json", preprocessor(record.images.min_pixels, record.images.max_pixels))
    _json(folder / "config.json", config)
    prefix = "model." if kind == "reranker" or tower is not None else ""
    _write_random(folder / "model.safetensors", list(shape.tensors(layers, prefix)), shape)
    if kind == "reranker":
        return
    modules = ["Transformer", "Pooling", *["Dense"] * len(shape.dense), "Normalize"]
    paths = ["" if not index else f"{index}_{kind}" for index, kind in enumerate(modules)]
    _json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(zip(paths, modules, strict=True))
        ],
    )
    spec = cast("EmbeddingSpec", record)
    pooled = {"last": "lasttoken", "mean": "mean_tokens", "cls": "cls_token"}[spec.pooling or "none"]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    (folder / "1_Pooling").mkdir()
    _json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": shape.width,
            **{f"pooling_mode_{mode}": mode == pooled for mode in modes},
            "include_prompt": True,
        },
    )
    for (inputs, outputs), path in zip(shape.dense, paths[2:], strict=False):
        (folder / path).mkdir()
        activation = "torch.nn.modules.linear.Identity"
        _json(
            folder / path / "config.json",
            {"in_features": inputs, "out_features": outputs, "bias": False, "activation_function": activation},
        )
        _write_random(folder / path / "model.safetensors", [("linear.weight", (outputs, inputs))], shape)
    if shape.family not in ("qwen3", "qwen3_vl"):
        _json(folder / "sentence_bert_config.json", {"max_seq_length": shape.context, "do_lower_case": False})
    task = spec.prompts.tasks[0]
    _json(
        folder / "config_sentence_transformers.json",
        {
            # Of a model that reads pictures the system line is in its chat template.
            "prompts": {
                "query": task.query.head if tower is None else "",
                "document": task.document.head if tower is None else "",
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def _json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2), "utf-8")


def _write_random(file: Path, tensors: list[tuple[str, tuple[int, ...]]], shape: Shape) -> None:
    """Write a safetensors file, one block of values after the other.

    Args:
        file: The file to write.
        tensors: Name and size of each tensor.
        shape: What they are part of, which says how large the values of norms are.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, size in tensors:
        end = start + 2 * prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        stream.writelines(_random_bytes(tensors, shape))


def _random_bytes(tensors: Iterable[tuple[str, tuple[int, ...]]], shape: Shape) -> Iterator[bytes]:
    import torch

    random = torch.Generator().manual_seed(1)
    for name, size in tensors:
        # Matrices keep the size of what passes through them.
        mean, deviation = shape.vector_weights(name) if len(size) == 1 else (0.0, size[-1] ** -0.5)
        left = prod(size)
        while left:
            count = min(left, _BLOCK)
            values = torch.randn(count, generator=random).mul_(deviation).add_(mean)
            yield values.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
            left -= count


def find(model: str) -> Checkpoint:
    """Return a real model: a folder, or a name whose files are fetched if they are not here.

    Raises:
        UnknownModelError, WeightsUnavailableError, GatedModelError: As in `Embedder`.
        ModelMismatchError: A folder holds neither an embedding model nor a reranker.
        ArgumentError: It is a reranker of another kind than yes/no: the rows have none like it to compare with.
    """
    from embrief import Embedder, Reranker
    from embrief.discovery.plugins import catalog
    from embrief.errors import AmbiguousModelError, ModelMismatchError
    from embrief.files.weights import ModelSource, fetch

    found = catalog().resolve(model)
    if isinstance(found, EmbeddingSpec | RerankerSpec):
        kind = _kind(model, found)
        return Checkpoint.read(fetch(ModelSource.of(model, found)).folder, kind)
    folder = found if isinstance(found, Path) else fetch(ModelSource.of(model, None)).folder
    try:
        kind = _kind(model, Embedder(folder).spec)
    except (ModelMismatchError, AmbiguousModelError):
        kind = _kind(model, Reranker(folder).spec)
    return Checkpoint.read(folder, kind)


def _kind(model: str, spec: EmbeddingSpec | RerankerSpec) -> Kind:
    if isinstance(spec, EmbeddingSpec):
        return "embedder"
    if spec.scoring != "yes_no":
        raise ArgumentError(f"{model} is a classifier; the rows compare embedding models and yes/no rerankers only")
    return "reranker"
