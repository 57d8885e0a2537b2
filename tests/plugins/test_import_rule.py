"""The import rule of the architecture, checked on the source: who may import what, and where."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import embrief

CORE = Path(embrief.__file__).parent
INTEGRATIONS = {
    item.name: item for item in embrief.plugins().catalog.integrations.values() if "embrief" in item.package
}
WRAPPERS = {item.package for item in INTEGRATIONS.values()}
# Frameworks that some wrapper serves, and what belongs to them.
FRAMEWORKS = {item.framework.partition(".")[0] for item in INTEGRATIONS.values()} | {
    "fastembed",
    "langchain",
    "langchain_classic",
    "langchain_community",
    "langchain_text_splitters",
    "llama_index_instrumentation",
    "llama_index_workflows",
    "qdrant_edge",
}
# What a plain `pip install embrief` brings, and may therefore stand at the top of a file.
BASE = {"embrief", "numpy", "pluggy"}
FACES = ("evaluation", "bench", "indexing", "local", "server", "cli", "bulk")
# The engine is torch code; everything else imports it inside functions only, but for its torch-free description.
ENGINE = "engine"
ENGINE_BASE = BASE | {"torch", "tokenizers", "safetensors"}
ENGINE_LIGHT = "embrief.engine.description"
FACE_BASE = BASE | {"rich", "typer"}
# A store's file is all about that store, and is itself imported only where a collection is opened.
STORE_FILES = {
    "indexing/chroma_store.py": {"chromadb"},
    "indexing/qdrant_store.py": {"qdrant_client", "qdrant_embrief"},
}
# The server's own files are imported only where it runs, but for the table of its limits; its routes are declared in
# the framework's words, which must be real names when a file is imported.
SERVER = "server"
SERVER_BASE = BASE | {"fastapi", "mcp", "prometheus_client", "pydantic", "starlette", "typing_extensions", "uvicorn"}
SERVER_LIGHT = ("server/__init__.py", "server/settings.py")

# What a wrapper may import from the core: names that are promised to third parties as well.
PUBLIC_MODULES = {"embrief", "embrief.errors", "embrief.stores", "embrief.wrapping"}
# Packages that a framework's own classes are made of, so that a wrapper cannot do without them.
COMPANIONS = {
    "llama-index": {"llama_index_instrumentation"},  # the framework's event dispatcher is a package of its own
    "langchain": {"pydantic"},  # the framework's classes are pydantic models, without a bridge module
    # Chroma checks persisted configurations with the one, and has pictures as arrays of the other.
    "chroma": {"jsonschema", "numpy"},
    "qdrant": {"pydantic"},  # what may hold a `models.Document` is a pydantic model
}


@dataclass(frozen=True)
class Import:
    place: str
    module: str
    names: tuple[str, ...]
    at_import: bool
    """Whether it runs when the file is imported: not inside a function, not under TYPE_CHECKING."""
    typing_only: bool

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]

    def targets(self) -> Iterator[str]:
        """Yield every module it may load: `from a import b` can mean a.b."""
        yield self.module
        yield from (f"{self.module}.{name}" for name in self.names)


def imports(source: str, place: str, package: str) -> list[Import]:
    """Return all imports of a file, also those inside functions and those by a call with a constant name."""
    found: list[Import] = []

    def absolute(node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        base = package.split(".")[: len(package.split(".")) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    def visit(node: ast.AST, inside: bool, typing_only: bool) -> None:
        def add(module: str, names: tuple[str, ...] = ()) -> None:
            line = getattr(node, "lineno", 0)
            found.append(Import(f"{place}:{line}", module, names, not (inside or typing_only), typing_only))

        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            add(absolute(node), tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                add(node.args[0].value)
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            for child in node.body:
                visit(child, inside, True)
            for child in node.orelse:
                visit(child, inside, typing_only)
            return
        function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside or function, typing_only)

    visit(ast.parse(source), False, False)
    return found


def imports_under(folder: Path, package: str) -> list[tuple[Path, Import]]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        inner = ".".join([package, *path.relative_to(folder).parent.parts])
        place = f"{package}/{path.relative_to(folder).as_posix()}"
        found += [(path.relative_to(folder), item) for item in imports(path.read_text("utf-8"), place, inner)]
    return found


CORE_IMPORTS = imports_under(CORE, "embrief")


def is_face(path: Path) -> bool:
    return path.parts[0].removesuffix(".py") in FACES


def at_the_top(path: Path) -> set[str]:
    if path.parts[0] == ENGINE:
        return ENGINE_BASE
    if path.parts[0] == SERVER and path.as_posix() not in SERVER_LIGHT:
        return SERVER_BASE
    return (FACE_BASE if is_face(path) else BASE) | STORE_FILES.get(path.as_posix(), set())


def foreign(item: Import) -> bool:
    return item.root not in sys.stdlib_module_names


def test_core_never_imports_a_framework_anywhere():
    assert [item.place for path, item in CORE_IMPORTS if item.root in FRAMEWORKS | WRAPPERS and not is_face(path)] == []


def test_a_face_imports_a_framework_only_where_it_is_used():
    wrong = [
        item.place
        for path, item in CORE_IMPORTS
        if item.root in FRAMEWORKS | WRAPPERS
        and item.at_import
        and item.root not in STORE_FILES.get(path.as_posix(), set())
    ]
    assert wrong == []


def test_a_stores_file_is_imported_only_where_it_is_used():
    files = {"embrief." + name.removesuffix(".py").replace("/", ".") for name in STORE_FILES}
    uses = [(item.place, item.at_import) for _, item in CORE_IMPORTS if files & set(item.targets())]
    assert [place for place, at_import in uses if at_import] == []
    assert len(uses) >= len(files)


def test_core_imports_at_the_top_only_what_a_plain_install_brings():
    """No torch, transformers, huggingface_hub or framework before it is used."""
    wrong = [
        f"{item.place} {item.module}"
        for path, item in CORE_IMPORTS
        if item.at_import and foreign(item) and item.root not in at_the_top(path)
    ]
    assert wrong == []


def test_the_engine_is_imported_only_where_it_is_used():
    wrong = [
        f"{item.place} {item.module}"
        for path, item in CORE_IMPORTS
        if item.at_import
        and path.parts[0] != ENGINE
        and any(target.startswith(f"embrief.{ENGINE}.") for target in item.targets())
        and item.module != ENGINE_LIGHT
    ]
    assert wrong == []
    assert not [item for path, item in CORE_IMPORTS if path.as_posix() == "engine/description.py" and foreign(item)
                and item.root != "embrief"]  # fmt: skip


def test_the_server_is_imported_only_where_it_runs():
    light = {f"embrief.{name.removesuffix('.py').replace('/', '.')}" for name in SERVER_LIGHT}
    wrong = [
        f"{item.place} {item.module}"
        for path, item in CORE_IMPORTS
        if item.at_import
        and (path.parts[0] != SERVER or path.as_posix() in SERVER_LIGHT)
        and item.module.startswith(f"embrief.{SERVER}.")
        and item.module not in light
    ]
    assert wrong == []


def test_faces_import_facades_and_never_runtimes():
    inner = ("embrief.runtimes", "embrief.engine", "embrief.serving.loading", "embrief.serving.scheduler")
    wrong = [
        f"{item.place} {target}"
        for path, item in CORE_IMPORTS
        if is_face(path)
        for target in item.targets()
        if target in inner or target.startswith(tuple(f"{name}." for name in inner))
    ]
    assert wrong == []


# From the ground up. A room imports what is below it, and nothing above.
ROOMS = (
    "errors", "system", "images", "facts", "files", "engine", "llama", "runtimes", "servers", "discovery", "cache",
    "serving",
    "config", "facades", "stores", "wrapping", "parity", "exporting", "fallback", "registry", "testing", *FACES,
    "__main__",  # asks `local` for an answer before it imports `cli`, which is heavier
)  # fmt: skip


def room(module: str) -> str:
    """The room of a module, "" for the package's own `__init__`, which imports from all of them when asked."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def test_a_room_imports_only_from_rooms_below_it():
    wrong = [
        f"{item.place} {target}"
        for path, item in CORE_IMPORTS
        for target in item.targets()
        if path.as_posix() != "__init__.py" and target.startswith("embrief.") and not item.typing_only
        and ROOMS.index(room(target) or "errors") > ROOMS.index(path.parts[0].removesuffix(".py"))
    ]  # fmt: skip
    assert wrong == []


