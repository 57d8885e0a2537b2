"""Comparing two ways to run one model, and naming the cause where they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.errors import ArgumentError, EmbriefError, WrongKindError
from embrief.facades.embedder import Embedder
from embrief.parity.probe import (
    EDGES,
    EMPTY,
    OTHER_END,
    OVER_257,
    OVER_512,
    QUERIES,
    SHORT,
    Probe,
    bare,
    ladder,
    options_of,
    probes,
    rendered,
    special,
)
from embrief.parity.published import PUBLISHED
from embrief.parity.report import Finding, ParityReport
from embrief.parity.variants import pooled_otherwise, without_dense
from embrief.serving.jobs import Request

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import Model

    Vector = NDArray[np.float64]

SAME = 1 - 1e-6
"""Cosine above which two vectors are one: a text that makes no difference."""
TOLERANCES = {"float32": 0.9999, "bfloat16": 0.995, "float16": 0.999}
"""Least cosine of the same model, by the less exact number format of the two."""
EIGHT_BITS = 0.99
SERVER = 0.999
"""Of a server, which does not say what it computes in."""


def check_parity(
    embedder: Embedder, reference: Embedder | None = None, *, tolerance: float | None = None
) -> ParityReport:
    """Compare what an embedder gives with a reference, or with what is published, and name the cause of a difference.

    Fixed texts in several languages, with white space at the edges, special tokens, of one letter and of many hundred
    tokens, at the limit and beyond it, empty, alone and in one batch.

    Args:
        embedder: What is checked, such as a model on a server.
        reference: The same model, run in a way that is trusted, such as on this machine. `None`: what the model's
            authors have published is compared; without that the report says "not verified", and what shows without a
            reference is looked for all the same.
        tolerance: Least cosine that counts as equal; by default by the number formats of the two.

    Returns:
        Its `verdict` is `"equal"`, `"differs"` or `"not verified"`.

    Raises:
        ArgumentError: The two are different models: their vectors have different widths. Or the tolerance is none.
        WrongKindError: One of them is no embedder.
    """
    for side in (embedder, *(() if reference is None else (reference,))):
        if not isinstance(side, Embedder):
            raise WrongKindError(f"parity compares embedders, and this is a {type(side).__name__}")
    if tolerance is not None and not 0 < tolerance <= 1:
        raise ArgumentError(f"tolerance={tolerance!r} must be a cosine, greater than 0 and at most 1")
    if reference is not None and embedder.spec.dim != reference.spec.dim:
        raise ArgumentError(
            f"these are two models, and not one run in two ways: {embedder.spec.id} has vectors of {embedder.spec.dim} "
            f"values, and {reference.spec.id} of {reference.spec.dim}"
        )
    return _Check(embedder, reference, tolerance).report()


class _Side:
    """One embedder, asked for raw vectors of rendered texts. What was asked is not asked again."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._known: dict[bytes, Vector | EmbriefError] = {}

    def run(self, items: Sequence[Rendered]) -> Vector:
        """Return the raw vectors of texts of one call."""
        output = self.embedder._shared.served.run(Request(items, options_of(self.embedder)))
        return np.asarray(output.array("dense"), np.float64)

    def one(self, item: Rendered) -> Vector | EmbriefError:
        """Return the raw vector of a text that is alone in its call, or why there is none."""
        if item.key not in self._known:
            try:
                self._known[item.key] = self.run([item])[0]
            except EmbriefError as error:
                self._known[item.key] = error
        return self._known[item.key]

    def of(self, probe: Probe) -> Vector | EmbriefError:
        return self.one(rendered(self.embedder, probe))

    def text(self, text: str) -> Vector | EmbriefError:
        return self.one(bare([text])[0])


def cosine(one: Any, other: Any) -> float:
    """Return how near two vectors are; 0 where one is none."""
    if isinstance(one, Exception) or isinstance(other, Exception):
        return 0.0
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length > 0 and np.isfinite(length) else 0.0


