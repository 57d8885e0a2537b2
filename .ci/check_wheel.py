"""Build sdist and wheel, look inside, install the wheel without extras in a new environment and use it there.

    python .ci/check_wheel.py [--out FOLDER]

Run with a Python that has `build` installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("embrief", "llama_index_embrief", "langchain_embrief", "chroma_embrief", "qdrant_embrief")
# Models whose weights come with the package.
BUNDLED = {
    "tiny_embedding": "model.safetensors",
    "tiny_reranker": "model.safetensors",
    "tiny_vl_embedding": "tower.safetensors",
}
DATA = (
    "embrief/facts/records/tiny_vl_embedding/model.safetensors.index.json",
    "embrief/facts/records/tiny_vl_embedding/preprocessor_config.json",
    "embrief/cli/demo_pictures/sheet.png",
    "embrief/cli/demo_pictures/names.json",
)
IN_SDIST = (
    *("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt", "Makefile", "mkdocs.yml"),
    "pyproject.toml",
    *("core/embrief/__init__.py", "tests/", "examples/", "docs/", "integrations/", ".ci/"),
)
USE = """
import sys
import embrief
from importlib.metadata import entry_points, version
heavy = {"torch", "transformers", "sentence_transformers"}
heavy |= {"llama_index", "langchain_core", "chromadb", "qdrant_client"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
names = sorted(point.name for point in entry_points(group="embrief"))
assert len(names) == 4, names
for point in entry_points(group="embrief"):
    point.load()
assert not heavy & set(sys.modules), heavy & set(sys.modules)
print("embrief", version("embrief"), "from", embrief.__file__)
"""


def check_contents(wheel: Path, sdist: Path) -> list[str]:
    problems = []
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for package in PACKAGES:
        if f"{package}/py.typed" not in names:
            problems.append(f"{wheel.name} has no {package}/py.typed")
    files = [f"{model}/{file}" for model in BUNDLED for file in ("config.json", "tokenizer.json", "README.md")]
    files += [f"{model}/{weights}" for model, weights in BUNDLED.items()]
    for file in (*(f"embrief/facts/records/{file}" for file in files), *DATA):
        if file not in names:
            problems.append(f"{wheel.name} has no {file}")
    page = "core/embrief/server/page/static"
    for file in sorted(path.name for path in (ROOT / page).iterdir()):
        if f"{page.partition('/')[2]}/{file}" not in names:
            problems.append(f"{wheel.name} has no {file} of the page")
    if any(name.startswith("embrief/bench/peers/") for name in names):
        problems.append(f"{wheel.name} holds embrief/bench/peers, which is for checkouts")
    top = {name.partition("/")[0] for name in names}
    extra = {name for name in top if name not in PACKAGES and not name.endswith(".dist-info")}
    if extra:
        problems.append(f"{wheel.name} also holds {sorted(extra)}")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        problems.append(f"{wheel.name} has no licence")
    with tarfile.open(sdist) as archive:
        inside = [name.partition("/")[2] for name in archive.getnames()]
    for wanted in IN_SDIST:
        if not any(name == wanted or (wanted.endswith("/") and name.startswith(wanted)) for name in inside):
            problems.append(f"{sdist.name} has no {wanted}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep the built files in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = options.out.resolve() if options.out else folder / "dist"
        for old in out.glob("embrief-*"):
            old.unlink()
        build = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
        built = subprocess.run(build, capture_output=True, text=True, check=False)
        if built.returncode:
            print(f"wheel: the build failed\n{built.stdout}{built.stderr}")
            return 1
        (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
        problems = check_contents(wheel, sdist)
        for problem in problems:
            print(f"wheel: {problem}")
        if problems:
            return 1
        venv.create(folder / "venv", with_pip=True)
        bin_folder = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        python = str(bin_folder / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
        pins = ["-c", str(ROOT / "constraints.txt")]
        steps = (
            [*pip, *pins, str(wheel)],
            [python, "-c", USE],
            [str(bin_folder / "embrief"), "--help"],
            [python, "-m", "pip", "--disable-pip-version-check", "check"],
        )
        for step in steps:
            done = subprocess.run(step, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"wheel: {' '.join(step[:3])} failed\n{done.stdout}{done.stderr}")
                return 1
        print(f"wheel: {wheel.name} ({wheel.stat().st_size // 1024} KiB) installs without extras and runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
