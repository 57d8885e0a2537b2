"""Broken and hostile wheels: each is reported and warned about, and everything else works."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import embrief

GOOD = "acme_backend,acme_chooser,acme_framework,acme_model"
BUILT_IN_MODELS = [
    "Qwen/Qwen3-Embedding-0.6B",
    "google/embeddinggemma-300m",
    "Qwen/Qwen3-Reranker-0.6B",
    "embrief/hash",
]
GOOD_MODELS = ["acme/letters", "acme/shared-letters", "acme/notes"]

# Entry point: what its report says, and what it adds all the same.
HOSTILE: dict[str, tuple[list[str], list[str]]] = {
    "bad_import_error": (["could not be loaded.*a_module_that_nobody_has"], []),
    "bad_system_exit": (["could not be loaded.*does not like your machine"], []),
    "bad_syntax_error": (["could not be loaded.*SyntaxError"], []),
    "bad_missing_module": (["could not be loaded.*a_module_that_is_not_in_the_wheel"], []),
    "bad_missing_attribute": (["could not be loaded.*no_such_attribute"], []),
    "bad_not_a_name": (["could not be loaded"], []),
    "bad_wrong_argument": (["its hooks do not fit.*verbose"], []),
    "bad_no_argument": (["register_models raised TypeError"], []),
    "bad_unknown_hook": (["implements hooks that do not exist: register_modles"], ["bad/unknown-hook"]),
    "bad_unmarked": (["implements no hook.*embrief.hookimpl"], []),
    "bad_hook_raises": (
        ["register_models raised ZeroDivisionError", "register_integrations raised RuntimeError.*nor this one"],
        ["bad/before-the-error"],
    ),
    "bad_hook_exits": (["register_models raised SystemExit"], []),
    "bad_returns": (["register_models returned a list; it must call register"], []),
    "bad_stolen_model": (
        [
            "model name 'Qwen/Qwen3-Embedding-0.6B' already belongs to 'Qwen/Qwen3-Embedding-0.6B'",
            "model name 'qwen/QWEN3-embedding-0.6b' already belongs to 'Qwen/Qwen3-Embedding-0.6B'",
            "model name 'hash' already belongs to 'embrief/hash'",
            "model name 'Hash' already belongs to 'embrief/hash'",
        ],
        ["bad/free-name"],
    ),
    "bad_stolen_backend": (
        [
            "backend name 'hash' is taken",
            "backend name 'sentence-transformers' is taken",
            "integration name 'chroma' is taken",
        ],
        [],
    ),
    "bad_garbage": (
        [
            "an EmbeddingSpec or a RerankerSpec, not str",
            "an EmbeddingSpec or a RerankerSpec, not NoneType",
            "an EmbeddingSpec or a RerankerSpec, not object",
            "an EmbeddingSpec or a RerankerSpec, not EmbeddingPrompts",
            "'bad/no-revision' needs an id and a revision",
            "a runtime is an embrief.Runtime, not str",
            "described by an Integration, not dict",
        ],
        ["bad/after-garbage"],
    ),
    "bad_bad_fields": (
        [
            "id of a model is a string.*7",
            "aliases are a tuple of strings.*bad/aliases",
            "name of a backend.*not None",
            "name of a backend.*not ''",
            "'bad-preference' needs.*an int for preference",
            "'bad-options' needs a subclass of embrief.RuntimeOptions",
            "register an instance, Odd\\(\\), not the class",
            "'bad-requires' needs.*tuples of strings for requires",
            "name of a integration.*not None|name of an integration.*not None",
        ],
        ["bad/after-bad-fields"],
    ),
    "bad_reenters": (["could not be loaded.*still loading plugins"], []),
    "bad_reenters_in_hook": (["register_models raised.*still loading plugins"], []),
    "bad_selector_raises": (["select_backend failed.*I cannot decide"], []),
    "bad_selector_exits": (["select_backend failed.*I will not decide"], []),
    "bad_selector_unknown": (["select_backend failed.*'warp-drive', which is not among"], []),
    "bad_selector_unhashable": (["select_backend failed.*which is not among"], []),
}


def report_of(answer, name, distribution=None):
    found = [report for report in answer["reports"] if report[0] == name and distribution in (None, report[1])]
    assert len(found) == 1, answer["reports"]
    return dict(zip(("name", "distribution", "version", "status", "adds", "problems"), found[0], strict=True))


def require_unharmed(answer):
    """All that is ours, and all that the well-behaved plugins add, is there and works."""
    assert set(BUILT_IN_MODELS + GOOD_MODELS) <= set(answer["models"])
    assert {"hash", "sentence-transformers", "acme-letters", "acme-hash"} <= set(answer["backends"])
    assert {"chroma", "langchain", "llama-index", "qdrant", "acme-search"} <= set(answer["integrations"])
    assert answer["works"]
    assert answer["prompt"] == "Instruct: Find planets\nQuery:red planet"
    good = [report for report in answer["reports"] if report[0].startswith(("embrief_", "acme_"))]
    assert [report for report in good if report[3] != "ok" and report[1] in ("embrief", GOOD)] == []
    assert {report[0] for report in good} >= {"embrief_chroma", *GOOD.split(",")}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_plugin_is_reported_and_harms_nothing(process, acme_site, hostile_site, name):
    problems, adds = HOSTILE[name]
    # SystemExit would end the process with another exit code, a deadlock would run into the time limit.
    answer = process.probe(acme_site, hostile_site, plugins=f"{GOOD},{name}")
    report = report_of(answer, name)
    assert report["status"] == "failed"
    assert report["distribution"].startswith("bad-")
    assert report["version"] == "1.0"
    assert report["adds"] == adds
    assert len(report["problems"]) == len(problems), report["problems"]
    for pattern, problem in zip(problems, report["problems"], strict=True):
        assert re.search(pattern, problem, re.DOTALL), problem
    # One warning for each problem, which names the plugin and says the same.
    assert len(answer["warnings"]) == len(problems), answer["warnings"]
    for pattern in problems:
        assert any(
            re.search(pattern.replace("select_backend failed", "in select_backend"), text, re.DOTALL) and name in text
            for text in answer["warnings"]
        ), answer["warnings"]
    require_unharmed(answer)


def test_all_hostile_plugins_at_once_harm_nothing(process, acme_site, hostile_site):
    answer = process.probe(hostile_site, acme_site)
    for name, (problems, adds) in HOSTILE.items():
        report = report_of(answer, name)
        assert report["status"] == "failed", report
        assert report["adds"] == adds
        assert len(report["problems"]) == len(problems)
    require_unharmed(answer)
    assert len(answer["warnings"]) >= sum(len(problems) for problems, _ in HOSTILE.values())


def test_a_stolen_entry_point_name_stays_ours(process, acme_site, hostile_site):
    answer = process.probe(acme_site, hostile_site, plugins=f"{GOOD},embrief_chroma")
    theirs = report_of(answer, "embrief_chroma", "bad-stolen-entry-point")
    assert theirs["problems"] == ["the entry point name 'embrief_chroma' already belongs to embrief"]
    assert theirs["adds"] == []
    assert report_of(answer, "embrief_chroma", "embrief")["adds"] == ["chroma"]
    assert "stolen" not in answer["integrations"]
    assert len(answer["warnings"]) == 1
    assert "bad-stolen-entry-point" in answer["warnings"][0]
    require_unharmed(answer)


def test_of_two_distributions_with_one_entry_point_name_the_second_is_reported(process, acme_site, hostile_site):
    answer = process.probe(acme_site, hostile_site, plugins=f"{GOOD},bad_twin")
    assert report_of(answer, "bad_twin", "bad-twin-one")["adds"] == ["twin_one"]
    second = report_of(answer, "bad_twin", "bad-twin-two")
    assert second["adds"] == []
    assert second["problems"] == ["the entry point name 'bad_twin' already belongs to bad-twin-one"]
    assert "twin_two" not in answer["integrations"]
    assert len(answer["warnings"]) == 1
    assert "bad-twin-two" in answer["warnings"][0]


def test_one_module_behind_two_entry_points_is_reported(process, acme_site, hostile_site):
    answer = process.probe(acme_site, hostile_site, plugins=f"{GOOD},bad_same_module,bad_same_module_again")
    assert report_of(answer, "bad_same_module")["status"] == "ok"
    assert "already registered" in report_of(answer, "bad_same_module_again")["problems"][0]
    require_unharmed(answer)


def test_a_plugin_that_fails_half_way_keeps_no_hook(process, hostile_site):
    # Up to pluggy 1.6 registering runs properties; later ones leave them alone, and then nothing is wrong with it.
    status, problems, asked = process.json(
        """