class _Check:
    def __init__(self, embedder: Embedder, reference: Embedder | None, tolerance: float | None) -> None:
        self._here = _Side(embedder)
        self._there = _Side(reference) if reference is not None else None
        self._spec = embedder.spec
        self._limit = min(side.max_tokens for side in (embedder, reference) if side is not None)
        self._given = tolerance
        self._tolerance = tolerance if tolerance is not None else _tolerance(embedder, reference)
        self._probes = probes(self._spec.final_token, self._limit)
        self._findings: list[Finding] = []
        self._not_checked: list[str] = []

    def report(self) -> ParityReport:
        against, cosines = "", {}
        sides = [("", self._here), *([("the reference: ", self._there)] if self._there is not None else [])]
        for what, side in sides:
            try:
                # What is not there has no other fault, and nothing can be compared with it.
                side.run([rendered(side.embedder, SHORT[2])])
            except EmbriefError as error:
                self._find("unreachable", f"{what}{error}")
        if not self._findings:
            self._alone()
            if self._there is not None:
                against, cosines = _name(self._there.embedder), self._compared()
            elif (published := PUBLISHED.get(self._spec.id)) is not None:
                against, cosines = published.source, self._published()
        return ParityReport(
            _name(self._here.embedder),
            against,
            cosines,
            self._tolerance,
            tuple(self._findings),
            tuple(self._not_checked),
        )

    def _find(self, cause: Any, detail: str, *, serious: bool = True) -> None:
        self._findings.append(Finding(cause, detail, serious))

    # What shows without a reference.

    def _alone(self) -> None:
        self._batch()
        self._norm()
        self._empty()
        self._cut()
        if self._there is None:
            self._edges()
            self._roles()

    def _batch(self) -> None:
        """A text alone and beside others: same lengths first, where masks are forgotten."""
        items = [rendered(self._here.embedder, probe) for probe in self._probes if probe.text]
        same = [
            rendered(self._here.embedder, Probe("", text)) for text in ("red sun", "red sky", "blue sun", "red sea")
        ]
        worst = ("", 1.0)
        for batch in (items, items[::-1], same):
            try:
                together = self._here.run(batch)
            except EmbriefError as error:
                self._find("refused", f"a batch of {len(batch)} texts: {error}")
                return
            for item, vector in zip(batch, together, strict=True):
                worst = min(worst, (item.words[:20], cosine(vector, self._here.one(item))), key=lambda pair: pair[1])
        if worst[1] < min(self._tolerance, SERVER):
            self._find("batch", f"a text in a batch has cosine {worst[1]:.4f} to itself alone")

    def _norm(self) -> None:
        vector = self._here.of(SHORT[1])
        if isinstance(vector, EmbriefError) or not self._here.embedder._shared.normalizes:
            return
        if abs(float(np.linalg.norm(vector)) - 1) > 1e-3:
            self._find("not normalised", f"vectors have length {np.linalg.norm(vector):.4g}, not 1", serious=False)

    def _empty(self) -> None:
        vector = self._here.of(EMPTY)
        if isinstance(vector, EmbriefError):
            self._find("empty refused", f"an empty text: {vector}", serious=False)

    def _cut(self) -> None:
        if OTHER_END not in self._probes:
            self._not_checked.append(f"long texts: the limit is {self._limit} tokens")
            return
        if cosine(self._here.of(OVER_512), self._here.of(OTHER_END)) > SAME:
            self._find("cut silently", f"two texts that differ in their end alone are the same{self._where_cut()}")
        elif self._here.embedder._shared.asks_a_server:
            self._climb()
        for probe in (OVER_257, OVER_512):
            if isinstance(error := self._here.of(probe), EmbriefError):
                self._find("refused", f"a text of {probe.name}: {error}")

    def _climb(self) -> None:
        """Look for a cut further on: some servers have a limit of their own, and say nothing of it."""
        for size, one, other in ladder(self._here.embedder.max_tokens):
            first, second = self._here.of(Probe("", one)), self._here.of(Probe("", other))
            if isinstance(first, EmbriefError) or isinstance(second, EmbriefError):
                refused = first if isinstance(first, EmbriefError) else second
                self._not_checked.append(f"texts of {size} tokens and more: {refused}")
                return
            if cosine(first, second) > SAME:
                self._find("cut silently", f"two texts of about {size} tokens that differ in their end are the same")
                return

    def _where_cut(self) -> str:
        """Say after about how many letters nothing matters any more."""
        whole = OVER_512.text
        vector, low, high = self._here.of(OVER_512), 1, len(whole)
        while high - low > 40:
            middle = (low + high) // 2
            part = self._here.of(Probe("", whole[:middle]))
            low, high = (low, middle) if cosine(part, vector) > SAME else (middle, high)
        return f"; what comes after letter {high} of {len(whole)} is not read"

    def _edges(self) -> None:
        """Byte-level tokenizers keep white space; of others it is not known whether the model does."""
        if self._spec.architecture not in ("qwen3", "gemma3_text"):
            self._not_checked.append("white space at the edges: whether the model keeps it is not known")
        elif self._strips():
            self._find("stripped", "a text with white space at its edges is the same as without")

    def _strips(self) -> bool:
        """Return whether white space at the edges makes no difference; that of a prompt is at its edge, too."""
        item = rendered(self._here.embedder, EDGES)
        return cosine(self._here.one(item), self._here.text(item.text.strip())) > SAME

    def _roles(self) -> None:
        """The model's own prompts make a difference."""
        embedder = self._here.embedder
        query = rendered(embedder, QUERIES[0])
        if query.head and cosine(self._here.one(query), self._here.text(query.words)) > SAME:
            self._find("prompt missing", "a query with its prompt is the same as without")

    # What shows beside a reference.

    def _compared(self) -> dict[str, float]:
        there = self._there
        assert there is not None
        found: dict[str, float] = {}
        for probe in self._probes:
            expected, given = there.of(probe), self._here.of(probe)
            if isinstance(expected, EmbriefError):
                self._not_checked.append(f"{probe.name}: the reference has no vector for it ({expected})")
            elif not isinstance(given, EmbriefError):
                found[probe.name] = cosine(given, expected)
        found |= self._at_the_limit()
        bad = {name for name, near in found.items() if near < self._tolerance}
        self._explain(bad, found, partial(self._agree, there))
        return found

    def _agree(
        self,
        there: _Side,
        here: Callable[[Rendered], str],
        reference: Callable[[Rendered], str],
        texts: Sequence[Probe] = (*SHORT[:4], *QUERIES),
    ) -> bool:
        """Return whether short texts agree if each side gets them changed."""
        items = [rendered(self._here.embedder, probe) for probe in texts]
        near = [cosine(self._here.text(here(item)), there.text(reference(item))) for item in items]
        return min(near) >= self._tolerance

    def _explain(self, bad: set[str], found: dict[str, float], agree: Any) -> None:
        """Name the cause of what differs."""
        if any(finding.cause == "cut silently" for finding in self._findings):
            bad = {name for name in bad if not name.startswith("over")}
        if not bad:
            return
        plain = {probe.name for probe in (*SHORT, *QUERIES)}
        worst = min(bad, key=found.__getitem__)
        detail = f"cosine {found[worst]:.4f} to the reference ({worst})"
        if bad & plain:
            self._whole(bad & plain, detail, found, agree)
            return
        if EDGES.name in bad:
            strips = self._strips()
            self._find("stripped" if strips else "other weights", f"white space at the edges of a text: {detail}")
            # The end of the prompt is all that there is of an empty text.
            bad -= {EMPTY.name} if strips and rendered(self._here.embedder, EMPTY).text else set()
        if (name := special(self._spec.final_token).name) in bad:
            self._find("special tokens", f"cosine {found[name]:.4f} to the reference ({name})", serious=False)
        long = bad & {probe.name for probe in (OVER_257, OVER_512, OTHER_END)}
        if long:
            # Short ones agree, and their ends are read.
            self._find("window", f"texts of a few words agree, and {', '.join(sorted(long))} do not: {detail}")
        if EMPTY.name in bad:
            self._find("missing end token", f"the empty text: {detail}")
        if not any(finding.cause in ("cut silently", "window") for finding in self._findings):
            for name in sorted(bad & {_AT, _BEYOND}):
                self._find("cut silently", f"cosine {found[name]:.4f} to the reference ({name})")

    def _whole(self, bad: set[str], detail: str, found: dict[str, float], agree: Any) -> None:
        """Name what is wrong with all texts, or with all queries: what makes the two sides agree is the cause."""
        end = self._spec.final_token or ""
        if end and agree(lambda item: item.text + end, lambda item: item.text):
            self._find("missing end token", f"with {end!r} behind each text it agrees, and without: {detail}")
        elif end and agree(lambda item: item.text, lambda item: item.text + end):
            self._find("end token twice", f"the reference agrees with {end!r} twice behind each text: {detail}")
        elif agree(lambda item: item.words, lambda item: item.text, QUERIES):
            self._find("prompt twice", f"without our prompt it agrees, so another one is put there: {detail}")
        elif agree(lambda item: item.text, lambda item: item.words, QUERIES):
            self._find("prompt missing", f"it agrees with the reference without a prompt: {detail}")
        elif self._pools_otherwise(found):
            self._find("wrong pooling", f"one token alone agrees, and several do not: {detail}")
        elif self._is_like(without_dense):
            self._find("dense layers missing", f"it agrees with the reference without its Dense layers: {detail}")
        elif min(found[name] for name in bad) > 0.9:
            self._find("number format", detail)
        else:
            self._find("other weights", detail)

    def _pools_otherwise(self, found: dict[str, float]) -> bool:
        """Return whether the two pool by different rules.

        Where a text is one token, all rules are the same: an empty text of a model that puts one token behind texts.
        Else the reference is run with the other rule.
        """
        if self._spec.pooling == "last" and found.get(EMPTY.name, 0.0) >= self._tolerance:
            return True
        return self._is_like(pooled_otherwise)

    def _is_like(self, variant: Callable[[Embedder], AbstractContextManager[Model | None]]) -> bool:
        """Return whether short texts agree with the reference if that is changed."""
        assert self._there is not None
        texts = [*SHORT[:4], *QUERIES]
        options = replace(options_of(self._there.embedder), max_tokens=self._limit)
        with variant(self._there.embedder) as model:
            if model is None:
                return False
            items = [rendered(self._there.embedder, probe) for probe in texts]
            vectors = model.run(items, options).array("dense")
            near = [cosine(self._here.of(probe), vector) for probe, vector in zip(texts, vectors, strict=True)]
        return min(near) >= self._tolerance

    def _at_the_limit(self) -> dict[str, float]:
        """Compare a text that just fits, and one that is a token too long, where somebody can count."""
        there = self._there
        assert there is not None
        if self._limit > 2048:
            self._not_checked.append(
                f"a text at the limit of {self._limit} tokens: it takes long; max_tokens=2048 does"
            )
            return {}
        fits = _of_tokens(there.embedder, self._limit)
        if fits is None:
            self._not_checked.append(f"a text at the limit of {self._limit} tokens: the reference does not count")
            return {}
        found = {}
        for name, text in ((_AT, fits), (_BEYOND, fits + " a")):
            expected, given = there.of(Probe(name, text)), self._here.of(Probe(name, text))
            if isinstance(given, EmbriefError) or isinstance(expected, EmbriefError):
                # Refused is not wrong.
                self._not_checked.append(f"{name}: {given if isinstance(given, EmbriefError) else expected}")
            else:
                found[name] = cosine(given, expected)
        return found

    def _published(self) -> dict[str, float]:
        """Compare cosines with published ones."""
        published = PUBLISHED[self._spec.id]

        def measured(query: Callable[[Rendered], str], document: Callable[[Rendered], str]) -> NDArray[Any] | None:
            rows = []
            for texts, role, change in (
                (published.queries, "query", query),
                (published.documents, "document", document),
            ):
                items = [rendered(self._here.embedder, Probe("", text, role)) for text in texts]  # type: ignore[arg-type]
                found = [self._here.text(change(item)) for item in items]
                vectors = [vector for vector in found if not isinstance(vector, EmbriefError)]
                if len(vectors) < len(found):
                    return None
                rows.append(np.array([vector / np.linalg.norm(vector) for vector in vectors]))
            return np.asarray(rows[0] @ rows[1].T)

        expected = np.array(published.cosines)

        def agrees(found: NDArray[Any] | None) -> bool:
            return found is not None and bool(np.abs(found - expected).max() <= allowed)

        def whole(item: Rendered) -> str:
            return item.text

        found = measured(whole, whole)
        allowed = published.tolerance if self._given is None else 1 - self._given
        self._tolerance = 1 - allowed
        if found is None:
            self._find("refused", "the texts of the published cosines")
            return {}
        off = {
            f"{query[:24]} / {document[:24]}": 1 - abs(float(found[row, column] - expected[row, column]))
            for row, query in enumerate(published.queries)
            for column, document in enumerate(published.documents)
        }
        if not agrees(found):
            detail = (
                f"cosines {np.round(found, 4).tolist()}, and {np.round(expected, 4).tolist()} are published (within "
                f"{allowed:g})"
            )
            end = self._spec.final_token or ""
            if end and agrees(measured(lambda item: item.text + end, lambda item: item.text + end)):
                self._find("missing end token", detail)
            elif agrees(measured(lambda item: item.words, lambda item: item.words)):
                self._find("prompt twice", detail)
            else:
                self._find("other weights", detail + "; wrong pooling and a wrong number format look the same")
        return off


_AT, _BEYOND = "at the limit", "a token beyond the limit"


def _of_tokens(embedder: Embedder, limit: int) -> str | None:
    """Return a document of as many tokens as the limit, prompt and special tokens included; `None` if nobody counts."""
    # It cuts the text that is too long, here without a word.
    quiet = embedder._view(truncate="silent")
    words = limit
    for _ in range(8):
        text = "a" + " a" * (words - 1)
        counts = quiet.encode([text], role="document").token_counts
        if counts is None:
            return None
        if (over := int(counts[0]) - limit) == 0:
            return text
        words = max(words - over, 1)
    return None


def _tolerance(embedder: Embedder, reference: Embedder | None) -> float:
    least = 1.0
    for side in (embedder, reference):
        if side is not None:
            dtype = side._shared.offer.dtype
            known = TOLERANCES.get(dtype, SERVER if dtype == "server" else EIGHT_BITS)
            least = min(least, known)
    return least


def _name(embedder: Embedder) -> str:
    """Return what an embedder is, for people."""
    offer = embedder._shared.offer
    where = f" at {offer.identity.partition(' ')[0]}" if offer.dtype == "server" else f" in {offer.dtype}"
    return f"{embedder.spec.id} on {embedder._shared.backend.name!r}{where}"
