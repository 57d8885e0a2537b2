"""Texts to token ids with the model's own tokenizer.json; safe on several threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, normalizers

from embrief.errors import ModelMismatchError
from embrief.files.tokenizer_files import TOKEN_FLAGS
from embrief.system import exiting

if TYPE_CHECKING:
    from pathlib import Path

IdRow = NDArray[np.int32]
_BLOCK = 1024


class TextTokenizer:
    """A tokenizer that pads nothing and never cuts by itself. May be used from several threads."""

    def __init__(self, folder: Path, *, lower_case: bool = False) -> None:
        file = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            # The library raises bare exceptions, whatever is wrong.
            raise ModelMismatchError(f"{file} is not a tokenizer ({error}); fetch or save the file again") from error
        self._settle(lower_case=lower_case)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TextTokenizer:
        """Return one that is already in memory, made from another kind of file."""
        made = cls.__new__(cls)
        made._tokenizer = tokenizer
        made._settle(lower_case=False)
        return made

    def _settle(self, *, lower_case: bool) -> None:
        # Some files have both switched on.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if lower_case:
            self._lower_case()
        mask = self._tokenizer.encode("a").special_tokens_mask
        self.end = mask[::-1].index(0) if 0 in mask else 0
        """How many special tokens are put behind a text."""

    def _lower_case(self) -> None:
        """Put texts into lower case first, unless the tokenizer does it already; as sentence-transformers does."""
        own = self._tokenizer.normalizer
        steps = list(cast("Sequence[Any]", own)) if isinstance(own, normalizers.Sequence) else [own] if own else []
        if not any(isinstance(step, normalizers.Lowercase) for step in steps):
            self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])

    def added(self) -> dict[str, tuple[int, tuple[bool, ...]]]:
        """Return the added tokens of tokenizer.json: the id of each and its `TOKEN_FLAGS`."""
        found = self._tokenizer.get_added_tokens_decoder().items()
        return {token.content: (number, tuple(getattr(token, flag) for flag in TOKEN_FLAGS)) for number, token in found}

    def beyond(self, size: int) -> list[str]:
        """Return the tokens whose ids are no rows of a table of this size."""
        tokens = self._tokenizer
        # One by one: the whole vocabulary as a dictionary would hold up other threads for a noticeable time.
        below = sum(tokens.id_to_token(number) is not None for number in range(size))
        found: set[str] = set()
        if below != tokens.get_vocab_size():
            found = {token for token, number in tokens.get_vocab().items() if number >= size}
        # The post-processor has ids of its own.
        found |= {f"id {number}" for number in self.whole([""])[0] if number >= size} if not found else set()
        return sorted(found)

    def whole(self, texts: Sequence[str]) -> list[IdRow]:
        """Return the ids of each text with its special tokens."""
        return self._encode(texts, special=True)

    def plain(self, texts: Sequence[str]) -> list[IdRow]:
        """Return the ids of each text alone."""
        return self._encode(texts, special=False)

    def encodings(self, texts: Sequence[str], *, special: bool) -> list[Encoding]:
        """Return the tokens of each text with their places; `special`: with those that are put around it."""
        found: list[Encoding] = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return found

    @property
    def markers(self) -> frozenset[int]:
        """The ids of all special tokens, also where a text has them written in it."""
        found = self._tokenizer.get_added_tokens_decoder().items()
        return frozenset(number for number, token in found if token.special)

    def single(self, token: str, label: str) -> int:
        """Return the one id of a short text.

        Raises:
            ModelMismatchError: It has none, or several.
        """
        ids = self.plain([token])[0]
        if len(ids) != 1:
            raise ModelMismatchError(
                f"{label} has no single token for {token!r} but {len(ids)}, so its answer cannot be read; this is not "
                "the tokenizer of a yes/no reranker"
            )
        return int(ids[0])

    def check_final_token(self, token: str | None, label: str) -> None:
        """Check that every input ends with the token that the model pools or was trained with.

        Raises:
            ModelMismatchError: It does not; vectors would look healthy and rank badly.
        """
        if token is None:
            return
        expected = self._tokenizer.token_to_id(token)
        last = self.whole(["probe"])[0][-1]
        if expected is None or last != expected or not self.end:
            raise ModelMismatchError(
                f"the tokenizer of {label} ends a text with token {last}, but the model was trained with {token!r} "
                f"({expected}) at the end; fetch tokenizer.json again, or save it with the post-processor that appends "
                "this token"
            )

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[IdRow]:
        rows: list[IdRow] = []
        # In blocks: as lists of Python integers a large corpus would take gigabytes.
        for start in range(0, len(texts), _BLOCK):
            exiting.stop_between()
            found: list[Encoding] = self._tokenizer.encode_batch_fast(
                list(texts[start : start + _BLOCK]), add_special_tokens=special
            )
            rows += [np.array(item.ids, np.int32) for item in found]
        return rows
