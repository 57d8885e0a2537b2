"""Rerankers on transformers: yes/no causal language models, and classifiers with one label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embrief.backends import torch_common
from embrief.backends.base import LoadRequest, RerankBackend, RunOptions, Scored, too_long
from embrief.errors import InputTooLongError, ModelMismatchError
from embrief.folders import read_modules, transformer_folder

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.prompts import RenderedPair
    from embrief.specs import RerankerSpec


class _Reranker:
    """Tokenising, batching and collecting; subclasses say how ids are made and scored."""

    def __init__(self, request: LoadRequest, tokenizer: Any, model: Any) -> None:
        self._spec = cast("RerankerSpec", request.spec)
        self._device = request.device
        self._tokenizer = tokenizer
        self._model = model

    def _ids(self, pairs: Sequence[RenderedPair], options: RunOptions) -> torch_common.Tokenized:
        raise NotImplementedError

    def _logits(self, ids: Any, mask: Any, types: Any) -> Any:
        raise NotImplementedError

    def score(self, pairs: Sequence[RenderedPair], options: RunOptions) -> Scored:
        """Return the log-odds of relevance of each pair."""
        import torch

        tokens = self._ids(pairs, options)
        logits = np.empty(len(pairs), np.float32)
        lengths = [len(row) for row in tokens.ids]
        pad_id = self._tokenizer.pad_token_id or 0
        for batch in torch_common.batches(lengths, options.batch_tokens, self._device):
            rows = [tokens.ids[index] for index in batch]
            ids, mask = torch_common.pad(rows, self._spec.padding_side, pad_id, self._device)
            types = None
            if tokens.types is not None:
                types, _ = torch_common.pad(
                    [tokens.types[index] for index in batch], self._spec.padding_side, 0, self._device
                )
            with torch.inference_mode():
                logits[batch] = self._logits(ids, mask, types).float().cpu().numpy()
            if options.on_progress:
                options.on_progress(len(batch))
        return Scored(logits, tokens.counts, tokens.truncated)

    def close(self) -> None:
        """Free the weights."""
        self._model = None
        torch_common.free(self._device)

    def _collect(self, ids: list[list[int]], full: list[int], options: RunOptions) -> torch_common.Tokenized:
        counts = np.array(full, np.int64)
        truncated = counts > options.max_tokens
        if options.refuse_long and truncated.any():
            index = int(np.argmax(truncated))
            raise too_long(index, int(counts[index]), options, "the query with the document")
        return torch_common.Tokenized([np.array(row, np.int32) for row in ids], counts, truncated)

    def _query_too_long(self, index: int, tokens: int, options: RunOptions) -> InputTooLongError:
        return InputTooLongError(
            f"the query of the pair at index {index} with its instruction and template has {tokens} tokens and leaves "
            f"no room for a document within the limit of {options.max_tokens}; shorten it or raise max_tokens (only "
            "documents are ever truncated)",
            index=index,
            tokens=tokens,
            limit=options.max_tokens,
        )


class YesNoReranker(_Reranker):
    """A causal language model that answers yes or no. The log-odds are logit(yes) - logit(no) at the last position."""

    def __init__(self, request: LoadRequest) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            transformer_folder(cast("Path", request.folder)),
            local_files_only=True,
            trust_remote_code=request.trust_remote_code,
        )
        super().__init__(request, tokenizer, _load(AutoModelForCausalLM, request))
        self._answers = [self._single(self._spec.false_token), self._single(self._spec.true_token)]
        self._check_head(cast("Path", request.folder))
        self._rows = self._model.get_output_embeddings().weight[self._answers].float()

    def _single(self, token: str) -> int:
        ids = self._tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelMismatchError(
                f"{self._spec.id} has no single token for {token!r} but {len(ids)}, so its answer cannot be read; "
                "this is not the tokenizer of a yes/no reranker"
            )
        return int(ids[0])

    def _check_head(self, folder: Path) -> None:
        """Refuse a folder whose own score head reads other tokens than the template's answers."""
        for kind, path in read_modules(folder) or ():
            if kind.rpartition(".")[2] == "LogitScore":
                head = json.loads((folder / path / "config.json").read_text("utf-8"))
                asked = [head.get("false_token_id"), head.get("true_token_id")]
                if asked != self._answers:
                    raise ModelMismatchError(
                        f"the score head of {self._spec.id} reads the tokens {asked} for no and yes, and the "
                        f"template's answers are {self._answers}; this reranker needs a record of its own"
                    )

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _ids(self, pairs: Sequence[RenderedPair], options: RunOptions) -> torch_common.Tokenized:
        """Cut the end of each document so that head, document and tail fit; the tail always stays whole."""
        parts = list(dict.fromkeys(part for pair in pairs for part in (pair.head, pair.tail)))
        known = dict(zip(parts, self._encode(parts), strict=True))
        # Head and document are tokenised in one piece: a byte-pair merge may cross the seam.
        bodies = self._encode([pair.head + pair.document for pair in pairs])
        for index, (pair, body) in enumerate(zip(pairs, bodies, strict=True)):
            head, tail = len(known[pair.head]), known[pair.tail]
            if len(body) + len(tail) > options.max_tokens and head + len(tail) >= options.max_tokens:
                raise self._query_too_long(index, head + len(tail), options)
        full = [len(body) + len(known[pair.tail]) for pair, body in zip(pairs, bodies, strict=True)]
        tails = [known[pair.tail] for pair in pairs]
        rows = [body[: options.max_tokens - len(tail)] + tail for body, tail in zip(bodies, tails, strict=True)]
        return self._collect(rows, full, options)

    def _logits(self, ids: Any, mask: Any, types: Any) -> Any:
        import torch

        hidden = self._model.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        last = hidden[torch.arange(len(ids)), -1 if self._spec.padding_side == "left" else mask.sum(1) - 1]
        # Two rows of the output layer instead of the whole vocabulary, in float32.
        no_and_yes = last.float() @ self._rows.T
        return no_and_yes[:, 1] - no_and_yes[:, 0]


