"""Rerankers on transformers: yes/no causal language models, and classifiers with one label."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embrief.errors import ModelMismatchError
from embrief.facts.values import Scores
from embrief.files.modules import transformer_folder
from embrief.files.tensors import BUFFERS, BUFFERS_AND_HEADS
from embrief.runtimes import torch_common
from embrief.runtimes.base import Batched, LoadRequest, Model, Prepared, RunOptions
from embrief.runtimes.rerank_common import check_score_head, pair_ids, query_too_long, refuse_long_pairs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Kind, RerankerSpec
    from embrief.facts.values import Values


class _Reranker(Batched):
    """Preparing and padding; subclasses say how ids are made and scored."""

    padded = True

    def __init__(self, request: LoadRequest, tokenizer: Any, model: Any) -> None:
        self._spec = cast("RerankerSpec", request.spec)
        self._device = request.device
        self.batch_tokens = torch_common.batch_tokens(request.device)
        self._tokenizer = tokenizer
        self._model = model
        torch_common.check_vocabulary(torch_common.beyond(tokenizer, model), self._spec.id)

    def _ids(self, pairs: Sequence[Rendered], options: RunOptions) -> torch_common.Tokenized:
        raise NotImplementedError

    def _logits(self, ids: Any, mask: Any, types: Any) -> Any:
        raise NotImplementedError

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Return the token ids of each pair, and which part each belongs to if the model is told."""
        tokens = self._ids(inputs, options)
        rows = list(zip(tokens.ids, tokens.types or repeat(None), strict=False))
        return Prepared(rows, tokens.sizes, tokens.counts, tokens.truncated)

    def run_rows(
        self, rows: Sequence[tuple[torch_common.IdRow, torch_common.IdRow | None]], kinds: tuple[Kind, ...]
    ) -> dict[Kind, Values]:
        """Return the log-odds of relevance of each row."""
        import torch

        side, pad_id = self._spec.padding_side or "right", self._tokenizer.pad_token_id or 0
        ids, mask = torch_common.pad([row for row, _ in rows], side, pad_id, self._device)
        parts = [part for _, part in rows if part is not None]
        types = torch_common.pad(parts, side, 0, self._device)[0] if parts else None
        with torch.inference_mode():
            logits: NDArray[Any] = self._logits(ids, mask, types).float().cpu().numpy()
        return {"score": Scores(logits)}

    def close(self) -> None:
        """Free the weights."""
        self._model = None
        torch_common.free(self._device)


class _TemplateReranker(_Reranker):
    """A decoder that reads a template around the pair; what it makes of the last position is the score."""

    _direction: Any
    """The direction of relevance in that position's state, float32."""

    def _encode(self, texts: Sequence[str]) -> list[torch_common.IdRow]:
        found = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [np.array(row, np.int32) for row in found]

    def _ids(self, pairs: Sequence[Rendered], options: RunOptions) -> torch_common.Tokenized:
        return pair_ids(pairs, self._encode, options)[0]

    def _logits(self, ids: Any, mask: Any, types: Any) -> Any:
        import torch

        hidden = self._model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        last = hidden[torch.arange(len(ids)), -1 if self._spec.padding_side == "left" else mask.sum(1) - 1]
        # One product instead of the whole vocabulary, in float32.
        return last.float() @ self._direction


class YesNoReranker(_TemplateReranker):
    """A causal language model that answers yes or no. The log-odds are logit(yes) - logit(no) at the last position."""

    def __init__(self, request: LoadRequest) -> None:
        from transformers import AutoModelForCausalLM

        super().__init__(request, _load_tokenizer(request), _load(AutoModelForCausalLM, request))
        no, yes = self._single(self._spec.false_token), self._single(self._spec.true_token)
        check_score_head(cast("Path", request.folder), self._spec.id, no=no, yes=yes)
        table = self._model.get_output_embeddings().weight
        self._direction = table[yes].float() - table[no].float()

    def _single(self, token: str) -> int:
        ids = self._tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelMismatchError(
                f"{self._spec.id} has no single token for {token!r} but {len(ids)}, so its answer cannot be read; "
                "this is not the tokenizer of a yes/no reranker"
            )
        return int(ids[0])


