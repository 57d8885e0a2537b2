"""What a model folder says of pictures: preprocessor_config.json, or its part of the newer processor_config.json.

A table per family of the keys that are honoured, harmless or have one value that is done here; all others refuse.
What transformers reads, release 5.23: `Qwen2VLImageProcessor`, and `Gemma4ImageProcessor` for models with
`ImageSpec.budgets`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embrief.errors import ModelMismatchError
from embrief.files.json_files import OTHERWISE, JsonObject, optional_object

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.specs import ImageSpec

FILE = "preprocessor_config.json"
_NEWER = "processor_config.json"
_PART = "image_processor"
_BICUBIC = 3
_FRAMES = 2
_HARMLESS = (
    "_processor_class", "data_format", "default_to_square", "device", "disable_grouping", "image_seq_length",
    "input_data_format", "processor_class", "return_tensors",
)  # fmt: skip
_ON = ("do_convert_rgb", "do_resize", "do_rescale")
_OFF = ("do_center_crop", "do_pad", "crop_size", "pad_size")
_KIND = "image_processor_type"


@dataclass(frozen=True, slots=True)
class _Family:
    """The keys of one kind of processor."""

    name: str
    on: tuple[str, ...]
    """What has to be done, as it is unless a file says otherwise."""
    off: tuple[str, ...]
    """What must not."""
    values: dict[str, Callable[[ImageSpec], object]]
    """Values that are the same in all models of a family."""
    limits: tuple[str, ...]
    """What says how large a picture is seen."""
    harmless: tuple[str, ...] = ()


def read_images(base: Path, known: ImageSpec) -> ImageSpec:
    """Return how the model in a folder takes pictures.

    Args:
        base: Where config.json is.
        known: How models of its family take them, whose patches and values it must have.

    Raises:
        ModelMismatchError: There is no such file, or it asks for what is not done here.
    """
    settings = _settings(base)
    family = _FILLING if known.budgets else _BETWEEN
    for key in settings:
        read = (_KIND, *family.on, *family.off, *family.values, *family.limits)
        if key not in (*read, *_HARMLESS, *family.harmless):
            raise ModelMismatchError(
                f"{settings.file} has the key {key!r}, which is not known here and may change what a model sees of a "
                f"picture; remove it from the file if it does not, {OTHERWISE}"
            )
    if not (settings.text(_KIND) or family.name).startswith(family.name):
        _refuse(settings, _KIND, family.name)
    for key in family.on:
        if settings.flag(key) is False:
            _refuse(settings, key, True)
    for key in family.off:
        if settings.get(key):
            _refuse(settings, key, None)
    for key, value in family.values.items():
        if (due := value(known)) is not None and settings.get(key) is not None and not _near(settings[key], due):
            _refuse(settings, key, due)
    if not known.budgets:
        return replace(known, min_pixels=_limit(settings, "min_pixels"), max_pixels=_limit(settings, "max_pixels"))
    budget = settings.count("max_soft_tokens")
    if budget is None:
        return known
    if budget not in known.budgets:
        _refuse(settings, "max_soft_tokens", list(known.budgets))
    return replace(known, max_pixels=budget * known.unit**2)


def has_image_settings(base: Path) -> bool:
    """Return whether a folder says how pictures are taken."""
    return (base / FILE).is_file() or _PART in optional_object(base / _NEWER)


def _settings(base: Path) -> JsonObject:
    newer = optional_object(base / _NEWER)
    # transformers looks there first.
    if (part := newer.object(_PART)) is not None:
        return part
    settings = optional_object(base / FILE)
    if not settings:
        raise ModelMismatchError(
            f"{base / FILE} is missing, which says in which sizes the model sees pictures; copy it from the model that "
            "this one was trained from"
        )
    return settings


_COMMON: dict[str, Callable[[ImageSpec], object]] = {
    "resample": lambda known: _BICUBIC,
    "rescale_factor": lambda known: 1 / 255,
    "patch_size": lambda known: known.patch,
}
_BETWEEN = _Family(
    name="Qwen2VLImageProcessor",
    on=(*_ON, "do_normalize"),
    off=_OFF,
    values={
        **_COMMON,
        "image_mean": lambda known: list(known.mean),
        "image_std": lambda known: list(known.std),
        "merge_size": lambda known: known.merge,
        "temporal_patch_size": lambda known: _FRAMES,
    },
    limits=("size", "min_pixels", "max_pixels"),
)
_FILLING = _Family(
    name="Gemma4ImageProcessor",
    on=_ON,
    off=(*_OFF, "do_normalize"),
    values={**_COMMON, "pooling_kernel_size": lambda known: known.merge},
    limits=("max_soft_tokens",),
    # Nothing is normalised, and the size follows from the number of tokens.
    harmless=("image_mean", "image_std", "size"),
)


def _near(found: object, due: object) -> bool:
    if isinstance(found, list) and isinstance(due, list):
        return len(found) == len(due) and all(map(_near, found, due))
    numbers = isinstance(found, (int, float)) and isinstance(due, (int, float)) and not isinstance(found, bool)
    # Written with fewer digits than a number has.
    return numbers and abs(found - due) <= 1e-9  # type: ignore[operator]


def _limit(settings: JsonObject, key: str) -> int:
    """Return a limit of the area: of two keys for the same, transformers prefers the older one, where both are."""
    edge = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}[key]
    size = settings.within("size")
    named = {name: found for name, found in ((key, settings.count(key)), (edge, size.count(edge))) if found}
    if len(set(named.values())) > 1:
        raise ModelMismatchError(
            f"{settings.file} has {named}, two limits of the same; write the one that the model was trained with into "
            "both"
        )
    if not named:
        raise ModelMismatchError(
            f"{settings.file} has no {edge!r} in 'size', the limit of the area in which the model sees a picture; copy "
            "the file from the model that this one was trained from"
        )
    return next(iter(named.values()))


def _refuse(settings: JsonObject, key: str, due: object) -> None:
    raise ModelMismatchError(
        f"{settings.file} sets {key!r} to {settings[key]!r}; pictures are prepared with {due!r} here. Write this if "
        f"the model was trained so, {OTHERWISE}"
    )
