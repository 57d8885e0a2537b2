"""The tokenizer of both models: byte-level BPE as Qwen's, with a small lower-case vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

END = "<|endoftext|>"
SPECIALS = (END, "<|im_start|>", "<|im_end|>", "<think>", "</think>")
MARKS = ("Instruct: ", "\nQuery:", "\n<Query>: ", "<Instruct>: ", "\n<Document>: ")
"""Where the parts of the templates begin. A token each: so few layers learn little, and the template's bytes stay."""
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """Return a tokenizer of so many tokens, trained on texts."""
    tokenizer = Tokenizer(models.BPE())
    # The teacher is blind to case: twice the vocabulary would buy nothing.
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(MARKS),
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The answers of a reranker must be one token each.
    tokenizer.train_from_iterator([*texts, *["yes", "no"] * 1000], trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the vocabulary has {tokenizer.get_vocab_size()} tokens, not {size}: too little text")
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, *, ends: bool) -> None:
    """Write the files of a model's tokenizer.

    Args:
        tokenizer: What to write.
        folder: Where.
        ends: Whether every text ends with the end token, as for Qwen3-Embedding; the reranker's template has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = Tokenizer.from_str(tokenizer.to_str())
    if ends:
        end = (END, tokenizer.token_to_id(END))
        written.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", pair=f"$A $B {END}", special_tokens=[end]
        )
    written.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "pad_token": END,
        "padding_side": "left",
        "model_max_length": 1024,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
