"""The tokenizer of a GGUF file, built from its vocabulary with the rules of its family."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from embrief.files.gguf import Vocabulary

# As Qwen's tokenizer.json has it; llama.cpp calls it qwen2.
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BLANK = "\u2581"
_UNKNOWN = "<unk>"


def build(vocabulary: Vocabulary) -> Tokenizer:
    """Return the tokenizer of a vocabulary. A second or two for Gemma's, less for Qwen's.

    Raises:
        ValueError: A merge joins what is no token.
    """
    from tokenizers import AddedToken, Tokenizer, models, processors

    tokens = list(vocabulary.tokens)
    if vocabulary.kind == "llama":
        # The converter writes blanks where the vocabulary has its sign for them.
        for number, special in vocabulary.added.items():
            if not special:
                tokens[number] = tokens[number].replace(" ", _BLANK)
    ids = {token: number for number, token in enumerate(tokens)}
    if vocabulary.kind == "gpt2":
        tokenizer = Tokenizer(models.BPE(ids, [_pair(merge) for merge in vocabulary.merges]))
        _read_as_qwen2(tokenizer)
    else:
        pairs = _merges(tokens, ids, vocabulary)
        tokenizer = Tokenizer(models.BPE(ids, pairs, unk_token=_UNKNOWN, fuse_unk=True, byte_fallback=True))
        _read_as_gemma(tokenizer)
    tokenizer.add_tokens(
        [AddedToken(tokens[number], special=special, normalized=False) for number, special in vocabulary.added.items()]
    )
    around = dict.fromkeys([*vocabulary.begin, *vocabulary.end])
    if around:
        template = [*(tokens[number] for number in vocabulary.begin), "$A", *(tokens[n] for n in vocabulary.end)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(tokens[number], number) for number in around]
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return tokenizer


def _read_as_qwen2(tokenizer: Tokenizer) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _read_as_gemma(tokenizer: Tokenizer) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Replace(" ", _BLANK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _merges(tokens: list[str], ids: dict[str, int], vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return all ways to make each token of two, the tokens of the best scores first: SentencePiece's rule as pairs.

    Added tokens go first, whatever the file says: the converter overwrites their scores.
    """
    found = []
    for number, token in enumerate(tokens):
        rank = 0.0 if number in vocabulary.added else -vocabulary.scores[number]
        size = len(token)
        for place in range(1, size):
            left = token[:place]
            if left in ids:
                right = token[place:]
                if right in ids:
                    found.append((rank, -place, place - size, left, right))
    # The same order of pairs as transformers makes of SentencePiece's file.
    found.sort(key=lambda pair: pair[:3])
    return [pair[3:] for pair in found]
