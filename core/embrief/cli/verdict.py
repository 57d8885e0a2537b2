"""Whether a model works on this machine: it is what it should be, it loads, and it fits into memory.

The facades and their checks decide; nothing is checked here that they do not check.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import AmbiguousModelError, ArgumentError, EmbriefError, UnknownModelError, WrongKindError
from embrief.facades.embedder import Embedder
from embrief.facades.reranker import Reranker
from embrief.facts.specs import EmbeddingSpec, ModelSpec
from embrief.files.folders import stored_tensors
from embrief.files.foreign import GGUF, is_gguf
from embrief.files.forms import local_model
from embrief.files.gguf import GgufFile, read_model
from embrief.files.modules import read_modules, transformer_folder
from embrief.files.tensors import read_tensors
from embrief.files.weights import ModelSource, find_cached
from embrief.serving.choosing import to_fetch

if TYPE_CHECKING:
    from embrief.discovery.catalog import Catalog

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PAGE = (1754, 1240)
"""Height and width of an A4 page in 150 dots per inch, in which `embrief index --pages` draws it."""
_SMALLEST = 256 * 2**20
"""Bytes for the smallest batch and what a runtime keeps besides the weights."""


def judge(name: str, known: Catalog, memory: dict[str, int | None]) -> dict[str, Any]:
    """Return facts about a model and the verdict, JSON values only.

    Args:
        name: What a user wrote.
        known: The records.
        memory: The bytes that each device has, `None` where that is not known.

    Raises:
        UnknownModelError: There is no such model.
        ArgumentError: Its size is not known before it is fetched.
    """
    found = known.resolve(name)
    spec = found if isinstance(found, ModelSpec) else None
    folder = found if isinstance(found, Path) else spec.folder if spec is not None else None
    if folder is None:
        folder = _cached_folder(name, spec)
    parameters = spec.parameters if spec is not None else None
    sizes: dict[str, int] = {}
    try:
        if folder is not None and (gguf := _gguf_sizes(folder)):
            parameters, sizes = gguf
        facade = _open(name, spec) if spec is not None or folder is not None else None
        used = facade.info() if facade is not None else {}
        if facade is not None and not sizes and facade.spec.format != "safetensors":
            parameters = facade.spec.parameters
        elif parameters is None and folder is not None:
            parameters = _count_parameters(folder)
        problem = None
    except EmbriefError as error:
        facade, used, problem = None, {}, str(error)
    if parameters is None and problem is None:
        if is_gguf(name):
            raise UnknownModelError(f"{name!r} is {GGUF}")
        raise ArgumentError(f"the size of {name} is not known; run `embrief pull {name}` first")
    banned = spec.banned_dtypes if spec is not None else ()
    if facade is not None and not sizes and facade.spec.format != "safetensors":
        # Such files hold one format, whatever else the model may be stored in.
        sizes = {used["dtype"]: sum(file.stat().st_size for file in _stored(facade.spec, folder))}
    sizes = sizes or {dtype: (parameters or 0) * width for dtype, width in BYTES.items() if dtype not in banned}
    room = memory.get(used.get("device", ""))
    fits = {dtype: None if room is None else _needs(count) <= room for dtype, count in sizes.items()}
    data: dict[str, Any] = {
        "id": spec.id if spec is not None else name,
        "recorded": spec is not None,
        "parameters": parameters,
        "weights_bytes": sizes if parameters else {},
        "banned_dtypes": list(banned),
        "auto_dtype": used.get("dtype"),
        "tells_truncation": used.get("tells_truncation"),
        "needs_bytes": {dtype: _needs(count) for dtype, count in sizes.items()} if parameters else {},
        "modalities": used.get("modalities"),
        "page": _page(facade.spec if facade is not None else spec),
        "fits": fits if parameters else {},
    }
    dtype = _choose(used.get("dtype"), data["fits"])
    if problem is None and dtype is None:
        least = min(map(_needs, sizes.values()))
        problem = f"it needs {least / 2**30:.1f} GiB at least, and {used['device']} has {(room or 0) / 2**30:.1f} GiB"
    if problem is None and facade is not None and folder is not None and dtype is not None:
        problem = _load(type(facade), name, dtype)
    here = folder is not None or (spec is not None and to_fetch(known, spec) is None)
    data["verdict"] = {
        "works": problem is None,
        "loaded": problem is None and here,
        "dtype": dtype if problem is None else None,
        "problem": problem,
    }
    return data


def _page(spec: ModelSpec | None) -> dict[str, Any] | None:
    """Return what an A4 page costs a model that takes pictures, `None` of one that takes none."""
    if spec is None or spec.images is None:
        return None
    high, wide = PAGE
    seen = spec.images.fitted(high, wide)
    authors = spec.images.authors_max_pixels
    return {
        "width": wide,
        "height": high,
        "seen_width": seen[1],
        "seen_height": seen[0],
        "tokens": spec.images.tokens(high, wide),
        "max_pixels": spec.images.max_pixels,
        "authors_max_pixels": authors,
        "authors_tokens": None if authors is None else spec.images.tokens(high, wide, authors),
    }


def _stored(spec: ModelSpec, folder: Path | None) -> list[Path]:
    """Return the files of a model in another form than safetensors."""
    return [folder / name for artifact in spec.artifacts for name in artifact.files] if folder is not None else []


def _needs(weights: int) -> int:
    """Return the bytes that a model needs: its weights, a fifth more while they are loaded, and the smallest batch."""
    return weights + weights // 5 + _SMALLEST if weights else 0


def _choose(auto: str | None, fits: dict[str, bool | None]) -> str | None:
    """Return the number format to use: what auto takes if it fits, else the first that does."""
    if auto is None or fits.get(auto) is not False:
        return auto
    return next((dtype for dtype, it_fits in fits.items() if it_fits), None)


def _open(name: str, spec: ModelSpec | None) -> Embedder | Reranker:
    """Make the facade that is for the model, which checks all that can be checked without its weights."""
    if spec is not None:
        kind: type[Embedder] | type[Reranker] = Embedder if isinstance(spec, EmbeddingSpec) else Reranker
        return kind(name, local_files_only=True)
    try:
        embedder = Embedder(name, local_files_only=True)
        embedder.info()
    except (WrongKindError, AmbiguousModelError):
        return Reranker(name, local_files_only=True)
    return embedder


def _load(kind: type[Embedder] | type[Reranker], name: str, dtype: str) -> str | None:
    """Load the weights; return what is wrong with them, `None` if nothing is."""
    try:
        with kind(name, dtype=dtype, local_files_only=True) as facade:
            facade.load()
    except EmbriefError as error:
        return str(error)
    return None


def _cached_folder(name: str, spec: ModelSpec | None) -> Path | None:
    try:
        cached = find_cached(ModelSource.of(name, spec))
    except EmbriefError:
        return None
    return cached.folder if cached is not None else None


def _gguf_sizes(path: Path) -> tuple[int, dict[str, int]] | None:
    """Return the parameters of a model in GGUF files, and its bytes by number format; `None` of another form."""
    model = local_model(path)
    if not isinstance(model, GgufFile):
        return None
    artifacts = model.artifacts
    header = read_model([model.folder / name for name in artifacts[0].files])
    count = sum(prod(tensor.shape) for tensor in header.tensors.values())
    sizes = {str(item.dtype): sum((model.folder / name).stat().st_size for name in item.files) for item in artifacts}
    return count, sizes


def _count_parameters(folder: Path) -> int:
    """Add up the tensors in the headers of the files that would be read."""
    base = transformer_folder(folder)
    tensors = list(stored_tensors(base).values())
    for module in read_modules(folder) or ():
        file = folder / module.path / "model.safetensors"
        if file.is_file() and file.parent != base:
            tensors += read_tensors(file).values()
    return sum(prod(tensor.shape) for tensor in tensors)