import json, warnings, embrief
warnings.simplefilter("ignore")
embrief.Embedder("embrief/hash").info()
report = embrief.plugins().reports[-1]
import half_registered
print(json.dumps([report.status, report.problems, half_registered.ASKED]))
""",
        hostile_site,
        plugins="bad_half_registered",
    )
    assert bool(asked) == (status == "ok")
    assert all("does not like to be looked at" in problem for problem in problems)


def test_a_stolen_name_changes_nothing_about_the_model(process, acme_site, hostile_site):
    answer = process.json(
        """
import json, warnings, embrief
warnings.simplefilter("ignore")
names = ["Qwen/Qwen3-Embedding-0.6B", "qwen/QWEN3-embedding-0.6b", "HASH", "bad/free-name"]
specs = [embrief.plugins().catalog.find_model(name) for name in names]
family = embrief.plugins().catalog.family("qwen3", embrief.EmbeddingSpec)
refused = [embrief.plugins().catalog.find_model(name) for name in ("bad/alias", "bad/other-alias")]
print(json.dumps([[spec.id, spec.dim] for spec in specs] + [family.id, refused]))
""",
        acme_site,
        hostile_site,
        plugins="bad_stolen_model",
    )
    assert answer == [
        ["Qwen/Qwen3-Embedding-0.6B", 1024],
        ["Qwen/Qwen3-Embedding-0.6B", 1024],
        ["embrief/hash", 1024],
        ["bad/free-name", 64],
        # A plugin may not pose as the family that unrecorded models take their prompts from.
        "Qwen/Qwen3-Embedding-0.6B",
        # A record of which one alias is taken is refused as a whole.
        [None, None],
    ]


@pytest.mark.parametrize("name", ["bad_selector_raises", "bad_selector_unknown", "bad_selector_exits"])
def test_a_failing_selector_is_asked_once_and_the_next_one_decides(process, acme_site, hostile_site, name):
    answer = process.json(
        """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import embrief
    chosen = [embrief.Embedder("acme/notes", dim=dim).info()["backend"] for dim in (None, None)]
    chosen.append(embrief.Embedder("acme/notes", device="cpu").info()["backend"])