def test_every_room_has_its_place_and_its_door():
    entries = {path.name.removesuffix(".py") for path in CORE.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms = entries - {"__init__", "__pycache__"}
    assert rooms == set(ROOMS) - {"bulk"}
    assert all((CORE / name / "__init__.py").is_file() for name in rooms if (CORE / name).is_dir())


def package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def public(item: Import) -> bool:
    """Whether an import from embrief takes only what is promised."""
    if item.module == "embrief":
        return set(item.names) <= {*embrief.__all__, "errors", "stores"}
    return item.module in PUBLIC_MODULES and not any(name.startswith("_") for name in item.names)


@pytest.mark.parametrize("name", sorted(INTEGRATIONS))
def test_a_wrapper_imports_public_names_and_its_own_framework_only(name):
    integration = INTEGRATIONS[name]
    found = imports_under(package_folder(integration.package), integration.package)
    assert any(item.root == "embrief" for _, item in found), "no import seen at all"
    wrong = []
    for _, item in found:
        if not foreign(item) or item.root == integration.package or item.root in COMPANIONS[name]:
            continue
        if item.root == "embrief":
            if not public(item):
                wrong.append(f"{item.place} {item.module} {item.names}")
        elif not any(
            target == integration.framework or target.startswith(f"{integration.framework}.")
            for target in item.targets()
        ):
            wrong.append(f"{item.place} {item.module}")
    assert wrong == []


def test_the_rooms_of_the_qdrant_wrapper_do_not_know_each_other():
    """The helpers work with every qdrant-client, also one whose inside `attach` does not know."""
    may = {
        "guard.py": (),
        "inference": ("qdrant_embrief.guard", "qdrant_embrief.inference."),
        "helpers": ("qdrant_embrief.guard", "qdrant_embrief.helpers."),
    }
    found = imports_under(package_folder("qdrant_embrief"), "qdrant_embrief")
    assert {path.parts[0] for path, _ in found} == {"__init__.py", *may}
    wrong = [
        f"{item.place} {item.module}"
        for path, item in found
        if item.root == "qdrant_embrief" and path.parts[0] in may and not item.module.startswith(may[path.parts[0]])
    ]
    assert wrong == []


def test_every_wrapper_has_its_rule():
    assert set(INTEGRATIONS) == set(COMPANIONS)
    assert len(WRAPPERS) == 4


def test_the_reader_sees_every_form_of_import():
    """Guards the tests above, which pass if nothing is seen."""
    source = """
import os.path, torch
from chromadb.api import types
from . import sibling
from ..above import thing
if TYPE_CHECKING:
    import transformers
else:
    import tokenizers
class Body:
    import safetensors
def later():
    from huggingface_hub import HfApi
    importlib.import_module("fastembed")
async def also():
    __import__("qdrant_client")
try:
    import langchain
except ImportError:
    pass
"""
    found = {item.module: item for item in imports(source, "x.py", "pkg.inner")}
    assert set(found) == {
        "os.path",
        "torch",
        "chromadb.api",
        "pkg.inner",
        "pkg.above",
        "transformers",
        "tokenizers",
        "safetensors",
        "huggingface_hub",
        "fastembed",
        "qdrant_client",
        "langchain",
    }
    assert not any(found[name].at_import for name in ("transformers", "huggingface_hub", "fastembed", "qdrant_client"))
    at_import = ("torch", "tokenizers", "safetensors", "langchain", "chromadb.api", "pkg.above")
    assert all(found[name].at_import for name in at_import)
    assert not foreign(found["os.path"])
