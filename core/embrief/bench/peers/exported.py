"""What OpenVINO and ONNX Runtime are given: the graph of an export, and texts to calibrate a quantiser on."""

from __future__ import annotations

import inspect
import json
import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def write_graph(folder: Path, file: Path) -> None:
    """Write the checkpoint in `folder` as an ONNX file: the graph that `embrief export` makes, in float32."""
    from embrief.exporting import graphs
    from embrief.facades.embedder import Embedder

    with Embedder(folder, backend="engine", device="cpu", dtype="float32") as embedder:
        graphs.write_onnx(graphs.graph_of(embedder.spec, folder), file)


def width_of(folder: Path) -> int:
    """Return the length of the vectors of the checkpoint in `folder`."""
    return int(json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"])


def calibration_rows(folder: Path, count: int, longest: int) -> list[np.ndarray]:
    """Return token ids of real English, the standard library's docstrings, to calibrate a quantiser on.

    Args:
        folder: the checkpoint, for its tokenizer.
        count: how many rows.
        longest: tokens per row at most.

    Returns:
        Arrays of ids, int64, shape `(1, tokens)`.
    """
    import argparse
    import logging
    import shutil
    import statistics
    import textwrap

    from tokenizers import Tokenizer

    texts = sorted(
        {
            text
            for module in (argparse, logging, random, shutil, statistics, textwrap)
            for member in (module, *vars(module).values())
            if (text := inspect.getdoc(member)) and len(text) > 200
        }
    )
    chosen = random.Random(0).sample(texts, min(count, len(texts)))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [np.array([tokenizer.encode(text).ids[:longest]], dtype=np.int64) for text in chosen]
