"""Texts to token ids with the model's own tokenizer.json; safe on several threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, normalizers

from embrief.errors import ModelMismatchError
from embrief.files.tokenizer_files import TOKEN_FLAGS
from embrief.system import exiting

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.specs import SpecialTokens

IdRow = NDArray[np.int32]
_BLOCK = 1024


class TextTokenizer:
    """A tokenizer that pads nothing and never cuts by itself. May be used from several threads."""

    def __init__(self, folder: Path, *, lower_case: bool = False, special_tokens: SpecialTokens = "parsed") -> None:
        """Read tokenizer.json.

        Args:
            folder: Where it is.
            lower_case: Whether texts are put into lower case first.
            special_tokens: Whether the names of special tokens in a text are those tokens, or letters as of `literal`.

        Raises:
            ModelMismatchError: It is no tokenizer.
        """
        file = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            # The library raises bare exceptions, whatever is wrong.
            raise ModelMismatchError(f"{file} is not a tokenizer ({error}); fetch or save the file again") from error
        self._tokenizer.encode_special_tokens = special_tokens == "text"
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
        self._twin: TextTokenizer | None = None
        probe = self._tokenizer.encode("a")
        mask = probe.special_tokens_mask
        start = mask.index(0) if 0 in mask else 0
        self.end = mask[::-1].index(0) if 0 in mask else 0
        """How many special tokens are put behind a text."""
        ids = np.array(probe.ids, np.int32)
        self.around: tuple[IdRow, IdRow] = (ids[:start], ids[len(ids) - self.end :])
        """The special tokens that are put in front of a text and behind it."""

    @property
    def reads_letters(self) -> bool:
        """Whether the names of special tokens in a text are letters."""
        return bool(self._tokenizer.encode_special_tokens)

    @property
    def literal(self) -> TextTokenizer:
        """The same tokenizer, but for the names of special tokens in a text, which are letters like all others.

        Added tokens that are not special stay what they are. Made when it is first asked for, which takes as long as
        reading the file.
        """
        if self.reads_letters:
            return self
        if self._twin is None:
            # Not by a switch of this one, which other threads use. Two threads may both make one, and either is right.
            tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
            tokenizer.encode_special_tokens = True
            self._twin = TextTokenizer.of(tokenizer)
        return self._twin

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

    def name(self, number: int) -> str:
        """Return how the token of an id is called."""
        return str(self._tokenizer.id_to_token(number))

    @cached_property
    def specials(self) -> dict[str, int]:
        """The ids of all special tokens by their names."""
        found = self._tokenizer.get_added_tokens_decoder().items()
        return {token.content: number for number, token in found if token.special}

    @cached_property
    def markers(self) -> frozenset[int]:
        """The ids of all special tokens, also where a text has them written in it."""
        return frozenset(self.specials.values())

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

    def check_nothing_around(self, label: str) -> None:
        """Refuse a tokenizer that puts special tokens around a text, where the template has all that there are.

        Raises:
            ModelMismatchError: It does: the last token, whose state is scored, would be another one.
        """
        if any(map(len, self.around)):
            number = int(np.concatenate(self.around)[-1])
            raise ModelMismatchError(
                f"the tokenizer of {label} puts the token {self.name(number)!r} around a text, as "
                "embedders do, and the score is read from the last token of the template; fetch tokenizer.json again, "
                "or save it without that post-processor"
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
