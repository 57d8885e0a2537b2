"""A tokenizer for a checkpoint of random weights: byte-level BPE, trained on docstrings of the standard library."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from embrief.bench.tower import SPECIALS

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.bench.shapes import Kind, Shape

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
_VISION_SPECIALS = (*_QWEN_SPECIALS[:3], *SPECIALS)
_GEMMA_SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>")


@lru_cache(maxsize=1)
def docstrings() -> tuple[str, ...]:
    """Return docstrings of this interpreter's standard library: English text that every machine has."""
    from embrief.evaluation.corpus import read_corpus

    return tuple(entry.text for entry in read_corpus(2500))


def write_tokenizer(shape: Shape, kind: Kind, folder: Path) -> dict[str, int]:
    """Train a tokenizer and write its files, laid out as the published model has them.

    Returns:
        The ids of its special tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    gemma = shape.family not in ("qwen3", "qwen3_vl")
    specials = _GEMMA_SPECIALS if gemma else _QWEN_SPECIALS if shape.tower is None else _VISION_SPECIALS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.pieces,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A reranker's answers must be one token each.
    tokenizer.train_from_iterator([*docstrings(), *["yes", "no"] * 500], trainer)
    pair: tuple[str, str] | None = None
    if gemma:
        pair = ("<bos> $A <eos>", "<bos> $A <eos> <bos>:1 $B:1 <eos>:1")
    elif kind == "embedder":
        pair = ("$A <|endoftext|>", "$A $B <|endoftext|>")
    if pair is not None:
        known = [(token, tokenizer.token_to_id(token)) for token in specials]
        tokenizer.post_processor = processors.TemplateProcessing(single=pair[0], pair=pair[1], special_tokens=known)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if gemma:
        settings |= {
            "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
            "padding_side": "right", "model_max_length": shape.context,
        }  # fmt: skip
    else:
        settings |= {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "model_max_length": 131072}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return {token: number for token in specials if (number := tokenizer.token_to_id(token)) is not None}
