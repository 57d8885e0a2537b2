"""Third-party wheels that do it right: a model, a runtime, a framework and a choice of runtime, one file each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

BUILT_IN = ["embrief_chroma", "embrief_langchain", "embrief_llama_index", "embrief_qdrant"]
ACME = ["acme_backend", "acme_chooser", "acme_framework", "acme_model"]


def test_each_plugin_is_found_and_reported_with_what_it_adds(process, acme_site):
    answer = process.probe(acme_site)
    reports = {name: tuple(rest) for name, *rest in answer["reports"]}
    assert list(reports) == BUILT_IN + ACME  # ours first, then others in the order of their distributions
    assert reports["acme_model"] == ("acme-model", "1.2.3", "ok", ["acme/notes"], [])
    assert reports["acme_backend"] == (
        "acme-backend",
        "1.2.3",
        "ok",
        ["acme/letters", "acme/shared-letters", "acme-letters"],
        [],
    )
    assert reports["acme_framework"] == ("acme-framework", "1.2.3", "ok", ["acme-search"], [])
    assert reports["acme_chooser"] == ("acme-chooser", "1.2.3", "ok", ["acme-hash"], [])
    assert answer["warnings"] == []
    assert answer["works"]


def test_a_model_works_through_the_facade_with_its_own_prompts(process, acme_site):
    answer = process.json(
        """
import json, embrief
embedder = embrief.Embedder("Notes")  # the alias, in any case
vectors = embedder.embed_documents(["Mars is the Red Planet.", "Venus is bright."])
print(json.dumps({
    "model": embedder.spec.id,
    "prompts": [embedder.render("x", role="query"), embedder.render("x", role="document"),
                embedder.render("x", role="query", instruction="find")],
    "best": int((vectors @ embedder.embed_query("red planet")).argmax()),
    "shape": vectors.shape,
    "space": embedder.space.model,
}))
""",
        acme_site,
        plugins="acme_model",
    )
    assert answer == {
        "model": "acme/notes",
        "prompts": ["ask: x", "note: x", "find: x"],
        "best": 0,
        "shape": [2, 64],
        "space": "acme/notes",
    }


def test_a_runtime_serves_its_own_architecture_and_nothing_else(process, acme_site):
    answer = process.json(
        """
import asyncio, json, embrief
embedder = embrief.Embedder("acme/letters")
reranker = embrief.Reranker("acme/shared-letters")
documents = ["zzz", "abc", "xyz"]
ranked = reranker.rerank("cab", documents, top_n=2)
try:
    embrief.Embedder("embrief/hash", backend="acme-letters")
except embrief.ArgumentError as error:
    refused = str(error)
print(json.dumps({
    "backends": [embedder.info()["backend"], reranker.info()["backend"], embrief.Embedder("hash").info()["backend"]],
    "shape": embedder.embed_documents(documents).shape,
    "async": asyncio.run(embedder.aembed_query("abc")).tolist() == embedder.embed_query("abc").tolist(),
    "ranked": [item.index for item in ranked],
    "in_range": all(0 <= item.score <= 1 for item in ranked),
    "refused": refused,
}))
""",
        acme_site,
        plugins="acme_backend",
    )
    refused = answer.pop("refused")
    assert answer == {
        "backends": ["acme-letters", "acme-letters", "hash"],
        "shape": [3, 26],
        "async": True,
        "ranked": [1, 0],
        "in_range": True,
    }
    assert "'acme-letters' cannot run embrief/hash" in refused
    assert "those that can: hash" in refused


def test_the_runtime_of_a_plugin_keeps_the_contract(process, acme_site):
    process.run(
        """
import acme_backend as plugin
from embrief.testing import check_runtime
check_runtime(plugin.LettersBackend(), plugin.LETTERS)
check_runtime(plugin.SharedLettersBackend(), plugin.SHARED_LETTERS)
""",
        acme_site,
    )


def test_a_framework_is_listed_with_its_command_and_need_not_be_installed(process, acme_site):
    answer = process.json(
        """
import json, embrief
from acme_framework import NotesIndex
item = embrief.plugins().catalog.integrations["acme-search"]
index = NotesIndex(embrief.Embedder("embrief/hash", dim=256))
index.add(["Mars is the Red Planet.", "Venus is bright."])
print(json.dumps([item.installed, item.install, list(item.provides), index.search("the red planet")]))
""",
        acme_site,
        plugins="acme_framework",
    )
    assert answer == [False, "pip install acme-search-engine", ["NotesIndex"], "Mars is the Red Planet."]


def test_a_hook_chooses_the_runtime_and_the_user_overrules_it(process, acme_site):
    answer = process.json(
        """
import json, embrief
chosen = {
    "hook": embrief.Embedder("acme/notes").info()["backend"],
    "user": embrief.Embedder("acme/notes", backend="hash").info()["backend"],
    "no answer": embrief.Embedder("embrief/hash").info()["backend"],
}
import acme_chooser
print(json.dumps([chosen, acme_chooser.ASKED]))
""",
        acme_site,
        plugins="acme_model,acme_chooser",
    )
    chosen, asked = answer
    assert chosen == {"hook": "acme-hash", "user": "hash", "no answer": "hash"}
    # The installed runtimes that serve the model, best first; nobody is asked when the user has chosen.
    assert {model for model, _ in asked} == {"acme/notes", "embrief/hash"}
    assert all(available == ["hash", "acme-hash"] for _, available in asked)


SELECTOR = """
from embrief import Offer, Refusal, Runtime, hookimpl