class ClassifierReranker(_Reranker):
    """An encoder that reads query and document as a pair. The log-odds are its one logit."""

    def __init__(self, request: LoadRequest) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            transformer_folder(cast("Path", request.folder)),
            local_files_only=True,
            trust_remote_code=request.trust_remote_code,
        )
        super().__init__(request, tokenizer, _load(AutoModelForSequenceClassification, request))
        if self._model.config.num_labels != 1:
            raise ModelMismatchError(f"{self._spec.id} has {self._model.config.num_labels} labels; a reranker has one")

    def _ids(self, pairs: Sequence[RenderedPair], options: RunOptions) -> torch_common.Tokenized:
        heads = [pair.head for pair in pairs]
        documents = [pair.document for pair in pairs]
        # A query without a document shows whether there is room for one.
        queries = list(dict.fromkeys(heads))
        for query, ids in zip(queries, self._tokenizer(queries, [""] * len(queries))["input_ids"], strict=True):
            if len(ids) >= options.max_tokens:
                raise self._query_too_long(heads.index(query), len(ids), options)
        full = [len(row) for row in self._tokenizer(heads, documents, verbose=False)["input_ids"]]
        cut = self._tokenizer(heads, documents, truncation="only_second", max_length=options.max_tokens)
        rows = self._collect(cut["input_ids"], full, options)
        types = cut.get("token_type_ids")
        return rows if types is None else replace(rows, types=[np.array(row, np.int32) for row in types])

    def _logits(self, ids: Any, mask: Any, types: Any) -> Any:
        # BERT tells query from document by these; RoBERTa's family has none.
        extra = {} if types is None else {"token_type_ids": types}
        return self._model(input_ids=ids, attention_mask=mask, **extra).logits[:, 0]


def _load(kind: Any, request: LoadRequest) -> Any:
    import torch

    with torch_common.quiet_loading():
        model, report = kind.from_pretrained(
            transformer_folder(cast("Path", request.folder)),
            dtype=getattr(torch, request.dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=request.trust_remote_code,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        # transformers fills missing tensors with random numbers and only logs it.
        raise ModelMismatchError(
            f"the weights of {request.spec.id} lack {sorted(report['missing_keys'])}; they would be random. These are "
            "not the weights of this reranker"
        )
    return model.to(request.device).eval()


def load(request: LoadRequest) -> RerankBackend:
    """Load the kind of reranker that the record describes."""
    spec = cast("RerankerSpec", request.spec)
    return YesNoReranker(request) if spec.scoring == "yes_no" else ClassifierReranker(request)
