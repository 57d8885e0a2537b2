"""Other local engines for the same weights, for `embrief bench` to measure beside embrief.

None of them is a dependency of embrief: what is installed is measured, the rest is left out.

    pip install llama-cpp-python gguf                  # compiled for this machine; needs a C++ compiler
    pip install mistralrs
    pip install openvino nncf                          # nncf: the int8 variants
    pip install onnxruntime onnx onnxscript            # onnx, onnxscript: torch's exporter and the quantiser

Each gets a checkpoint folder laid out like Qwen/Qwen3-Embedding-0.6B, and is brought into the form that it wants
in a temporary folder that `close()` removes.
"""

from __future__ import annotations

from embrief.bench.peer import Peer
from embrief.bench.peers import llama, mistral, onnx, vino


def available() -> list[Peer]:
    """Return every variant of every peer that is installed; imports none of them."""
    return [
        Peer(module.NAME, variant.name, version, variant.load, variant.note)
        for module in (llama, mistral, vino, onnx)
        if (version := module.installed_version())
        for variant in module.variants()
    ]