class Other(Runtime):
    name = __name__
    preference = -2

    def offer(self, spec, ask):
        return Offer(device="cpu", dtype="float32") if spec.architecture == "hash" else Refusal("hashes")

    def load(self, request):
        raise AssertionError("never loaded")

@hookimpl
def register_backends(register):
    register(Other())

@hookimpl{arguments}
def select_backend(available):
    return {answer}
"""


@pytest.mark.parametrize(
    ("first", "second", "answer", "chosen"),
    [
        ("", "", "__name__", "selector_b"),  # the plugin that was loaded last
        ("", "", None, "selector_a"),  # ... unless it leaves the choice to others
        ("(tryfirst=True)", "", "__name__", "selector_a"),
        ("", "(trylast=True)", "__name__", "selector_a"),
    ],
)
def test_of_several_answers_the_one_of_the_last_plugin_counts(
    process, wheel_writer, installer, tmp_path, first, second, answer, chosen
):
    sources = {
        "selector_a": SELECTOR.format(arguments=first, answer="__name__"),
        "selector_b": SELECTOR.format(arguments=second, answer=answer),
    }
    wheel = wheel_writer(tmp_path, "selectors", sources, {name: name for name in sources})
    site = installer([wheel], tmp_path / "site")
    code = "import embrief; print(embrief.Embedder('embrief/hash').info()['backend'])"
    assert process.run(code, site).strip() == chosen


def test_the_variable_restricts_third_parties_only(process, acme_site):
    def names(value):
        return [name for name, *_ in process.probe(acme_site, plugins=value, use=False)["reports"]]

    assert names(None) == BUILT_IN + ACME
    assert names("") == BUILT_IN
    assert names("acme_model") == [*BUILT_IN, "acme_model"]
    assert names(" acme_model , acme_backend,") == [*BUILT_IN, "acme_backend", "acme_model"]
    # The name of an entry point counts, not that of its distribution.
    assert names("acme-model") == BUILT_IN


def test_a_plugin_left_out_is_not_even_imported(process, acme_site):
    code = "import embrief, sys; embrief.plugins(); print('acme_backend' in sys.modules, 'acme_model' in sys.modules)"
    assert process.run(code, acme_site, plugins="acme_model").split() == ["False", "True"]


def test_names_in_the_variable_that_nobody_has_are_named_in_a_warning(process, acme_site):
    warned = process.probe(acme_site, plugins="acme_model,acme_modle", use=False)["warnings"]
    assert len(warned) == 1
    assert "EMBRIEF_PLUGINS" in warned[0]
    assert "acme_modle" in warned[0]


def test_the_same_distribution_in_two_folders_counts_once(process, acme_site, tmp_path):
    twin = Path(shutil.copytree(acme_site, tmp_path / "twin"))
    answer = process.probe(acme_site, twin)
    assert [name for name, *_ in answer["reports"]] == BUILT_IN + ACME
    assert answer["warnings"] == []


def test_the_order_does_not_depend_on_the_import_path(process, wheel_writer, installer, tmp_path):
    source = "from embrief import hookimpl\n@hookimpl\ndef register_models(register):\n    pass\n"
    sites = []
    # Distributions and entry points in opposite orders, so that sorting by one is not sorting by the other.
    for name, points in (("zeta", "ab"), ("alpha", "yx")):
        modules = {f"{name}_{point}": source for point in points}
        wheel = wheel_writer(tmp_path, name, modules, {f"{point}_{name}": f"{name}_{point}" for point in points})
        sites.append(installer([wheel], tmp_path / f"site-{name}"))
    for order in (sites, sites[::-1]):
        names = [name for name, *_ in process.probe(*order, use=False)["reports"]]
        assert names == [*BUILT_IN, "x_alpha", "y_alpha", "a_zeta", "b_zeta"]


COUNTING = """
import sys, time
from embrief import hookimpl

sys.plugin_imports = getattr(sys, "plugin_imports", 0) + 1
sys.plugin_calls = 0

@hookimpl
def register_models(register):
    seen = sys.plugin_calls
    time.sleep(0.2)  # long enough for every thread to arrive
    sys.plugin_calls = seen + 1
"""


def test_eight_threads_discover_once_and_get_the_same(process, wheel_writer, installer, tmp_path):
    site = installer(
        [wheel_writer(tmp_path, "counting", {"counting": COUNTING}, {"counting": "counting"})], tmp_path / "s"
    )
    answer = process.json(
        """
import json, sys, threading, embrief
barrier, found = threading.Barrier(8), []
def ask():
    barrier.wait()
    found.append(embrief.plugins())
threads = [threading.Thread(target=ask) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
embrief.Embedder("embrief/hash").embed_query("x")
same = len({id(item) for item in [*found, embrief.plugins()]})
print(json.dumps([sys.plugin_imports, sys.plugin_calls, len(found), same, len(found[0].reports)]))
""",
        site,
    )
    assert answer == [1, 1, 8, 1, 5]


def test_importing_embrief_discovers_nothing(process, acme_site):
    assert process.run("import embrief, sys; print('acme_model' in sys.modules)", acme_site).strip() == "False"
