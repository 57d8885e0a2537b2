"""The local runtime: sentence-transformers and transformers on torch.

Runs every recorded architecture. sentence-transformers loads the modules; prompts, tokenising, batching, cutting and
normalising are this library's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from embrief.errors import ModelMismatchError
from embrief.facts.prompts import Rendered
from embrief.facts.values import Dense
from embrief.files.folders import stored_tensors
from embrief.files.modules import transformer_folder
from embrief.files.tensors import BUFFERS_AND_HEADS
from embrief.runtimes import torch_common
from embrief.runtimes.base import Batched, LoadRequest, Prepared, RunOptions, Token

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from embrief.facts.specs import EmbeddingSpec, Kind
    from embrief.facts.values import Values


class SentenceTransformersEmbedder(Batched):
    """An embedding model held by sentence-transformers."""

    padded = True

    def __init__(self, request: LoadRequest) -> None:
        self._spec = cast("EmbeddingSpec", request.spec)
        self._device = request.device
        self.batch_tokens = torch_common.batch_tokens(request.device)
        torch_common.check_named_tokens(cast("Path", request.folder))
        with torch_common.quiet_loading(), torch_common.loading_errors(self._spec.id):
            model = _load_modules(request, self._spec)
        _check_tensors(model[0].model, transformer_folder(cast("Path", request.folder)), self._spec)
        self._tokenizer = model.tokenizer
        beyond = torch_common.beyond(self._tokenizer, model[0].model)
        torch_common.check_vocabulary(beyond, self._spec.id)
        self._rows = model[0].model.get_input_embeddings().weight.shape[0] if beyond else None
        self._modules = [module.eval() for module in model]
        # The last normalising is left to `vectors.finish`, which does it after the cut and in float32.
        while type(self._modules[-1]).__name__ in ("Normalize", "Dropout"):
            self._modules.pop()
        torch_common.append_final_token(self._tokenizer, self._spec)
        torch_common.check_final_token(self._tokenizer, self._spec)
        self._encode = partial(torch_common.encode, self._tokenizer)
        self._end = torch_common.final_tokens(self._tokenizer, "probe")
        width = self.run([Rendered("", "probe")], RunOptions(max_tokens=8)).array("dense").shape[1]
        if width != self._spec.dim:
            raise ModelMismatchError(
                f"{self._spec.id} gives {width} values per vector, its record says {self._spec.dim}"
            )

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Return the token ids of each text."""
        tokens = torch_common.tokenize(self._encode, self._end, inputs, options)
        if self._rows is not None:
            torch_common.check_known(tokens.ids, self._rows, self._spec.id)
        return Prepared(tokens.ids, tokens.sizes, tokens.counts, tokens.truncated)

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of texts. What is computed takes the tokenizer's other face, whose ids are the same."""
        from tokenizers import Tokenizer

        from embrief.engine.tokens import TextTokenizer
        from embrief.runtimes.marking import marked_texts

        # A copy: its padding and cutting are switched off.
        return marked_texts(TextTokenizer.of(Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())), inputs)

    def run_rows(self, rows: Sequence[torch_common.IdRow], kinds: tuple[Kind, ...]) -> dict[Kind, Values]:
        """Return the pooled vector of each row."""
        import torch

        side = self._spec.padding_side or "right"
        ids, mask = torch_common.pad(rows, side, self._tokenizer.pad_token_id or 0, self._device)
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        with torch.inference_mode():
            for module in self._modules:
                features = module(features)
            vectors: NDArray[Any] = features["sentence_embedding"].float().cpu().numpy()
        return {"dense": Dense(vectors)}

    def close(self) -> None:
        """Free the weights."""
        self._modules = []
        torch_common.free(self._device)


def _load_modules(request: LoadRequest, spec: EmbeddingSpec) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = cast("Path", request.folder)
    settings = {"dtype": getattr(torch, request.dtype), "use_safetensors": True}
    if (folder / "modules.json").is_file():
        return SentenceTransformer(
            str(folder),
            device=request.device,
            model_kwargs=settings,
            trust_remote_code=request.trust_remote_code,
            local_files_only=True,
        )
    # Left alone, sentence-transformers would fall back to mean pooling here.
    modes: dict[str | None, str] = {"last": "lasttoken", "mean": "mean", "cls": "cls"}
    transformer = Transformer(
        str(folder),
        model_kwargs=settings,
        processor_kwargs={"local_files_only": True},
        config_kwargs={"trust_remote_code": request.trust_remote_code},
    )
    return SentenceTransformer(
        modules=[transformer, Pooling(spec.dim, pooling_mode=modes[spec.pooling])], device=request.device
    )


def _check_tensors(model: Any, folder: Path, spec: EmbeddingSpec) -> None:
    """Refuse a checkpoint that lacks tensors or has others: transformers only logs it.

    Missing ones are random numbers then, and without the surplus ones it is another model.
    """
    stored = stored_tensors(folder)
    state = model.state_dict()
    prefix = f"{model.base_model_prefix}."
    # Old names of layer norms; and the same model comes with and without its class's prefix.
    places = {name: re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name)) for name in stored}
    places = {name: place if place in state else place.removeprefix(prefix) for name, place in places.items()}
    found = set(places.values())
    # A tied tensor is stored under one of its names.
    there = {state[name].data_ptr() for name in state if name in found}
    # BERT's own pooler is not part of an embedding model, and many checkpoints leave it out.
    missing = [
        name
        for name, tensor in state.items()
        if name not in found and tensor.data_ptr() not in there and not name.startswith("pooler.")
    ]
    surplus = [name for name, place in places.items() if place not in state]
    torch_common.check_tensor_names(missing, surplus, spec.id, unused=BUFFERS_AND_HEADS)
