"""The libraries, each called as people call it: embrief through its facades, sentence-transformers through its own."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embrief.errors import BackendError, MissingDependencyError
from embrief.system.installed import install_command, is_installed

if TYPE_CHECKING:
    from pathlib import Path

    from embrief import RuntimeOptions
    from embrief.bench.workloads import Workload
    from embrief.cache.options import CacheOptions
    from embrief.facts.specs import RerankerSpec

Result = NDArray[np.float32]
DEFAULT_BATCH = 32
"""What sentence-transformers takes unless told otherwise."""


class Runner(Protocol):
    """A loaded model."""

    def run(self, work: Workload, batch_size: int | None = None) -> Result:
        """Return (n, dim) unit vectors, or (n,) probabilities for pairs.

        Args:
            work: What to compute.
            batch_size: Texts per batch, for libraries that have such a setting.
        """

    def close(self) -> None:
        """Free the model."""


class EmbriefEmbedder:
    """An `Embedder`."""

    def __init__(
        self,
        model: Path,
        dtype: str,
        device: str,
        cache: CacheOptions | None = None,
        backend: str | RuntimeOptions = "engine",
    ) -> None:
        from embrief import Embedder

        self._model = Embedder(model, backend=backend, dtype=dtype, device=device, truncate="error", cache=cache).load()

    def run(self, work: Workload, batch_size: int | None = None) -> Result:
        """Return vectors. There is no batch size: batches are cut by tokens."""
        if work.singly:
            return np.stack([self._model.encode([text], role="query").vectors[0] for text in work.texts])
        result = self._model.encode(work.inputs, role="query" if work.role == "query" else "document")
        if result.token_counts is None or result.token_counts.tolist() != [len(row) for row in work.ids]:
            raise BackendError("embrief counts other tokens than the model's tokenizer; nothing can be compared")
        return result.vectors

    def info(self) -> dict[str, Any]:
        """Return what runs the model."""
        return self._model.info()

    def close(self) -> None:
        """Free the model."""
        self._model.close()


class EmbriefReranker:
    """A `Reranker`."""

    def __init__(self, model: Path, dtype: str, device: str, backend: str | RuntimeOptions = "engine") -> None:
        from embrief import Reranker

        self._model = Reranker(model, backend=backend, dtype=dtype, device=device, truncate="error").load()

    def run(self, work: Workload, batch_size: int | None = None) -> Result:
        """Return probabilities. There is no batch size: batches are cut by tokens."""
        return self._model.score(work.query, work.inputs)

    def info(self) -> dict[str, Any]:
        """Return what runs the model."""
        return self._model.info()

    def close(self) -> None:
        """Free the model."""
        self._model.close()


class PlainEmbedder:
    """A `SentenceTransformer`."""

    def __init__(self, folder: Path, dtype: str | None, device: str) -> None:
        require_sentence_transformers()
        from sentence_transformers import SentenceTransformer

        with quiet():
            self._model: Any = SentenceTransformer(
                str(folder), device=device, model_kwargs={"dtype": dtype} if dtype else None, local_files_only=True
            )

    @property
    def dtype(self) -> str:
        """The number format it computes in."""
        return dtype_of(self._model)

    def run(self, work: Workload, batch_size: int | None = None) -> Result:
        """Return vectors."""
        size = batch_size or DEFAULT_BATCH
        calls = [[text] for text in work.rendered] if work.singly else [list(work.rendered)]
        # The texts hold their prompt already; an empty one keeps the folder's own default away.
        found = [
            self._model.encode(call, batch_size=size, prompt="", normalize_embeddings=True, show_progress_bar=False)
            for call in calls
        ]
        return np.concatenate(found).astype(np.float32)

    def ids(self, work: Workload) -> list[list[int]]:
        """Return the token ids that reach the model."""
        return _unpadded(self._model.preprocess, list(work.rendered))

    def close(self) -> None:
        """Free the model."""
        self._model = None
        collect()


class PlainReranker:
    """A `CrossEncoder` on a causal language model, with a chat template that gives the model's own prompt."""

    def __init__(self, folder: Path, dtype: str | None, device: str) -> None:
        require_sentence_transformers()
        from sentence_transformers import CrossEncoder
        from torch.nn import Sigmoid

        from embrief import Reranker

        with Reranker(folder) as reranker:
            template = chat_template(reranker.spec)
        with quiet():
            self._model: Any = CrossEncoder(
                str(folder),
                device=device,
                model_kwargs={"dtype": dtype} if dtype else None,
                processor_kwargs={"chat_template": template},
                # The score of a causal model is a log-odds; embrief gives its probability.
                activation_fn=Sigmoid(),
                local_files_only=True,
            )

    @property
    def dtype(self) -> str:
        """The number format it computes in."""
        return dtype_of(self._model)

    def run(self, work: Workload, batch_size: int | None = None) -> Result:
        """Return probabilities."""
        pairs = [(work.query, text) for text in work.texts]
        scores: Result = self._model.predict(pairs, batch_size=batch_size or DEFAULT_BATCH, show_progress_bar=False)
        return scores

    def ids(self, work: Workload) -> list[list[int]]:
        """Return the token ids that reach the model."""
        return _unpadded(self._model.preprocess, [(work.query, text) for text in work.texts])

    def close(self) -> None:
        """Free the model."""
        self._model = None
        collect()


