"""The built-in runtimes as discovery sees them: what they are called, and what they offer and refuse.

What runs them is imported when a model is loaded: numpy alone takes longer than all that `embrief models` does besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embrief.errors import ArgumentError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.config_keys import ARCHITECTURES, SEEING, text_part
from embrief.runtimes.base import Offer, Refusal, Runtime
from embrief.runtimes.engine_options import EngineOptions
from embrief.runtimes.gguf import GgufRuntime
from embrief.runtimes.mistralrs import MistralRs
from embrief.runtimes.onnx import OnnxRuntime
from embrief.runtimes.openvino import OpenVinoRuntime
from embrief.system.installed import install_command, is_installed

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec
    from embrief.files.model_files import ModelFiles
    from embrief.runtimes.base import Ask, LoadRequest, Model

_ENGINE_MODULES = {"Transformer", "Pooling", "Dense", "Normalize", "Dropout", "LogitScore"}


def _not_here(spec: ModelSpec) -> Refusal | None:
    """Refuse a model whose files are not loaded on this machine, or that nobody knows enough of."""
    if spec.elsewhere is not None:
        return Refusal("loads models from their files")
    if isinstance(spec, EmbeddingSpec) and spec.pooling is None:
        return Refusal("loads models whose pooling is known, and this record does not say it")
    return None


class Engine(Runtime):
    """Our own executor."""

    name = "engine"
    requires = ("torch", "tokenizers", "safetensors")
    install = install_command("torch")
    preference = 10
    dtypes = (*Runtime.dtypes, "int8")
    Options = EngineOptions

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer what its description of the architecture covers; in int8 on CPUs only."""
        if (refusal := _not_here(spec)) is not None:
            return refusal
        if spec.architecture not in ARCHITECTURES:
            return Refusal(f"runs {' and '.join(ARCHITECTURES)}, not {spec.architecture!r}")
        if isinstance(spec, EmbeddingSpec) and spec.pooling not in ("last", "mean"):
            return Refusal(f"has no pooling {spec.pooling!r}")
        if isinstance(spec, RerankerSpec) and spec.scoring == "classifier":
            return Refusal("runs no classifiers")
        if ask.files is not None and (reason := _engine_refusal(ask.files)) is not None:
            return Refusal(reason, "files")
        device, dtype = self._resolve(spec, ask) if ask.final else (ask.device, ask.dtype)
        return Offer(
            device=device,
            dtype=dtype,
            artifact=spec.safetensors,
            images=spec.images is not None and spec.architecture in SEEING,
            plain_text=True,
        )

    @staticmethod
    def _resolve(spec: ModelSpec, ask: Ask) -> tuple[str, str]:
        """Return device and number format; where 8 bits of a weight do not add up right, int8 becomes int7."""
        if ask.dtype != "int8":
            return _torch_resolve(spec, ask.device, ask.dtype)
        device, between = _torch_resolve(spec, ask.device, "auto")
        if device != "cpu":
            raise ArgumentError(f"dtype='int8' runs on the CPU only, not on {device}; use dtype='auto' or device='cpu'")
        import torch

        from embrief.engine.linear import int8_format

        return device, int8_format(getattr(torch, between))

    def load(self, request: LoadRequest) -> Model:
        """Load a model from its safetensors."""
        from embrief.runtimes.engine import EngineEmbedder, EngineReranker

        return EngineEmbedder(request) if isinstance(request.spec, EmbeddingSpec) else EngineReranker(request)


def _engine_refusal(files: ModelFiles) -> str | None:
    """Say why the engine does not run these files, `None` if it does."""
    from embrief.engine.description import DENSE_ACTIVATIONS, UnsupportedError, dense_activation, describe

    if "auto_map" in files.config:
        return "runs no code that comes with a model"
    try:
        describe(files.config)
    except UnsupportedError as error:
        return str(error)
    if unknown := sorted(set(files.kinds) - _ENGINE_MODULES):
        return f"has no module {unknown[0]}"
    for config in files.module_config("Dense"):
        if dense_activation(config) not in DENSE_ACTIVATIONS:
            return f"has no Dense layer with {config.get('activation_function')}"
        if config.flag("use_residual"):
            return "has no Dense layer with use_residual"
    if not (files.base / "tokenizer.json").is_file():
        return "reads tokenizer.json, which is not there"
    return None


_WIDEST_HASH = 65536


class Hashing(Runtime):
    """Feature hashing, for the one model that is nothing else."""

    name = "hash"

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer `embrief/hash` and its like; they are made of nothing."""
        if spec.architecture != "hash" or not isinstance(spec, EmbeddingSpec):
            return Refusal("runs the lexical model only")
        if max(spec.dim, spec.mrl[-1] if spec.mrl else 0) > _WIDEST_HASH:
            return Refusal(f"chooses a value by 16 bits, so vectors have at most {_WIDEST_HASH} values")
        if ask.device not in ("auto", "cpu") or ask.dtype not in ("auto", "float32"):
            asked = f"device={ask.device!r} and dtype={ask.dtype!r}"
            return Refusal(f"runs on the CPU in float32 only, not with {asked}", "request")
        return Offer(device="cpu", dtype="float32", native_dims=True)

    def load(self, request: LoadRequest) -> Model:
        """Return the model; there is nothing to load."""
        from embrief.runtimes.hashing import HashBackend

        assert isinstance(request.spec, EmbeddingSpec)  # it has offered nothing else
        return HashBackend(request.spec)


class SentenceTransformers(Runtime):
    """sentence-transformers and transformers: whatever they run."""

    name = "sentence-transformers"
    requires = ("torch", "transformers", "sentence_transformers")
    install = install_command("torch")
    # It takes anything, so every runtime that knows a model better goes first.
    preference = -10

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer everything: what the installed transformers knows cannot be told without importing it."""
        if spec.architecture == "hash":
            return Refusal("runs models with weights")
        if (refusal := _not_here(spec)) is not None:
            return refusal
        if spec.images is not None:
            return Refusal(
                "is given texts in one piece with their prompt, in which the name of a special token forges a picture "
                "or the end of a turn"
            )
        # It loads the processors of all parts, also for texts; that of videos needs this.
        towers = ask.files is not None and text_part(ask.files.config) is not ask.files.config
        if towers and not is_installed("torchvision"):
            return Refusal("loads models that read pictures with torchvision, which is not installed", "files")
        device, dtype = _torch_resolve(spec, ask.device, ask.dtype) if ask.final else (ask.device, ask.dtype)
        return Offer(device=device, dtype=dtype, artifact=spec.safetensors)

    def load(self, request: LoadRequest) -> Model:
        """Load a model from its safetensors."""
        if isinstance(request.spec, EmbeddingSpec):
            from embrief.runtimes.sentence_transformers import SentenceTransformersEmbedder

            return SentenceTransformersEmbedder(request)
        from embrief.runtimes.transformers_rerank import load

        return load(request)


def _torch_resolve(spec: ModelSpec, device: str, dtype: str) -> tuple[str, str]:
    from embrief.runtimes.torch_common import resolve

    return resolve(spec, device, dtype)


RUNTIMES: tuple[Runtime, ...] = (
    Engine(),
    Hashing(),
    GgufRuntime(),
    OnnxRuntime(),
    OpenVinoRuntime(),
    SentenceTransformers(),
    MistralRs(),
)
