"""Export the tiny models, and run them in an environment with embrief[onnx] alone: no torch, transformers or hub.

    python .ci/check_export.py

Run with a Python that has what exports are made with. Says what that environment weighs, and how long a start takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from embrief import Embedder, Reranker, export_model

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["Mars is the Red Planet.", "Venus is bright. " * 40, "日本語 🙂"]
QUERY = "which planet is red"
ABSENT = ("torch", "transformers", "sentence_transformers", "huggingface_hub", "safetensors", "onnx", "onnxscript")
USE = """
import importlib.util, json, sys, time
start = time.perf_counter()
embedding, reranker, texts, query, absent = json.loads(sys.argv[1])
from embrief import Embedder, Reranker
embedder = Embedder(embedding).load()
took = time.perf_counter() - start
vectors = embedder.embed_documents(texts)
scores = Reranker(reranker).score(query, texts)
there = [name for name in absent if importlib.util.find_spec(name) is not None]
assert not there, there
print(json.dumps([embedder.space.id, vectors.tolist(), scores.tolist(), took]))
"""


def installed_bytes(python: Path) -> int:
    """Return what the environment's packages weigh, pip and its like left out."""
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    folder = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    files = (file for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if not file.relative_to(folder).parts[0].startswith("pip"))


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_model("embrief/tiny-embedding", folder / "embedding")
        export_model("embrief/tiny-reranker", folder / "reranker")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), f"{ROOT}[onnx]"], check=True)
        size = installed_bytes(python) // 2**20
        # tokenizers brings it, and needs it for downloads alone.
        subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", "huggingface_hub"], check=True)
        given = json.dumps([str(folder / "embedding"), str(folder / "reranker"), TEXTS, QUERY, ABSENT])
        for _ in range(2):
            # The second start is the one that counts: the first writes what Python compiles.
            done = subprocess.run(
                [str(python), "-c", USE, given], cwd=folder, capture_output=True, text=True, check=False
            )
        if done.returncode:
            print(f"export: it does not run with embrief[onnx] alone\n{done.stdout}{done.stderr}")
            return 1
        space, vectors, scores, took = json.loads(done.stdout)
        with Embedder("embrief/tiny-embedding", dtype="float32") as embedder:
            apart = np.abs(embedder.embed_documents(TEXTS) - np.array(vectors)).max()
            same = embedder.space.id == space
        with Reranker("embrief/tiny-reranker", dtype="float32") as judge:
            apart = max(apart, np.abs(judge.score(QUERY, TEXTS) - np.array(scores)).max())
    print(f"export: embrief[onnx] is {size} MiB; import and load take {took:.2f} s; {apart:.1e} from the original")
    return 0 if same and apart < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