print(json.dumps([chosen, [str(w.message) for w in caught]]))
""",
        acme_site,
        hostile_site,
        plugins=f"{GOOD},{name}",
    )
    chosen, warned = answer
    assert chosen == ["acme-hash"] * 3
    assert len(warned) == 1
    assert name in warned[0]
    assert "no longer asked" in warned[0]


def test_a_runtime_that_fails_when_asked_for_support_takes_no_model_with_it(process, acme_site, hostile_site):
    answer = process.probe(acme_site, hostile_site, plugins=f"{GOOD},bad_offer_raises")
    require_unharmed(answer)
    (problem,) = report_of(answer, "bad_offer_raises")["problems"]
    assert "'bad-offer-raises' failed when asked whether it runs" in problem
    assert len(answer["warnings"]) == 1
    assert "bad-offer-raises" in answer["warnings"][0]
    assert "no_such_field" in answer["warnings"][0]


def test_a_runtime_or_framework_whose_parent_package_is_missing_is_not_installed(process, acme_site, hostile_site):
    answer = process.probe(acme_site, hostile_site, plugins=f"{GOOD},bad_missing_parent")
    require_unharmed(answer)
    assert answer["integrations"]["bad-framework"] is False
    assert answer["warnings"] == []
    message = process.run(
        """
