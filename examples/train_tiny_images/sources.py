"""Where pictures and their names come from: pinned npm packages, read and never run."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]
NAMES = "emojibase-data@17.0.0"
"""What emoji are called in English: MIT, from Unicode's CLDR."""
ICONS = "@mdi/svg@7.4.47"
"""Material Design Icons: Apache-2.0."""
TRAINED = {"noto": "@iconify-json/noto@1.2.9", "noto-v1": "@iconify-json/noto-v1@1.2.5"}
"""Noto Emoji of today and of its first years: Apache-2.0."""
WATCHED = {"openmoji": "@iconify-json/openmoji@1.2.29"}
"""Looked at while settings were chosen, never trained on: CC-BY-SA-4.0."""
HELD_OUT = {"twemoji": "@iconify-json/twemoji@1.2.5"}
"""Looked at to decide whether to go on, and when all was chosen; never trained on: CC-BY-4.0."""
STYLES = {**TRAINED, **WATCHED, **HELD_OUT}
_FLAGS = 9


@dataclass(frozen=True, slots=True)
class Named:
    """What a picture shows."""

    key: str
    label: str
    """In a few words."""
    keywords: tuple[str, ...]


def fetch(folder: Path) -> None:
    """Download what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in (NAMES, ICONS, *STYLES.values()):
        if not (folder / _file(package)).exists():
            subprocess.run(["npm", "pack", "--silent", package], check=True, cwd=folder, stdout=subprocess.DEVNULL)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every package, for the record that a run leaves."""
    files = [folder / _file(package) for package in (NAMES, ICONS, *STYLES.values())]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def emoji(folder: Path) -> list[Named]:
    """Return the emoji with a name, without flags and without those that differ in the colour of skin alone."""
    data = _read(folder, NAMES, "en/data.json")
    return [
        Named(_plain(item["hexcode"]), item["label"].lower(), tuple(word.lower() for word in item.get("tags", ())))
        for item in data
        if item.get("group") not in (None, _FLAGS)
    ]


def drawings(folder: Path, style: str) -> dict[str, str]:
    """Return the drawings of a style as SVG, by the code points of what they show."""
    package = STYLES[style]
    icons = _read(folder, package, "icons.json")
    # The older Noto has the names of today's, and does not say which code points they stand for.
    chars = _read(folder, TRAINED["noto"] if style == "noto-v1" else package, "chars.json")
    return {_plain(code): _svg(icons, name) for code, name in chars.items() if name in icons["icons"]}


def icons(folder: Path) -> Iterator[tuple[Named, str]]:
    """Yield icons with their drawings, without brands."""
    drawn: dict[str, str] = {}
    with tarfile.open(folder / _file(ICONS)) as tar:
        for member in tar:
            if found := re.fullmatch(r"package/svg/(.+)\.svg", member.name):
                drawn[found[1]] = _bytes(tar, member.name).decode()
    for item in _read(folder, ICONS, "meta.json"):
        brand = any("Brand" in tag for tag in item["tags"])
        if item["name"] in drawn and not brand and not item.get("deprecated"):
            words = [alias.replace("-", " ") for alias in item["aliases"]]
            words += [tag.split(" / ")[0].lower() for tag in item["tags"]]
            yield Named(item["name"], item["name"].replace("-", " "), tuple(words)), drawn[item["name"]]


def _svg(icons: Json, name: str) -> str:
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {links} width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'


def _plain(code: str) -> str:
    """Return code points as all packages have them: without zeros in front, and without the mark for colour."""
    return "-".join(part.lstrip("0") for part in code.lower().split("-") if part != "fe0f")


def _file(package: str) -> str:
    name, _, version = package.rpartition("@")
    return f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def _read(folder: Path, package: str, name: str) -> Any:
    with tarfile.open(folder / _file(package)) as tar:
        return json.loads(_bytes(tar, f"package/{name}"))


def _bytes(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()
