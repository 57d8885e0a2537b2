"""Names and files that people bring and that no model can be loaded from: what they are, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from embrief.errors import ArgumentError

_ID_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_LONGEST_PART = 96
_HUB_ADDRESS = re.compile(r"(?:hf:/|(?:https?://)?(?:www\.)?(?:huggingface|hf)\.co)/(?:models/)?(.*)", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_LONGEST_SHOWN = 120
EXPORT_MARK = "embrief-export.json"
"""The file that says what a folder is that `embrief export` wrote."""
_EXPORTS = ("onnx", "openvino", "gguf")

_PICKLED = (
    "pickled weights, which can run code when they are loaded and are never read; where you trust them, load them once "
    "with transformers, call save_pretrained(<folder>), and pass that folder"
)
GGUF = (
    "GGUF, which embrief runs in llama.cpp, a file at a time: pass the path of one, as gguf:PATH, or the id of the "
    "original model with backend='gguf'"
)
_GGML = "GGML, which came before GGUF and which nothing here reads; pass a GGUF file, or the original model"
_EXPORT = (
    "{0} of unknown making: whether its vectors are those of any model cannot be told, and many published ones leave "
    "out a part or want their padding on the left. Pass the original, or export from the original: `embrief export "
    "MODEL --to FOLDER --format {1}` makes a folder that runs here without torch"
)
# What there is of several kinds is named by the first: OpenVINO's *.bin is no pickle.
_FILES = {
    ".gguf": GGUF,
    ".ggml": _GGML,
    ".onnx": _EXPORT.format("an ONNX file", "onnx"),
    ".xml": _EXPORT.format("an OpenVINO file", "openvino"),
    ".bin": _PICKLED,
    ".pt": _PICKLED,
    ".pth": _PICKLED,
    ".ckpt": _PICKLED,
    ".pkl": _PICKLED,
    ".h5": "weights for TensorFlow, which embrief does not read; pass a folder with safetensors",
    ".msgpack": "weights for Flax, which embrief does not read; pass a folder with safetensors",
    ".zip": "an archive; unpack it and pass the folder",
    ".tar": "an archive; unpack it and pass the folder",
    ".gz": "an archive; unpack it and pass the folder",
}


def shown(name: str) -> str:
    """Return a name for a message: quoted, on one line, and not longer than people read."""
    return repr(name) if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]!r}... ({len(name)} characters)"


def path_of(value: str | Path, what: str) -> Path:
    """Return a path, `~` expanded.

    Raises:
        ArgumentError: No path can be called that.
    """
    try:
        path = Path(value).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{what}={shown(str(value))} cannot be a path: {error}") from error
    if "\0" in str(value):
        raise ArgumentError(f"{what}={shown(str(value))} cannot be a path: it has a null character")
    return path


def folder_of(name: str) -> Path | None:
    """Return the folder, or the GGUF file, of this name, `~` expanded; `None` if there is none, or can be none."""
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() or (path.suffix.lower() == ".gguf" and path.is_file()) else None
    # A null character, a name that is too long, a user who does not exist.
    except (OSError, ValueError, RuntimeError):
        return None


def file_problem(name: str) -> str | None:
    """Say what a file is that was given for a model, and what to do; `None` if there is no such file."""
    try:
        path = Path(name).expanduser()
        if not path.exists():
            return None
    except (OSError, ValueError, RuntimeError):
        return None
    if (path.parent / EXPORT_MARK).is_file():
        return f"{shown(name)} is one file of an export; pass the folder around it: {str(path.absolute().parent)!r}"
    suffix = ".xml" if path.suffix and path.with_suffix(".xml").exists() else path.suffix.lower()
    if suffix in _FILES:
        return f"{shown(name)} is {_FILES[suffix]}"
    if suffix == ".safetensors" or path.name == "config.json":
        return f"{shown(name)} is one file of a model; pass the folder around it: {str(path.absolute().parent)!r}"
    return f"{shown(name)} is a file; a model is a folder with config.json, a tokenizer and *.safetensors"


def folder_problem(folder: Path) -> str:
    """Say what a folder holds that no model can be loaded from, and what to do, as the rest of a sentence about it."""
    try:
        entries = sorted(folder.iterdir())
        inner = [entry for export in _EXPORTS if (folder / export).is_dir() for entry in (folder / export).iterdir()]
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    names = [entry.name for entry in entries]
    if not entries:
        return "is empty; a model folder has config.json, a tokenizer and *.safetensors"
    if "snapshots" in names and "refs" in names:
        commits = sorted(entry.name for entry in (folder / "snapshots").iterdir())
        found = f"snapshots/{commits[-1]}" if commits else "a folder in snapshots"
        return f"is an entry of huggingface_hub's cache; pass the id of the model, or {found} in it"
    if "adapter_config.json" in names and not {"config.json", "model.safetensors"} <= set(names):
        return (
            "holds a PEFT adapter without its model; load both with peft, call merge_and_unload(), save the result and "
            "pass that folder"
        )
    inside = [entry for entry in entries if entry.is_dir() and any(entry.glob("*.safetensors"))]
    if inside and not {"config.json", "modules.json"} & set(names):
        here = ", ".join(repr(entry.name) for entry in inside[:5])
        return f"holds no model itself, but there are some in it: pass one of {here}"
    weights = any(entry.suffix == ".safetensors" for entry in entries)
    for suffix, problem in () if weights else _FILES.items():
        for entry in (*entries, *inner):
            if entry.suffix.lower() == suffix and entry.is_file():
                return f"holds {entry.relative_to(folder)}: {problem}"
    if weights and "config.json" not in names:
        return "holds weights without config.json, which says what they are; copy the other files of the model there"
    found = f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    return f"holds {found}{'' if weights else ' and no weights in safetensors'}; save or copy the whole model there"


def is_hub_id(name: str) -> bool:
    """Return whether a repository on the hub can be called that: `owner/name`."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(len(part) <= _LONGEST_PART and _ID_PART.fullmatch(part) for part in parts)
        and not any(bad in name for bad in ("--", ".."))
        and not name.endswith(".git")
    )


def is_gguf(name: str) -> bool:
    """Return whether a repository says in its name that it has GGUF files."""
    return "gguf" in re.split(r"[-_./]", name.lower())


def looks_like_path(name: str) -> bool:
    """Return whether somebody means a folder by this name."""
    return name.startswith((".", "/", "~")) or "\\" in name or _DRIVE.match(name) is not None


def name_problem(name: str) -> tuple[str, str] | None:
    """Recognise the ways in which other tools name models.

    Returns:
        What the name is and what to do, and the part of it that names a model here; `None` for nothing known.
    """
    if (address := _HUB_ADDRESS.fullmatch(name)) is not None:
        parts = address[1].partition(":")[0].strip("/").split("/")
        return "an address; pass the id of the model alone, without anything before or after it", "/".join(parts[:2])
    if _ADDRESS.match(name):
        return (
            "an address. A server is named with what it is, such as tei:http://host:port; other models come from a "
            "folder or, by their id, from the hub"
        ), ""
    owner, _, tagged = name.rpartition("/")
    if ":" in tagged and not any(character.isspace() for character in name):
        model = tagged.replace(":", "-")
        return (
            f"a name with a tag, as Ollama has them: ollama:{name} means the model there; for one in this process pass "
            "the original model's id on the hub",
            model if owner in ("", "ollama", "library") else f"{owner}/{model}",
        )
    return None
