"""Real third-party wheels, built and installed offline, and processes that find them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

# Entry points of a hostile module, where they are not `bad_<module> = "<module>"`.
ENTRY_POINTS = {
    "stolen_entry_point": {"embrief_chroma": "stolen_entry_point"},
    "half_registered": {"bad_half_registered": "half_registered:plugin"},
    "same_module": {"bad_same_module": "same_module", "bad_same_module_again": "same_module"},
    "missing_module": {"bad_missing_module": "a_module_that_is_not_in_the_wheel"},
    "missing_attribute": {"bad_missing_attribute": "embrief:no_such_attribute"},
    "not_a_name": {"bad_not_a_name": "this is: not an object reference"},
}

# What every process answers: what is registered, what was said about it, and whether all that is ours still works.
PROBE = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import embrief
    found = embrief.plugins()
    catalog = found.catalog
    answer = {
        "reports": [[r.name, r.distribution, r.version, r.status, r.adds, r.problems] for r in found.reports],
        "models": list(catalog.models),
        "backends": list(catalog.backends),
        "integrations": {name: item.installed for name, item in catalog.integrations.items()},
    }
    if "--use" in sys.argv:
        hashed = embrief.Embedder("hash", dim=64)
        answer["works"] = hashed.embed_query("red planet").shape == (64,) and hashed.info()["backend"] == "hash"
        for spec in [spec for spec in catalog.models.values() if spec.elsewhere is None]:
            facade = embrief.Reranker if isinstance(spec, embrief.RerankerSpec) else embrief.Embedder
            try:
                facade(spec.id)
            except embrief.MissingDependencyError:
                pass
        qwen = embrief.Embedder("Qwen/Qwen3-Embedding-0.6B", backend="sentence-transformers")
        answer["prompt"] = qwen.render("red planet", role="query", instruction="Find planets")
        answer["reports"] = [[r.name, r.distribution, r.version, r.status, r.adds, r.problems] for r in found.reports]
    answer["warnings"] = [str(w.message) for w in caught if issubclass(w.category, embrief.PluginWarning)]
print(json.dumps(answer))
"""


def write_wheel(
    folder: Path, name: str, modules: dict[str, str], entry_points: dict[str, str], *, version: str = "1.0"
) -> Path:
    """Compose a wheel as the format's specification says: modules, and a dist-info folder with four files."""
    stem = f"{name.replace('-', '_')}-{version}"
    points = "".join(f"{key} = {value}\n" for key, value in entry_points.items())
    files = {
        **{f"{module}.py": source for module, source in modules.items()},
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": f"[embrief]\n{points}",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{stem}.dist-info/RECORD"])
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{stem}.dist-info/RECORD": record}.items():
            archive.writestr(path, text)
    return wheel


def pip(*arguments: str | Path) -> None:
    # --isolated: no configuration of the machine, which might name an index.
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def build(projects: list[Path], wheels: Path) -> list[Path]:
    """Build projects with the build backend that this environment has: nothing is fetched."""
    pip("wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", wheels, *projects)
    return sorted(wheels.glob("*.whl"))


def install(wheels: list[Path], site: Path) -> Path:
    pip("install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", site, *wheels)
    return site


@pytest.fixture(scope="session")
def acme_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four well-behaved plugins, each one module and one pyproject.toml, built and installed by pip."""
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(HERE / "projects", folder / "projects")
    projects = sorted((folder / "projects").iterdir())
    return install(build(projects, folder / "wheels"), folder / "site")


@pytest.fixture(scope="session")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One wheel for each way in which a plugin can be broken or hostile. `EMBRIEF_PLUGINS` picks among them."""
    folder = tmp_path_factory.mktemp("hostile")
    sources = {path.stem: path.read_text("utf-8") for path in (HERE / "hostile").glob("*.py")}
    twin = sources.pop("twin")
    wheels = []
    for stem in sorted({*sources, *ENTRY_POINTS}):
        modules = {stem: sources[stem]} if stem in sources else {}
        points = ENTRY_POINTS.get(stem, {f"bad_{stem}": stem})
        wheels.append(write_wheel(folder, f"bad-{stem.replace('_', '-')}", modules, points))
    for place in ("one", "two"):
        module = f"twin_{place}"
        wheels.append(write_wheel(folder, f"bad-twin-{place}", {module: twin}, {"bad_twin": module}))
    return install(wheels, folder / "site")


class Process:
    """Runs Python in processes whose import path has some folders more."""

    def run(
        self, code: str, *sites: Path, plugins: str | None = None, arguments: tuple[str, ...] = (), timeout: float = 60
    ) -> str:
        done = self.call("-c", code, *arguments, sites=sites, plugins=plugins, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(
        self, *arguments: str, sites: tuple[Path, ...] = (), plugins: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if key not in ("EMBRIEF_PLUGINS", "PYTHONWARNINGS")}
        inherited = env.get("PYTHONPATH")
        env["PYTHONPATH"] = os.pathsep.join([*map(str, sites), *([inherited] if inherited else [])])
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        if plugins is not None:
            env["EMBRIEF_PLUGINS"] = plugins
        env["PYTHONUTF8"] = "1"
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=env, timeout=timeout, check=False
        )

    def json(self, code: str, *sites: Path, **options: Any) -> Any:
        return json.loads(self.run(code, *sites, **options).splitlines()[-1])

    def probe(self, *sites: Path, plugins: str | None = None, use: bool = True) -> Any:
        return self.json(PROBE, *sites, plugins=plugins, arguments=("--use",) if use else ())


@pytest.fixture(scope="session")
def process() -> Process:
    return Process()


@pytest.fixture(scope="session")
def wheel_writer() -> Callable[..., Path]:
    return write_wheel


@pytest.fixture(scope="session")
def installer() -> Callable[[list[Path], Path], Path]:
    return install


@pytest.fixture(scope="session")
def builder() -> Callable[[list[Path], Path], list[Path]]:
    return build
