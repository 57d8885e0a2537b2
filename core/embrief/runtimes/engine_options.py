"""What users may say of the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar, get_args

from embrief.errors import ArgumentError
from embrief.facts.specs import ModelSpec
from embrief.runtimes.base import RuntimeOptions

S = TypeVar("S", bound=ModelSpec)
PicturePrompt = Literal["behind", "none"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions(RuntimeOptions):
    """How the engine reads a model, where the model's record leaves it open."""

    OF_THE_SPACE: ClassVar[tuple[str, ...]] = ("picture_prompt",)

    picture_prompt: PicturePrompt | None = None
    """Where the prompt of an input with pictures stands, of a model of which nobody has written it down: `"behind"` the
    pictures and before the text, or nowhere (`"none"`). Such a model takes no pictures otherwise. It is a part of the
    vector space."""

    def __post_init__(self) -> None:
        """Refuse other words.

        Raises:
            ArgumentError: It is another one.
        """
        super().__post_init__()
        known = get_args(PicturePrompt)
        if self.picture_prompt not in (None, *known):
            raise ArgumentError(
                f"picture_prompt={self.picture_prompt!r} is not known; use {' or '.join(map(repr, known))}"
            )

    def described(self, spec: S) -> S:
        """Return the facts about a model with pictures taken in the form that is asked for.

        Raises:
            ArgumentError: It is not for the user to say.
        """
        form = self.picture_prompt
        if form is None or (spec.images is not None and spec.images.prompt == form):
            return spec
        if spec.images_unverified is None:
            why = "takes texts only" if spec.images is None else "takes them as its authors do"
            raise ArgumentError(
                f"picture_prompt={form!r} is for models whose authors leave open where a prompt stands beside "
                f"pictures; {spec.id} {why}, so leave it out"
            )
        return replace(
            spec,
            images=replace(spec.images_unverified, prompt=form),
            modalities=("text", "image"),
            # A text could forge a picture otherwise.
            special_tokens="text",
        )
