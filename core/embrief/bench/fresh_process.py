"""One library in a process of its own: how long until it is ready, and how much memory it took.

Run as a script, so that nothing of embrief is in memory before the clock starts. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def children(process: int) -> list[int]:
    """Return the processes that a process has started and that still run, on Linux; elsewhere none."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            own = [int(number) for number in file.read_text().split()]
        except OSError:  # a thread that ended meanwhile
            continue
        for child in own:
            found += [child, *children(child)]
    return found


def peak_bytes() -> int | None:
    """Return the most memory this process ever held, `None` where the system does not tell.

    On Linux with the most of each process that it has started: a runtime may compute in one.
    """
    found = [_peak_of(process) for process in (os.getpid(), *children(os.getpid()))]
    if found[0] is not None:
        return sum(filter(None, found))
    try:
        import resource
    except ImportError:
        pass  # not on Windows
    else:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    try:
        import psutil  # type: ignore[import-untyped]  # optional, and comes without types
    except ImportError:
        return None
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    return None if peak is None else int(peak)


def _peak_of(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def main() -> None:
    """Import a library, load a model, embed one batch, and write what it cost to stdout."""
    library, folder, device, dtype, backend, threads, texts_file = sys.argv[1:]
    texts = json.loads(Path(texts_file).read_text("utf-8"))
    start = time.perf_counter()
    if library == "embrief":
        import embrief
    else:
        import sentence_transformers
    imported = time.perf_counter()
    # To import torch for its threads would count for a runtime that needs none.
    if int(threads) and backend == "engine":
        import torch

        torch.set_num_threads(int(threads))
    if library == "embrief":
        ours = embrief.Embedder(folder, backend=backend, dtype=dtype, device=device, truncate="silent").load()
    else:
        theirs = sentence_transformers.SentenceTransformer(
            folder, device=device, model_kwargs={"dtype": dtype}, local_files_only=True
        )
    loaded = time.perf_counter()
    after_load = peak_bytes()
    if library == "embrief":
        ours.embed_documents(texts)
    else:
        theirs.encode(texts, show_progress_bar=False)
    result = {
        "import_s": imported - start,
        "load_s": loaded - imported,
        "peak_load_bytes": after_load,
        "peak_batch_bytes": peak_bytes(),
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
