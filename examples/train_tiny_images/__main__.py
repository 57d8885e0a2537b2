"""Make embrief/tiny-vl-embedding: python examples/train_tiny_images --work FOLDER.

Every step keeps its result in the folder, and a second call goes on where the first one stopped, also in training.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import learn
import measure
import pictures
import publish
import sources
import torch
from safetensors.torch import load_file
from tower import TextModel

from embrief import Embedder

TEXT = "embrief/tiny-embedding"
STEPS = 10_000
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(prog="train_tiny_images", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where downloads, steps and the model are kept")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--start", type=Path, help="the tower.safetensors of an earlier training, to begin with")
    parser.add_argument("--minutes", type=float, default=75.0, help="how long to train in this call at most")
    parser.add_argument(
        "--measure", choices=("watched", "held-out"), help="print how much is found, of what was kept apart for this"
    )
    options = parser.parse_args()
    if options.start is not None and not options.start.is_file():
        parser.error(f"--start {options.start} is no file")
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    archives = work / "archives"
    sources.fetch(archives)
    drawn = pictures.read(archives, work / "pictures.npz")
    split = pictures.split(drawn)
    embedder = Embedder(TEXT, device="cpu", dtype="float32")
    folder = Path(str(embedder.info()["folder"]))
    training = learn.Training(
        learn.lessons(drawn, split, embedder),
        _text_model(folder),
        steps=options.steps,
        seed=SEED if options.start is None else SEED + 1,
        start=options.start,
    )
    print(f"{len(split.emoji):,} emoji and {len(split.icons):,} icons", flush=True)
    began = time.perf_counter()
    done = training.go_on(work / "training.pt", minutes=options.minutes, report=lambda line: print(line, flush=True))
    print(f"{training.step} of {options.steps} steps, {time.perf_counter() - began:,.0f} s in this call", flush=True)
    if options.measure:
        watched = options.measure == "watched"
        styles = ("noto", *(sources.WATCHED if watched else sources.HELD_OUT))
        vectors = {style: training.vectors(drawn.styles[style]).numpy() for style in styles}
        held_out = split.watched if watched else split.measured
        for line in measure.table(drawn, split, embedder, vectors, held_out):
            print(line, flush=True)
    if done:
        _publish(training, folder, work, archives, options.steps)
        publish.write_sheet(drawn, split, work / "demo_pictures")


def _text_model(folder: Path) -> TextModel:
    weights = {name: value.float() for name, value in load_file(folder / publish.TEXT).items()}
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tokens = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    numbers = {token["content"]: token["id"] for token in tokens}
    before, behind, _ = (numbers[name] for name in publish.SPECIALS)
    return TextModel(
        weights,
        layers=config["num_hidden_layers"],
        head=config["head_dim"],
        marks=(before, behind, numbers["<|endoftext|>"]),
    )


def _publish(training: learn.Training, text: Path, work: Path, archives: Path, steps: int) -> None:
    folder = work / "tiny_vl_embedding"
    shutil.rmtree(folder, ignore_errors=True)
    publish.write(training.smoothed, text, folder)
    record = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "numpy", "pillow", "resvg_py")},
        "steps": steps,
        "start": training.start,
        "archives": sources.digests(archives),
    }
    (work / "tiny_vl_embedding.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(f"{folder} is ready; copy it to core/embrief/facts/records/")


if __name__ == "__main__":
    main()
