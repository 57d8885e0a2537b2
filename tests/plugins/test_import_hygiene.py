"""What importing costs: nothing heavy comes in until it is used."""

from __future__ import annotations

import pytest

RUNTIMES = ["torch", "transformers", "sentence_transformers", "huggingface_hub", "safetensors", "tokenizers"]
FRAMEWORKS = [
    "llama_index",
    "langchain_core",
    "langchain",
    "langchain_classic",
    "chromadb",
    "qdrant_client",
    "fastembed",
    "pydantic",
    "jsonschema",
]
WRAPPERS = ["llama_index_embrief", "langchain_embrief", "chroma_embrief", "qdrant_embrief"]
# Each takes a noticeable part of the time that `embrief --help` may take.
SLOW = ["asyncio", "httpx", "requests", "rich", "typer", "click", "pandas", "scipy", "sqlite3", "ssl", "unittest"]

# Anybody who asks for one of these is caught, whether or not it is installed, and also if the error is swallowed.
WATCH = """
import sys
class Watch:
    asked = []
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            self.asked.append(name)
sys.meta_path.insert(0, Watch())
"""


def asked_for(process, code, *sites, forbidden):
    header = f"FORBIDDEN = {set(forbidden)!r}{WATCH}"
    footer = """
import json
print(json.dumps(sorted({*Watch.asked, *(name for name in sys.modules if name.partition(".")[0] in FORBIDDEN)})))
"""
    return process.json(header + code + footer, *sites)


@pytest.mark.parametrize("code", ["import embrief", "import embrief; embrief.plugins()", "import embrief.testing"])
def test_importing_and_discovering_ask_for_nothing_heavy(process, acme_site, code):
    forbidden = [*RUNTIMES, *FRAMEWORKS, *WRAPPERS, *SLOW]
    assert asked_for(process, code, forbidden=forbidden) == []
    assert asked_for(process, code, acme_site, forbidden=forbidden) == []


def test_the_watch_sees_what_it_should_see(process):
    """Guards the test above: an import that fails or hides must not escape it."""
    code = """
try:
    import torch.nn_that_does_not_exist
except ImportError:
    pass
def later():
    import chromadb_is_not_meant, chromadb.nothing
try:
    later()
except ImportError:
    pass
"""
    seen = asked_for(process, code, forbidden=["torch", "chromadb"])
    assert "torch" in seen
    assert "chromadb_is_not_meant" not in seen


def loaded_after(process, code):
    forbidden = {*RUNTIMES, *FRAMEWORKS, *WRAPPERS}
    footer = f"\nimport json, sys; print(json.dumps(sorted({forbidden!r} & set(sys.modules))))"
    return process.json(code + footer)


def test_listing_says_what_is_installed_without_importing_it(process):
    code = """
import embrief
found = embrief.plugins().catalog
assert {"openai", "tei", "ollama", "rerank-http", "http-simple", "hf-inference"} <= set(found.backends)
installed = [item.installed for item in found.integrations.values()]
missing = [item.missing() for item in found.backends.values()]
assert len(installed) == 4 and len(missing) >= 2
"""
    assert loaded_after(process, code) == []


@pytest.mark.parametrize("code", ["import embrief; embrief.plugins()", "import embrief.servers"])
def test_describing_runtimes_needs_no_numbers_and_no_network(process, code):
    forbidden = ["numpy", "httpx", "asyncio", "ssl", "huggingface_hub"]
    assert asked_for(process, code, forbidden=forbidden) == []


@pytest.mark.parametrize(
    "code",
    [
        """
import embrief
from embrief.servers import HfInference, HttpSimple, OpenAI, Tei
for options in (OpenAI(base_url="http://127.0.0.1:1/v1"), Tei(base_url="http://127.0.0.1:1"),
                HttpSimple(base_url="http://127.0.0.1:1"), HfInference()):
    try:
        embrief.Embedder("BAAI/bge-m3", backend=options).info()
    except embrief.MissingDependencyError:
        continue
""",
        """
from typer.testing import CliRunner
from embrief.cli import app
done = CliRunner().invoke(app, ["models"])
assert done.exit_code == 0 and "bge-m3" in done.output, done.output
""",
    ],
    ids=["naming a server", "embrief models"],
)
def test_nothing_that_speaks_http_is_imported_before_a_server_is_asked(process, code):
    footer = "\nimport json, sys; print(json.dumps([name for name in ('httpx', 'requests') if name in sys.modules]))"
    assert process.json(code + footer) == []


def test_making_facades_and_asking_for_spaces_imports_no_runtime(process):
    code = """
import embrief
for name, spec in embrief.plugins().catalog.models.items():
    facade = embrief.Reranker if isinstance(spec, embrief.RerankerSpec) else embrief.Embedder
    if spec.elsewhere is not None:
        continue
    try:
        made = facade(name)
    except embrief.MissingDependencyError:
        continue
    if facade is embrief.Embedder:
        made.space.id, made.render("text", role="query"), made.with_dim(made.dim)
"""
    assert loaded_after(process, code) == []


def test_choosing_what_runs_offline_imports_no_runtime(process):
    assert loaded_after(process, "from embrief.config.offline import offline_models; offline_models()") == []


def test_embedding_with_the_lexical_model_imports_no_runtime(process):
    code = """
import embrief
embedder = embrief.Embedder("embrief/hash", dim=64)
embedder.embed_documents(["one", "two"]); embedder.info()
"""
    assert loaded_after(process, code) == []