class LabelReranker(_TemplateReranker):
    """A decoder with a layer for one label. The log-odds are its logit at the last position."""

    def __init__(self, request: LoadRequest) -> None:
        from transformers import AutoModelForSequenceClassification

        super().__init__(request, _load_tokenizer(request), _load(AutoModelForSequenceClassification, request))
        self._direction = self._model.score.weight[0].float()


class ClassifierReranker(_Reranker):
    """An encoder that reads query and document as a pair. The log-odds are its one logit."""

    def __init__(self, request: LoadRequest) -> None:
        from transformers import AutoModelForSequenceClassification

        super().__init__(request, _load_tokenizer(request), _load(AutoModelForSequenceClassification, request))
        self._end = torch_common.final_tokens(self._tokenizer, "probe", "probe")

    def _ids(self, pairs: Sequence[Rendered], options: RunOptions) -> torch_common.Tokenized:
        heads = [pair.head for pair in pairs]
        documents = [pair.words for pair in pairs]
        # A query without a document shows whether there is room for one.
        queries = list(dict.fromkeys(heads))
        for query, ids in zip(queries, self._tokenizer(queries, [""] * len(queries))["input_ids"], strict=True):
            if len(ids) >= options.max_tokens:
                raise query_too_long(heads.index(query), len(ids), options)
        found = self._tokenizer(heads, documents, verbose=False)
        rows = [np.array(row, np.int32) for row in found["input_ids"]]
        types = [np.array(row, np.int32) for row in found["token_type_ids"]] if "token_type_ids" in found else None
        full = [len(row) for row in rows]
        for column in (rows,) if types is None else (rows, types):
            for index, tokens in enumerate(full):
                if tokens > options.max_tokens:
                    column[index] = torch_common.cut(column[index], options.max_tokens, self._end)
        refuse_long_pairs(full, options)
        counts = np.array(full, np.int64)
        return torch_common.Tokenized(rows, counts, counts > options.max_tokens, types)

    def _logits(self, ids: Any, mask: Any, types: Any) -> Any:
        # BERT tells query from document by these; RoBERTa's family has none.
        extra = {} if types is None else {"token_type_ids": types}
        return self._model(input_ids=ids, attention_mask=mask, **extra).logits[:, 0]


def _load_tokenizer(request: LoadRequest) -> Any:
    from transformers import AutoTokenizer

    torch_common.check_named_tokens(cast("Path", request.folder))
    return AutoTokenizer.from_pretrained(
        transformer_folder(cast("Path", request.folder)),
        local_files_only=True,
        trust_remote_code=request.trust_remote_code,
    )


def _load(kind: Any, request: LoadRequest) -> Any:
    import torch

    with torch_common.quiet_loading(), torch_common.loading_errors(request.spec.id):
        model, report = kind.from_pretrained(
            transformer_folder(cast("Path", request.folder)),
            dtype=getattr(torch, request.dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=request.trust_remote_code,
            output_loading_info=True,
        )
    # An answer passes the output layer, a classifier's score does not.
    unused = BUFFERS if cast("RerankerSpec", request.spec).scoring == "yes_no" else BUFFERS_AND_HEADS
    torch_common.check_tensor_names(report["missing_keys"], report["unexpected_keys"], request.spec.id, unused=unused)
    return model.to(request.device).eval()


def load(request: LoadRequest) -> Model:
    """Load the kind of reranker that the record describes."""
    spec = cast("RerankerSpec", request.spec)
    kinds = {"yes_no": YesNoReranker, "label": LabelReranker, "classifier": ClassifierReranker}
    return kinds[spec.scoring](request)