import embrief
try:
    embrief.Embedder("embrief/hash", backend="bad-missing-parent")
except embrief.MissingDependencyError as error:
    print(error)
""",
        hostile_site,
        plugins="bad_missing_parent",
    )
    assert "a_package_that_nobody_has.runtime" in message
    assert "pip install a-package-that-nobody-has" in message


@pytest.mark.parametrize(
    ("folder", "files", "reported"),
    [
        # A line without "=" makes importlib.metadata.entry_points() fail for every package.
        (
            "unreadable-1.0.dist-info",
            {
                "METADATA": "Metadata-Version: 2.1\nName: unreadable\nVersion: 1.0\n",
                "entry_points.txt": "[embrief]\nx\n",
            },
            "unreadable",
        ),
        (
            "someone_elses-1.0.dist-info",
            {
                "METADATA": "Metadata-Version: 2.1\nName: someone-elses\nVersion: 1.0\n",
                "entry_points.txt": "[other]\nx\n",
            },
            None,
        ),
        # What a removal that was interrupted leaves behind.
        ("half_removed-1.0.dist-info", {"entry_points.txt": "[embrief]\nhalf_removed = half_removed\n"}, "unknown"),
        ("-mpty-1.0.dist-info", {"entry_points.txt": "[embrief]\nrenamed = renamed\n"}, "unknown"),
    ],
)
def test_broken_metadata_of_one_package_harms_nothing(process, acme_site, tmp_path, folder, files, reported):
    (tmp_path / folder).mkdir()
    for name, text in files.items():
        (tmp_path / folder / name).write_text(text, "utf-8")
    # Twice: two nameless packages must not be compared by a name that is None.
    (tmp_path / f"second_{folder}").mkdir()
    (tmp_path / f"second_{folder}" / "entry_points.txt").write_text("[embrief]\nsecond = second\n", "utf-8")
    answer = process.probe(tmp_path, acme_site)
    require_unharmed(answer)
    distributions = [report[1] for report in answer["reports"] if report[3] == "failed"]
    if reported is not None:
        assert reported in distributions
    assert len(distributions) == (1 if reported is None else 2)
    assert len(answer["warnings"]) == len(distributions)


def test_a_warning_turned_into_an_error_does_not_undo_the_discovery(process, acme_site, hostile_site):
    answer = process.json(
        """
import json, sys, warnings, embrief
warnings.simplefilter("error")
try:
    embrief.plugins()
except embrief.PluginWarning as warning:
    raised = str(warning)
print(json.dumps([raised, len(embrief.plugins().reports), embrief.Embedder("hash").dim]))
""",
        acme_site,
        hostile_site,
        plugins=f"{GOOD},bad_import_error",
    )
    assert "a_module_that_nobody_has" in answer[0]
    assert answer[1:] == [9, 1024]


def test_the_warning_is_shown_by_default(process, hostile_site, tmp_path):
    code = "import embrief, sys; sys.stderr = sys.stdout; embrief.plugins()"
    shown = process.run(code, hostile_site, plugins="bad_import_error")
    assert "PluginWarning" in shown
    assert "bad_import_error" in shown


def test_hostile_files_are_all_tried():
    tried = {name.removeprefix("bad_") for name in HOSTILE}
    by_their_own_test = {
        "stolen_entry_point",
        "twin",
        "same_module",
        "offer_raises",
        "missing_parent",
        "half_registered",
    }
    assert {path.stem for path in (Path(__file__).parent / "hostile").glob("*.py")} <= tried | by_their_own_test


def test_reports_are_plain_data_for_the_command_line():
    for report in embrief.plugins().reports:
        assert json.dumps([report.name, report.distribution, report.version, report.status, report.adds])
