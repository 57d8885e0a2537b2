"""Write the tables of the documentation: models, servers and settings from the code, the status from test results.

    python .ci/make_tables.py models [--check]
    python .ci/make_tables.py servers [--check]
    python .ci/make_tables.py config [--check]
    python .ci/make_tables.py status REPORT.xml [--check]

REPORT.xml is what `pytest -o junit_family=xunit1 --junitxml=REPORT.xml` wrote. With --check nothing is written, and a
table that is not up to date is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

STATUS = (
    (
        "Vectors and scores equal sentence-transformers' and the model cards' on the same checkpoint",
        "tests/core/test_oracles.py",
    ),
    ("The engine gives the same numbers: packed, with shared prefixes, in any company", "tests/engine/"),
    ("Concurrent calls share batches; queries first; one bad text fails alone", "tests/core/test_scheduler.py"),
    ("Prompts byte for byte: every family, task and role", "tests/core/test_prompts.py"),
    ("Models told apart by their files; wrong, incomplete or altered models refused", "tests/core/test_identify.py"),
    ("A folder is read closed-world: what moves a vector is honoured or refused", "tests/core/test_folder_keys.py"),
    ("Damaged, surplus, missing and quantised tensors are refused", "tests/core/test_tensors_that_fit.py"),
    ("A record, its files and the runtimes agree", "tests/core/test_check_model.py"),
    ("Pictures: guarded decoding, exact pixels, guarded addresses", "tests/images/"),
    (
        "Texts and pictures in one space: vectors and scores are those of transformers' model",
        "tests/engine/test_engine_pictures.py",
    ),
    ("int8 is right or refused on every processor", "tests/engine/test_engine_processors.py"),
    (
        "Exports, GGUF files and mistral.rs give the model's own vectors; a damaged or altered file ends no process",
        "tests/runtimes/",
    ),
    (
        "Servers: what they do to a text is put right or refused; every fault of theirs has a typed end",
        "tests/servers/",
    ),
    ("Wrong inputs are refused before work starts", "tests/core/test_inputs.py"),
    ("Errors are of one tree, with value, index, side and remedy", "tests/messages/"),
    ("The interpreter's exit neither aborts nor hangs", "tests/core/test_exit.py"),
    ("The event loop turns while a model loads", "tests/core/test_event_loop.py"),
    ("A cache gives the model's own bits, also after kills, damage and forks", "tests/cache/"),
    ("Downloads: safetensors only, pinned commit, gated, offline, full disk", "tests/core/test_weights.py"),
    ("One load under concurrency, event loop never blocked, pickles without weights", "tests/core/test_facades.py"),
    ("Vector spaces: identity, storage format, guard", "tests/core/test_space.py"),
    ("LlamaIndex", "tests/integrations/llama_index/"),
    ("LangChain, with its own standard test suites", "tests/integrations/langchain/"),
    ("Chroma, reopened in a new process", "tests/integrations/chroma/"),
    ("Qdrant, sync and async", "tests/integrations/qdrant/"),
    ("The same text gives the same vector in all of them", "tests/integrations/test_same_vectors.py"),
    ("Plugins from real wheels; broken and hostile ones isolated", "tests/plugins/"),
    ("The tiny family: other libraries read it alike; a wrong prompt, pooling or cut costs it nDCG", "tests/tiny/"),
    ("Retrieval quality: measures with known answers, resumed runs, our models inside mteb", "tests/evaluation/"),
    ("Configuration: places of mistakes, names, references, the registry under threads and forks", "tests/config/"),
    ("No store names a model but by a recorded id or a commit", "tests/integrations/test_stores_name_no_models.py"),
    ("Command line and demo, without network", "tests/cli/"),
    ("Files, passages, collections: git's rules, exact lines, token limits, kills, locks, watching", "tests/indexing/"),
    ("A search answered by a process that stays; who may ask it", "tests/local/"),
    ("The server: each dialect by real clients, guards, keys, limits, MCP, the page's answers", "tests/server/"),
    ("Every code block of the documentation runs, but for those marked `notest`", "tests/docs/"),
)


def models_table() -> str:
    """Return one row per recorded model."""
    from embrief.discovery.plugins import catalog
    from embrief.facts.specs import EmbeddingSpec

    rows = ["| model | dim | tokens | licence | commit | runs | verified |", "|---|---|---|---|---|---|---|"]
    for spec in catalog().models.values():
        if isinstance(spec, EmbeddingSpec):
            shorter = (
                f"{spec.mrl[0]}–{spec.mrl[-1]}" if isinstance(spec.mrl, range) else ", ".join(map(str, spec.mrl[:-1]))
            )
            dim = f"{spec.dim} ({shorter})" if shorter else f"{spec.dim}"
        else:
            dim = "reranker"
        licence = f"{spec.license}, gated" if spec.gated else spec.license
        verified = "yes" if spec.verified else "no"
        where = f"hosted by {spec.hosted}" if spec.hosted else "on servers" if spec.needs_server else "here"
        version = spec.revision[:8] if len(spec.revision) == 40 else spec.revision
        # A hosted model has no version but its name.
        commit = "–" if spec.hosted else f"`{version}`"
        rows.append(f"| `{spec.id}` | {dim} | {spec.max_tokens:,} | {licence} | {commit} | {where} | {verified} |")
    return "\n".join(rows)


def servers_table() -> str:
    """Return one row per kind of server."""
    from embrief.discovery.plugins import catalog
    from embrief.servers.habits import HABITS

    rows = [
        "| server | `backend` | prompt | final token | white space | unit length | `dimensions` | over the limit "
        "| model name | reranks | what embrief does besides | tested with |",
        "|" + "---|" * 12,
    ]
    for runtime in catalog().backends.values():
        for habits in HABITS.get(runtime.name, ()):
            cells = (
                habits.server, f"`{runtime.name}`", habits.prompt, habits.final_token, habits.white_space,
                habits.normalises, habits.dims, habits.over_limit, habits.model_name, habits.rerank, habits.here,
                "the software" if habits.seen == "real" else "payloads",
            )  # fmt: skip
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def config_tables() -> dict[str, str]:
    """Return the tables of a configuration's settings, of other words for them, of providers and of variables."""
    from embrief.config.aliases import FILE_ALIASES, MODEL_ALIASES
    from embrief.config.environment import VARIABLES
    from embrief.config.providers import PROVIDER_ALIASES, PROVIDERS
    from embrief.config.schema import FILE_SETTINGS, MODEL_SETTINGS

    belongs = {"process": "models in this process", "server": "models on servers"}
    settings = ["| setting | for | what |", "|---|---|---|"]
    for item in MODEL_SETTINGS.values():
        of = " and ".join(belongs.get(name, f"`{name}`") for name in item.of) or "all"
        choices = f": {', '.join(f'`{choice}`' for choice in item.choices)}" if item.choices else ""
        settings.append(f"| `{item.name}` | {of} | {item.means}{choices} |")
    words: dict[str, dict[str, list[str]]] = {}
    for aliases in (FILE_ALIASES, MODEL_ALIASES):
        for word, alias in aliases.items():
            words.setdefault(alias.setting, {}).setdefault(alias.note, []).append(f"`{word}`")
    others = {
        setting: "; ".join(f"{', '.join(found)}{f' ({note})' if note else ''}" for note, found in notes.items())
        for setting, notes in words.items()
    }
    providers = ["| provider | what it is | address |", "|---|---|---|"]
    for name, provider in PROVIDERS.items():
        same = [f"`{word}`" for word, meant in PROVIDER_ALIASES.items() if meant == name]
        also = f" (also {', '.join(same)})" if same else ""
        usual = next((kind.default_url for kind in (provider.embeds, provider.reranks) if kind is not None), None)
        url = provider.base_url or usual
        needed = "" if provider.in_process else "`base_url`"
        providers.append(f"| `{name}`{also} | {provider.means} | {f'`{url}`' if url else needed} |")
    return {
        "file": _rows("| in the file | what |", ((f"`{name}`", what) for name, what in FILE_SETTINGS.items())),
        "settings": "\n".join(settings),
        "words": _rows("| setting | other words for it |", ((f"`{name}`", found) for name, found in others.items())),
        "providers": "\n".join(providers),
        "variables": _rows("| variable | what |", ((f"`{name}`", what) for name, what in VARIABLES.items())),
    }


