"""One library in a process of its own: how long until it is ready, and how much memory it took.

Run as a script, so that nothing of embrief is in memory before the clock starts. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def peak_bytes() -> int | None:
    """Return the most memory this process ever held, `None` where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
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


def main() -> None:
    """Import a library, load a model, embed one batch, and write what it cost to stdout."""
    library, folder, device, dtype, threads, texts_file = sys.argv[1:]
    texts = json.loads(Path(texts_file).read_text("utf-8"))
    start = time.perf_counter()
    if library == "embrief":
        import embrief
    else:
        import sentence_transformers
    imported = time.perf_counter()
    if int(threads):
        import torch

        torch.set_num_threads(int(threads))
    if library == "embrief":
        ours = embrief.Embedder(folder, dtype=dtype, device=device, truncate="silent").load()
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
