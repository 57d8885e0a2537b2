"""What a message tells people to install: in the form that works where the package came from."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import embrief
import embrief.system.installed
from embrief.errors import EmbriefError, MissingDependencyError

ROOT = Path(embrief.system.installed.__file__).resolve().parents[3]

WRAPPERS = [
    ("llama_index_embrief", "llama_index.core", "llama-index"),
    ("llama_index_embrief", "llama_index", "llama-index"),
    ("langchain_embrief", "langchain_core", "langchain"),
    ("chroma_embrief", "chromadb", "chroma"),
    ("chroma_embrief", "jsonschema", "chroma"),
    ("qdrant_embrief", "qdrant_client", "qdrant"),
]


@pytest.mark.parametrize(("package", "needs", "extra"), WRAPPERS)
def test_a_wrapper_without_its_framework_says_what_to_install(package, needs, extra):
    code = (
        f"import sys; sys.modules[{needs!r}] = None\n"
        f"try:\n    import {package}\n"
        "except ImportError as error:\n"
        "    print(*(kind.__name__ for kind in type(error).__mro__), sep=',')\n"
        "    print(error)\n    print(repr(error.__cause__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kinds, message, cause = done.stdout.splitlines()
    assert {MissingDependencyError.__name__, EmbriefError.__name__, ImportError.__name__} <= set(kinds.split(","))
    assert f"[{extra}]" in message
    assert package in message
    assert needs in cause


def load(file):
    spec = importlib.util.spec_from_file_location("installed_elsewhere", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checkout(folder):
    """Copy the module to where it lies in a checkout."""
    (folder / "core" / "embrief" / "system").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    return shutil.copy(embrief.system.installed.__file__, folder / "core" / "embrief" / "system")


def test_in_a_checkout_the_checkout_is_installed(tmp_path, monkeypatch):
    module = load(checkout(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    assert module.install_command("torch") == 'pip install -e ".[torch]"'
    monkeypatch.chdir(tmp_path)
    # The command with a dot works in one folder only.
    assert module.install_command("torch") == f'pip install -e ".[torch]" (in {tmp_path / "clone"})'


def test_where_the_package_was_installed_its_name_is_used(tmp_path):
    site = tmp_path / "lib" / "python3" / "site-packages" / "embrief" / "system"
    site.mkdir(parents=True)
    module = load(shutil.copy(embrief.system.installed.__file__, site))
    assert module.install_command("torch") == 'pip install "embrief[torch]"'
    # Somebody else's project around an environment is not this one's checkout.
    (tmp_path / "lib" / "python3" / "pyproject.toml").touch()
    assert module.install_command("eval") == 'pip install "embrief[eval]"'


def test_no_message_names_a_form_by_itself():
    """Guards the two above: a command that is spelt out in a message is right in one place only."""
    sources = [*(ROOT / "core" / "embrief").rglob("*.py"), *(ROOT / "integrations").rglob("*.py")]
    assert len(sources) > 100
    spelt = [file.name for file in sources if 'pip install "embrief[' in file.read_text("utf-8")]
    assert spelt == ["installed.py"]


def test_each_runtime_names_an_extra_that_there_is():
    """And that brings what it needs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    asked = [runtime for runtime in embrief.plugins().catalog.backends.values() if runtime.requires]
    assert len(asked) >= 8
    for runtime in asked:
        extra = re.search(r"\[(.+?)\]", runtime.install).group(1)
        assert runtime.install == embrief.system.installed.install_command(extra)
        brought = {re.match(r"[\w-]+", line).group().replace("-", "_") for line in extras[extra]}
        # One that is not imported by the name that it is installed by.
        brought |= {"llama_cpp"} & {name.removesuffix("_python") for name in brought}
        assert set(runtime.requires) <= brought, runtime.name


def test_a_server_without_the_http_library_says_what_to_install():
    code = (
        "from embrief.servers import HttpSimple; from embrief import Embedder\n"
        "import embrief.runtimes.base as base; found = base.is_installed\n"
        "base.is_installed = lambda name: name != 'httpx' and found(name)\n"
        "try:\n    Embedder('BAAI/bge-m3', backend=HttpSimple(base_url='http://127.0.0.1:1'))\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(MissingDependencyError.__name__)
    assert "[http-simple]" in done.stdout