def _rows(head: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([head, "|---|---|", *(f"| {first} | {second} |" for first, second in rows)])


def status_table(report: Path) -> str:
    """Return one row per promise, with what the tests said."""
    results: dict[str, list[str]] = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None
        state = "fails" if bad else "skipped" if case.find("skipped") is not None else "passes"
        results.setdefault(case.get("file", "").replace("\\", "/"), []).append(state)
    rows = ["| promise | shown by | state |", "|---|---|---|"]
    for promise, place in STATUS:
        states = [state for file, found in results.items() if file.startswith(place) for state in found]
        state = "fails" if "fails" in states else "passes" if "passes" in states else "not run"
        rows.append(f"| {promise} | `{place}` | {state} |")
    return "\n".join(rows)


def put(file: Path, name: str, table: str, *, check: bool) -> int:
    """Put a table between its markers; return an exit code."""
    text = file.read_text("utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
    new, count = pattern.subn(lambda match: match[1] + table + match[2], text)
    if count != 1:
        sys.exit(f"{file.name} needs the markers <!-- {name} --> and <!-- /{name} -->")
    if new == text:
        return 0
    if check:
        print(f"{file.relative_to(ROOT)}: the table of {name} is out of date; run .ci/make_tables.py without --check")
        print(table)
        return 1
    file.write_text(new, "utf-8")
    print(f"wrote {file.relative_to(ROOT)}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["models", "servers", "config", "status"])
    parser.add_argument("report", type=Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.what == "models":
        return put(ROOT / "docs" / "models.md", "models", models_table(), check=options.check)
    if options.what == "servers":
        return put(ROOT / "docs" / "runtimes.md", "servers", servers_table(), check=options.check)
    if options.what == "config":
        page = ROOT / "docs" / "configuration.md"
        return max(put(page, name, table, check=options.check) for name, table in config_tables().items())
    if options.report is None:
        parser.error("status needs a report")
    return put(ROOT / "docs" / "status.md", "status", status_table(options.report), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
