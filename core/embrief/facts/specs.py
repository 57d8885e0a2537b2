"""What a model is: frozen records of facts. Nothing here runs a model or formats a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Role = Literal["query", "document"]
Pooling = Literal["last", "mean", "cls", "none"]
Truncate = Literal["warn", "error", "silent"]
Modality = Literal["text", "image"]
SpecialTokens = Literal["parsed", "text"]
PicturePrompt = Literal["around", "behind", "none"]
"""Where the prompt of an input with pictures stands: around all of it, behind the pictures and before the text, or
nowhere."""
Kind = Literal["dense", "sparse", "multi", "score"]
"""What a model gives for an input: one vector, a sparse one, several; or for a pair, how relevant it is."""
Format = Literal["safetensors", "gguf", "onnx", "openvino"]
"""A form in which a model's weights are kept."""
Scoring = Literal["yes_no", "label", "classifier"]
"""How a pair gets its score: by a language model's answer to a template, by the one label of a decoder that was trained
on a template, or by that of an encoder that reads pairs."""


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around a text, byte for byte: the text follows the head directly, and the tail follows the text.

    The head and the text are tokenised in one piece, the tail by itself, and the tail is never cut. `{instruction}`,
    `{title}` and `{query}` mark places, in templates that are for one of them.
    """

    head: str = ""
    tail: str = ""

    def has(self, slot: str) -> bool:
        """Return whether there is a place for `"instruction"`, `"title"` or `"query"`."""
        return f"{{{slot}}}" in self.head or f"{{{slot}}}" in self.tail


NO_PROMPT = Template()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How a model takes pictures: the sizes it sees them in, and what stands for one in the prompt.

    A picture is brought to multiples of `unit`, and becomes one token per unit: between two limits of its area, or, by
    a model with `budgets`, as large as a number of tokens allows.
    """

    mark: str
    """What stands for one picture in a prompt, byte for byte; `pad` in it is repeated for each token of the picture."""
    pad: str
    patch: int = 16
    """Pixels per side of what the vision tower reads as one."""
    merge: int = 2
    """Patches per side that become one token."""
    min_pixels: int
    max_pixels: int
    """Unless the user says otherwise."""
    authors_max_pixels: int | None = None
    """The limit of the authors' own code, where it is another than that of the files that they publish."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    prompt: PicturePrompt = "around"
    budgets: tuple[int, ...] = ()
    """The numbers of tokens that a picture may be given, ascending, of a model that brings each picture to the largest
    size with so many at most, small ones too. Areas, `max_pixels` among them, are then these numbers of units."""

    @property
    def unit(self) -> int:
        """Pixels per side of one token."""
        return self.patch * self.merge

    @property
    def areas(self) -> tuple[int, ...]:
        """What `max_pixels` may be, ascending; empty: any area from `min_pixels` on."""
        return tuple(count * self.unit**2 for count in self.budgets)

    def fitted(self, height: int, width: int, max_pixels: int | None = None) -> tuple[int, int]:
        """Return height and width in which the model sees a picture of a size.

        Args:
            height: Of the picture, in pixels.
            width: The same.
            max_pixels: Another limit of the area than the model's own; one of `areas` where there are some.
        """
        most = max_pixels or self.max_pixels
        return self._filling(height, width, most) if self.budgets else self._between(height, width, most)

    def _filling(self, height: int, width: int, most: int) -> tuple[int, int]:
        """Return the largest size of about the same shape, as transformers' `get_aspect_ratio_preserving_size`.

        Its processor of Gemma 4 uses that; EmbeddingGemma 2 has the same one.
        """
        unit = self.unit
        # In transformers' order: another one rounds otherwise.
        factor = math.sqrt(most / (height * width))
        high, wide = (math.floor(factor * side / unit) * unit for side in (height, width))
        # A line has one row of tokens, which is no longer than the picture's shape and the budget have it.
        longest = most // unit
        if not high:
            return unit, min(width // height * unit, longest)
        if not wide:
            return min(height // width * unit, longest), unit
        return high, wide

    def _between(self, height: int, width: int, most: int) -> tuple[int, int]:
        """Return the size between two areas, as transformers' `smart_resize` of Qwen2-VL has it.

        Its processor and that of Qwen3-VL use that.
        """
        unit = self.unit
        high, wide = round(height / unit) * unit, round(width / unit) * unit
        if high * wide > most:
            beta = math.sqrt(height * width / most)
            return max(unit, math.floor(height / beta / unit) * unit), max(unit, math.floor(width / beta / unit) * unit)
        if high * wide < self.min_pixels:
            beta = math.sqrt(self.min_pixels / (height * width))
            return math.ceil(height * beta / unit) * unit, math.ceil(width * beta / unit) * unit
        return high, wide

    def tokens(self, height: int, width: int, max_pixels: int | None = None) -> int:
        """Return how many tokens a picture of a size becomes, its marks not counted."""
        high, wide = self.fitted(height, width, max_pixels)
        return high * wide // self.unit**2


@dataclass(frozen=True, slots=True)
class Task:
    """The prompts of one task."""

    name: str
    query: Template
    """Around a query."""
    document: Template
    """Around a document that has no title."""
    titled: Template | None = None
    """Around a document with a title; `{title}` marks its place. `None`: this task has no place for titles."""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingPrompts:
    """All prompts of an embedding model."""

    tasks: tuple[Task, ...]
    """The first is the default."""
    instructed: Template | None = None
    """Around a query with an instruction of the caller's; `{instruction}` marks its place. `None`: no such place."""
    default_instruction: str | None = None
    """The instruction inside the default task's query prompt, where the model's authors call it one."""
    instruction_is_sentence: bool = False
    """Whether an instruction is always there, as one sentence: without blanks around it, and with a full stop unless it
    ends in punctuation of its own."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files that hold a model in one format."""

    format: Format
    repo: str
    """Id on the hub; empty for files that lie on this machine."""
    revision: str
    """Full commit id, or a branch where nobody has written down a commit: what is fetched first stays. Of files that
    lie on this machine it is empty, or a digest where files of one format differ by what made them."""
    files: tuple[str, ...] = ()
    """What to fetch, as paths in the repository. Empty for safetensors: what transformers reads, configuration and
    tokenizer included. Empty for GGUF: the file whose name says `dtype`."""
    dtype: str | None = None
    """The number format of the weights, in the words of the format, such as `"q8_0"`."""

    @property
    def is_safetensors(self) -> bool:
        """Return whether these are the files that the record describes, and not those of another format."""
        return self.format == "safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What embedders and rerankers have in common."""

    id: str
    """Name on the hub."""
    revision: str
    """Full commit id whose files this record describes, or a version for a model that has no files on the hub (of a
    hosted one: the provider's). It names the weights in the vector space. Empty only for a folder."""
    license: str
    """In the hub's short words; `"proprietary"` for a hosted model, which has terms of service."""
    gated: bool = False
    """Whether the hub asks for an accepted licence and a token."""
    architecture: str | None
    """`model_type` in config.json; `None`: not known, of a model that no runtime on this machine loads."""
    parameters: int | None = None
    hidden_size: int | None = None
    """Width of the hidden states, in values."""
    max_tokens: int
    """Tokens per text that the model sees unless the user says otherwise, special tokens included."""
    context: int
    """Tokens that the architecture can hold."""
    padding_side: Literal["left", "right"] | None
    """`None`: not known, of a model that no runtime on this machine loads."""
    banned_dtypes: tuple[str, ...] = ()
    """Number formats that give wrong results."""
    verified: bool = False
    """Whether this release was run with the real weights."""
    defines_family: bool = False
    """Whether a model without a record, of the same architecture, takes its prompts and limits from this one."""
    aliases: tuple[str, ...] = ()
    source: str = ""
    """Where the facts come from."""
    folder: Path | None = None
    """Where the files are, for a model that comes with the package that registers it: nothing is downloaded then."""
    modalities: tuple[Modality, ...] = ("text",)
    """What an input may hold."""
    images: ImageSpec | None = None
    """How pictures are taken, by a model that takes them."""
    images_unverified: ImageSpec | None = None
    """How they would be taken by a model whose authors do not say where its prompt stands beside them. It takes none
    until a user says that; a part of the engine's options."""
    special_tokens: SpecialTokens = "parsed"
    """Whether the names of special tokens in a caller's text are those tokens, or letters like all others."""
    artifacts: tuple[Artifact, ...] = ()
    """Files in other formats that are this model, for the runtimes that read them."""
    format: Format = "safetensors"
    """The form of the files that this record describes. Where it is another than safetensors, `artifacts` are all that
    there is of the model."""
    served_names: tuple[tuple[str, str], ...] = ()
    """Pairs of a runtime's name and a name under which its servers know this model; of several, the first is asked for.
    Where that is the id on the hub, nothing needs to be said."""
    hosted: str | None = None
    """Who runs this model, for one without files; `None`: it has files, or comes with the package."""
    needs_server: str | None = None
    """Why no runtime of this machine loads the files, as the rest of a sentence about the model; `None`: some do."""

    @property
    def safetensors(self) -> Artifact:
        """Return the files that this record describes."""
        return Artifact("safetensors", self.id, self.revision)

    def served_name(self, runtime: str) -> str | None:
        """Return the name under which a runtime's servers know this model, `None` if that is not recorded."""
        return next((name for owner, name in self.served_names if owner == runtime), None)

    @property
    def elsewhere(self) -> str | None:
        """Say why this machine does not run this model and what does, as the rest of a sentence about the model.

        `None`: its files are loaded here.
        """
        named = " or ".join(
            f"backend={runtime!r}" for runtime in dict.fromkeys(owner for owner, _ in self.served_names)
        )
        if self.hosted is not None:
            return f"has no files; it is served by {self.hosted}: {named or 'name the runtime that asks there'}"
        if self.needs_server is not None:
            return f"{self.needs_server}; serve it on a server and name the runtime that asks there: {named}"
        return None

    @property
    def non_commercial(self) -> bool:
        """Return whether the licence, as far as its short name says, forbids commercial use."""
        return "nc" in self.license.lower().split("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSpec(ModelSpec):
    """A model that turns texts into vectors."""

    dim: int
    """Values per vector."""
    mrl: Sequence[int] = ()
    """Shorter widths that a prefix of the vector may be cut to (Matryoshka representation learning)."""
    default_dim: int | None = None
    """Values that are kept unless the user says otherwise; `None`: all."""
    pooling: Pooling | None
    """`None`: not known, of a model that no runtime on this machine loads."""
    prompts: EmbeddingPrompts
    final_token: str | None
    """Token that ends every input, also a truncated one. `None`: not checked."""
    final_token_left_out: bool = False
    """Whether the published tokenizer leaves that token out, so that whoever tokenises has to append it."""
    lexical: bool = False
    """Whether vectors compare spelling only, not meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerSpec(ModelSpec):
    """A model that scores how well a document answers a query."""

    scoring: Scoring
    template: Template
    """Around the document of a pair; `{query}` and, for models that follow one, `{instruction}` mark their places."""
    default_instruction: str | None = None
    true_token: str = field(default="yes")
    false_token: str = field(default="no")

    @property
    def instructed(self) -> bool:
        """Whether there is a place for an instruction."""
        return self.template.has("instruction")