def require_sentence_transformers() -> None:
    """Refuse to go on without the library everything is compared with.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if not is_installed("sentence_transformers"):
        raise MissingDependencyError(f"embrief bench compares with sentence-transformers: {install_command('torch')}")


class Plain(Runner, Protocol):
    """What embrief is compared with."""

    @property
    def dtype(self) -> str:
        """The number format it computes in."""
        ...

    def ids(self, work: Workload) -> list[list[int]]:
        """Return the token ids that reach the model."""
        ...


def check_ids(work: Workload, plain: Plain) -> None:
    """Refuse to compare libraries that see different tokens.

    Raises:
        BackendError: A text has other ids; its index and the first difference are named.
    """
    for index, (ours, theirs) in enumerate(zip(work.ids, plain.ids(work), strict=True)):
        if list(ours) != theirs:
            place = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            where = f"first at position {place}" if place is not None else "one is a part of the other"
            raise BackendError(
                f"sentence-transformers gives text {index} {len(theirs)} tokens and the model's tokenizer.json "
                f"{len(ours)} ({where}); speeds on different tokens say nothing. Check that tokenizer.json, "
                "tokenizer_config.json and sentence_bert_config.json belong together"
            )


def chat_template(spec: RerankerSpec) -> str:
    """Return a Jinja template with the roles `query` and `document` that gives a rerank prompt byte for byte."""
    before, after = spec.template.head.split("{query}")
    instruction = json.dumps(spec.default_instruction or "")
    parts = [json.dumps(part) for part in before.split("{instruction}")]
    return (
        "{%- for message in messages -%}"
        f"{{%- if message['role'] == 'query' -%}}{{{{- {f' + {instruction} + '.join(parts)} + message['content'] -}}}}"
        f"{{%- elif message['role'] == 'document' -%}}"
        f"{{{{- {json.dumps(after)} + message['content'] + {json.dumps(spec.template.tail)} -}}}}"
        "{%- endif -%}{%- endfor -%}"
    )


def dtype_of(model: Any) -> str:
    """Return the number format of a model of torch."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def _unpadded(preprocess: Any, inputs: Sequence[Any]) -> list[list[int]]:
    found: list[list[int]] = []
    for item in inputs:
        features = preprocess([item])
        kept = features["attention_mask"][0].bool()
        found.append(features["input_ids"][0][kept].tolist())
    return found


def collect() -> None:
    """Free what closed models held."""
    import gc

    import torch

    # Loaded models contain reference cycles.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars, warnings and logs of other libraries out of the table."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in ("transformers", "sentence_transformers")}
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
