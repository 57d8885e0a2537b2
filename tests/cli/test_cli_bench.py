"""`embrief bench`, end to end on models of two layers. Nothing here depends on how fast the machine is."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

from embrief.cli import app

pytest.importorskip("sentence_transformers")

ROWS = "queries,u,rerank,gemma,gemma2"
# The lowest transformers does not have it.
GEMMA2 = ["gemma2"] if find_spec("transformers.models.embedding_gemma2") else []


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small gain nothing by threads, and wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


def bench(folder, *arguments):
    fixed = ["bench", "--shape", "tiny", "--repeats", "1", "--device", "cpu", "--folder", str(folder)]
    return CliRunner().invoke(app, [*fixed, *arguments], env={"COLUMNS": "140"})


@pytest.fixture(scope="module")
def first(folder):
    """One real run of several rows."""
    done = bench(folder, "--only", ROWS, "--json")
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def data(first):
    return json.loads(first.stdout)


def runs_of(row):
    return {run["name"]: run for run in row["runs"] if "unavailable" not in run}


def test_every_row_compares_both_libraries_on_the_same_tokens(data):
    assert list(data["rows"]) == ["queries", "u", "rerank", "gemma", *GEMMA2]
    for key, row in data["rows"].items():
        runs = runs_of(row)
        assert {"embrief bf16", "embrief fp32", "ST bf16, batch 32"} <= set(runs), key
        assert sum(name.startswith("ST fp32") for name in runs) == 1
        assert {row["default"], row["best"]} <= set(runs)
        for run in runs.values():
            assert run["tokens_per_s"] == pytest.approx(row["tokens"] / np.median(run["seconds"]))


def test_ratios_are_against_the_default_and_the_best(data):
    for row in data["rows"].values():
        runs = runs_of(row)
        assert runs[row["default"]]["vs_default"] == 1
        assert runs[row["best"]]["vs_best"] == 1
        native = "ST bf16" if row["ceiling_format"] == "bfloat16" else "ST fp32"
        same = [run for name, run in runs.items() if name.startswith(native)]
        assert min(np.median(run["seconds"]) for run in same) == np.median(runs[row["best"]]["seconds"])
        for run in runs.values():
            expected = np.median(runs[row["default"]]["seconds"]) / np.median(run["seconds"])
            assert run["vs_default"] == pytest.approx(expected)


def test_the_numbers_stand_beside_the_speeds(data):
    for key, row in data["rows"].items():
        runs = runs_of(row)
        oracle = next(run for name, run in runs.items() if name.startswith("ST fp32"))
        if key == "rerank":
            assert oracle["difference_max"] == 0
            assert runs["embrief fp32"]["difference_max"] < 1e-5
            assert 1e-6 < runs["embrief bf16"]["difference_max"] < 0.1
            assert runs["embrief bf16"]["difference_mean"] <= runs["embrief bf16"]["difference_max"]
        else:
            assert oracle["cosine_min"] == pytest.approx(1, abs=1e-9)
            assert runs["embrief fp32"]["cosine_min"] > 0.999999
            assert 0.99 < runs["embrief bf16"]["cosine_min"] < 0.999999
            assert runs["embrief bf16"]["cosine_min"] <= runs["embrief bf16"]["cosine_mean"]


def test_pictures_are_compared_with_transformers_on_the_same_pixels_and_ids(folder, tmp_path):
    pytest.importorskip("transformers.models.qwen3_vl")
    pytest.importorskip("PIL")
    rows = ("photos", "pages", "mixed", "rank-pages")
    done = bench(folder, "--only", ",".join(rows), "--dtype", "float32", "--out", str(tmp_path / "r.json"), "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["rows"]
    assert tuple(found) == rows
    for key, row in found.items():
        runs = runs_of(row)
        ours, oracle = (
            runs["embrief fp32"],
            next(run for name, run in runs.items() if name.startswith("transformers fp32")),
        )
        assert row["default"].startswith("transformers ")
        assert ours["vs_default"] > 0
        assert not any("of_ceiling" in run for run in runs.values())
        if key == "rank-pages":
            assert (oracle["difference_max"], ours["difference_max"]) == (0, pytest.approx(0, abs=1e-5))
        else:
            assert ours["cosine_min"] > 0.99999
    assert [found[key]["texts"] for key in rows] == [2, 1, 3, 2]


def test_workloads_with_pictures_hold_what_they_say(folder):
    pytest.importorskip("PIL")
    from embrief.bench.checkpoint import make
    from embrief.bench.pictures import build_pictures
    from embrief.bench.settings import Sizes
    from embrief.bench.shapes import TINY_QWEN3_VL

    model = make(TINY_QWEN3_VL, 4, "embedder", folder)
    photos, pages = (build_pictures(name, model, Sizes(photos=2, pages=1)) for name in ("photos", "pages"))
    pad = model.folder / "config.json"
    pad_id = json.loads(pad.read_text("utf-8"))["image_token_id"]
    assert [row.count(pad_id) for row in (*photos.ids, *pages.ids)] == [300, 300, 1260]
    assert photos.shown[0] != photos.shown[1]
    mixed = build_pictures("mixed", model, Sizes(mixed=6, photo=(64, 64)))
    assert [(bool(text), image is not None) for text, image in zip(mixed.texts, mixed.shown, strict=True)] == [
        (True, False), (True, True), (False, True),
    ] * 2  # fmt: skip
    assert mixed.part([1]).inputs == [(mixed.shown[1], mixed.texts[1])]


def test_no_picture_is_timed_twice(folder, tmp_path, monkeypatch):
    """The engine computes equal pictures once: in a second round the text model alone would be timed."""
    pytest.importorskip("transformers.models.qwen3_vl")
    pytest.importorskip("PIL")
    from embrief.bench import measure
    from embrief.engine.seen import SeenPictures

    computed = []
    begin = SeenPictures.__init__

    def watched(self, compute):
        def counted(pixels):
            computed.append(len(pixels))
            return compute(pixels)

        begin(self, counted)

    monkeypatch.setattr(SeenPictures, "__init__", watched)
    monkeypatch.setattr(measure, "_native", lambda device: "float32")
    out = str(tmp_path / "r.json")
    done = bench(folder, "--only", "photos", "--dtype", "float32", "--repeats", "3", "--out", out)
    assert done.exit_code == 0, done.output
    assert computed[-3:] == [2, 2, 2]


def test_pictures_of_each_turn_differ_in_what_the_model_sees():
    pytest.importorskip("PIL")
    from embrief.bench.pictures import made, unseen
    from embrief.bench.workloads import Workload
    from embrief.facts.records.qwen3_vl import IMAGES
    from embrief.images.patches import fit

    page = made((1754, 1240), 0)
    work = Workload("document", ("", "a text"), ("", ""), ((1,), (1,)), shown=(page, None))
    turns = [unseen(work, turn) for turn in (0, 1, 2, 200, 201)]
    assert turns[0] is work
    assert all(turn.shown[1] is None for turn in turns)
    assert len({fit(turn.shown[0].pixels, IMAGES.fitted(1754, 1240)).tobytes() for turn in turns}) == 5


def test_without_pillow_the_rows_with_pictures_are_left_out_and_say_so(folder, tmp_path, monkeypatch):
    from embrief.bench import execute

    monkeypatch.setattr(execute, "is_installed", lambda name: name != "PIL")
    done = bench(folder, "--only", "photos", "--out", str(tmp_path / "r.json"))
    assert done.exit_code == 0
    assert "photos: pictures need Pillow: pip install" in " ".join(done.output.split())


def test_the_limit_of_the_machine_is_measured_and_left_out_where_prefixes_are_shared(data):
    for key, row in data["rows"].items():
        assert row["ceiling"] > 0
        for run in runs_of(row).values():
            assert ("of_ceiling" in run) == (key in ("u", "gemma", "gemma2"))
            if "of_ceiling" in run:
                assert run["of_ceiling"] == pytest.approx(run["flops_per_s"] / row["ceiling"])


def test_a_format_that_does_not_run_is_said_and_stops_nothing(folder):
    done = bench(folder, "--only", "u", "--dtype", "bfloat16,int3", "--out", str(folder / "int3.json"), "--json")
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["rows"]["u"]["runs"]
    refused = next(run for run in runs if run["name"] == "embrief int3")
    assert "int3" in refused["unavailable"]
    assert "tokens_per_s" not in refused
    assert "embrief fp32" not in {run["name"] for run in runs}


def test_a_library_that_would_take_longer_than_the_limit_is_left_out(folder, tmp_path, monkeypatch):
    """As where bfloat16 is emulated: sentence-transformers' default would not end."""
    from embrief.bench import measure

    monkeypatch.setattr(measure, "_native", lambda device: "float32")
    monkeypatch.setattr(
        measure, "expected_seconds", lambda run, work: 5.0 * ("batch_size" in getattr(run, "keywords", {}))
    )
    done = bench(folder, "--only", "u", "--limit", "4s", "--out", str(tmp_path / "out.json"), "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["rows"]["u"]
    runs = runs_of(row)
    left = {run["name"]: run["unavailable"] for run in row["runs"] if "unavailable" in run}
    assert list(left) == ["ST bf16, batch 32"]
    assert "5 s" in left["ST bf16, batch 32"]
    assert "4 s" in left["ST bf16, batch 32"]
    assert row["ceiling_format"] == "float32"
    assert row["best"].startswith("ST fp32")
    assert "vs_best" in runs["embrief fp32"]
    assert not any("vs_default" in run for run in runs.values())
    assert bench(folder, "--only", "u", "--limit", "4s", "--out", str(tmp_path / "out.json")).exit_code == 0


def test_what_all_texts_take_is_judged_by_one(folder):
    from embrief.bench.checkpoint import make
    from embrief.bench.measure import expected_seconds
    from embrief.bench.settings import TINY
    from embrief.bench.shapes import TINY_QWEN3
    from embrief.bench.workloads import build

    work = build("chunks", make(TINY_QWEN3, 2, "embedder", folder), TINY)
    seen = []
    assert expected_seconds(seen.append, work) > 0
    assert [len(part.texts) for part in seen] == [1, 1]
    assert min(map(len, work.ids)) < seen[0].tokens < max(map(len, work.ids))


def test_the_file_names_versions_machine_and_settings(data, folder):
    assert json.loads((folder / "results.json").read_text("utf-8")) == data
    assert data["format"] == 1
    assert {"torch", "sentence-transformers", "embrief", "python"} <= set(data["versions"])
    assert {"processor", "threads", "device"} <= set(data["machine"])
    assert data["settings"]["repeats"] == 1
    for row in data["rows"].values():
        assert {"title", "how", "date", "model", "layers", "texts", "tokens", "rounds", "runs", "warnings"} <= set(row)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", row["date"])
        assert row["layers"] == 2


def test_a_second_call_computes_nothing_again(data, folder):
    done = bench(folder, "--only", ROWS, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == data
    assert "u: measured before" in done.stderr


def test_other_settings_do_not_mix_with_earlier_results(first, folder, tmp_path):
    copy = tmp_path / "results.json"
    shutil.copy(folder / "results.json", copy)
    done = bench(folder, "--only", "u", "--layers", "1", "--dtype", "bfloat16", "--out", str(copy), "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert list(rows) == ["u"]
    assert rows["u"]["layers"] == 1
    assert "starting over" in done.stderr
    kept = tmp_path / "results.previous.json"
    assert kept.read_text("utf-8") == (folder / "results.json").read_text("utf-8")


def test_a_budget_that_is_used_up_leaves_rows_for_the_next_call(first, folder, tmp_path):
    copy = tmp_path / "results.json"
    before = json.loads((folder / "results.json").read_text("utf-8"))
    del before["rows"]["u"]
    copy.write_text(json.dumps(before), "utf-8")
    stopped = bench(folder, "--only", ROWS, "--budget", "0s", "--out", str(copy))
    assert stopped.exit_code == 0, stopped.output
    assert "Left      u:" in stopped.stdout
    saved = json.loads(copy.read_text("utf-8"))
    assert saved["left"] == ["u"]
    assert list(saved["rows"]) == ["queries", "rerank", "gemma", *GEMMA2]
    resumed = bench(folder, "--only", ROWS, "--budget", "1h", "--out", str(copy))
    assert resumed.exit_code == 0, resumed.output
    assert "Left" not in resumed.stdout
    saved = json.loads(copy.read_text("utf-8"))
    assert saved["left"] == []
    assert "u" in saved["rows"]
    assert saved["rows"]["gemma"] == before["rows"]["gemma"]


def changed(folder, place, change):
    """Return a copy of the results in which one figure is another."""
    data = json.loads((folder / "results.json").read_text("utf-8"))
    change(runs_of(data["rows"]["u"])["embrief bf16"])
    file = place / "previous.json"
    file.write_text(json.dumps(data), "utf-8")
    return file


@pytest.mark.parametrize("figure", ["vs_default", "vs_best", "of_ceiling"])
def test_compare_finds_what_became_slower(first, folder, tmp_path, figure):
    previous = changed(folder, tmp_path, lambda run: run.update({figure: run[figure] * 1.2}))
    done = bench(folder, "--only", ROWS, "--compare", str(previous))
    assert done.exit_code == 1
    assert done.stderr.count("worse:") == 1
    assert f"worse: u, embrief bf16: {figure}" in done.stderr


def test_compare_lets_noise_and_gains_pass(first, folder, tmp_path):
    for factor in (1.04, 0.5):
        previous = changed(folder, tmp_path, lambda run, by=factor: run.update(vs_default=run["vs_default"] * by))
        done = bench(folder, "--only", ROWS, "--compare", str(previous))
        assert done.exit_code == 0, done.output
        assert "nothing is worse" in done.stderr
    previous = changed(folder, tmp_path, lambda run: run.update(vs_default=run["vs_default"] * 1.04))
    assert bench(folder, "--only", ROWS, "--compare", str(previous), "--tolerance", "0.01").exit_code == 1


def test_compare_with_a_file_that_is_no_result_says_so_before_measuring(folder, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"rows": 3}', "utf-8")
    for file in (other, tmp_path / "missing.json"):
        done = bench(folder, "--only", "b", "--compare", str(file))
        assert done.exit_code == 1
        assert str(file) in done.stderr
        assert "b: " not in done.stderr


def test_the_picture_is_well_formed_and_readable_on_both_backgrounds(first, data, folder):
    text = (folder / "results.svg").read_text("utf-8")
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    bars = root.findall(f"{space}rect")
    shown = [run for row in data["rows"].values() for run in runs_of(row).values() if "fp32" not in run["name"]]
    assert len(bars) == len(shown)
    width = float(root.attrib["width"])
    assert all(0 < float(bar.attrib["x"]) + float(bar.attrib["width"]) < width for bar in bars)
    lengths = sorted(float(bar.attrib["width"]) for bar in bars)
    ratios = sorted(run["vs_default"] for run in shown)
    assert lengths[-1] / lengths[0] == pytest.approx(ratios[-1] / ratios[0], rel=0.2)
    assert "prefers-color-scheme: dark" in text


def test_table_and_page_hold_every_run(first, data, folder):
    table = bench(folder, "--only", ROWS).stdout
    page = bench(folder, "--only", ROWS, "--markdown").stdout
    head, rule, *lines = [line for line in page.splitlines() if line.startswith("|")]
    assert head.count("|") == rule.count("|") == 8
    assert len(lines) == sum(len(row["runs"]) for row in data["rows"].values())
    for row in data["rows"].values():
        for name in runs_of(row):
            assert name in table
            assert f"| {name} |" in page
    assert f"torch {data['versions']['torch']}" in page


def test_an_unknown_row_is_an_error_with_the_names(folder):
    done = bench(folder, "--only", "u,rerang")
    assert done.exit_code == 1
    assert "rerang" in done.stderr
    assert "did you mean 'rerank'?" in done.stderr
    assert "use some of server, query, queries, u, rerank, gemma, gemma2, c, b, photos, pages, mixed" in done.stderr
    assert "rank-pages, load, wrappers, cache, runtimes" in done.stderr


@pytest.mark.parametrize("budget", ["25", "soon", "", "-5m"])
def test_a_budget_that_is_no_duration_is_an_error(folder, budget):
    done = bench(folder, "--only", "u", f"--budget={budget}")
    assert done.exit_code == 1
    assert "25m" in done.stderr


def test_more_layers_than_the_model_has_are_refused(folder):
    done = bench(folder, "--only", "u", "--layers", "3", "--out", str(folder / "layers.json"))
    assert done.exit_code == 1
    assert "3" in done.stderr


def test_speeds_on_different_tokens_are_refused(first, folder, tmp_path):
    """Here the folder makes sentence-transformers lower-case its texts, which tokenizer.json does not say."""
    source = next(folder.glob("tiny-qwen3-embedder-2-*"))
    model = tmp_path / "lower"
    shutil.copytree(source, model)
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 2048, "do_lower_case": true}', "utf-8")
    out = tmp_path / "out.json"
    done = bench(folder, "--only", "u", "--model", str(model), "--out", str(out))
    assert done.exit_code == 1
    assert "speeds on different tokens" in done.stderr
    assert not out.exists()


def test_a_real_model_runs_the_rows_it_is_for(first, folder, tmp_path):
    model = next(folder.glob("tiny-qwen3-reranker-2-*"))
    out = tmp_path / "out.json"
    done = bench(folder, "--only", "u,rerank", "--model", str(model), "--dtype", "bfloat16", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert list(json.loads(out.read_text("utf-8"))["rows"]) == ["rerank"]
    assert "u: none of the models is for it" in done.stderr
    refused = bench(folder, "--only", "rerank", "--model", str(model), "--layers", "1", "--out", str(out))
    assert refused.exit_code == 1
    assert "layers=1" in refused.stderr


def test_each_generation_of_gemma_has_its_row(first, folder):
    from embrief.bench.measure import Bench
    from embrief.bench.rows import choose
    from embrief.bench.settings import Settings

    def rows_for(pattern):
        model = str(next(folder.glob(pattern)))
        bench = Bench(Settings(models=(model,), shape="tiny", device="cpu"), folder)
        return [row.key for row in choose(["u", "rerank", "gemma", "gemma2"]) if bench.has_model(row)]

    assert rows_for("tiny-gemma-embedder-2-*") == ["gemma"]
    if GEMMA2:
        assert rows_for("tiny-gemma2-embedder-2-*") == ["gemma2"]
    assert rows_for("tiny-qwen3-embedder-2-*") == ["u"]


def test_by_default_all_is_kept_in_the_users_folder_for_such_things(tmp_path, monkeypatch):
    from embrief.bench.checkpoint import default_folder
    from embrief.system.places import user_folder

    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert default_folder() == user_folder("cache") / "bench"
    assert tmp_path in default_folder().parents


def test_a_classifier_is_refused_because_no_row_is_for_it(folder, classifier_folder, tmp_path):
    done = bench(folder, "--only", "rerank", "--model", str(classifier_folder), "--out", str(tmp_path / "out.json"))
    assert done.exit_code == 1
    assert "is a classifier" in done.stderr


def test_wrappers_are_compared_with_the_core(folder, tmp_path):
    pytest.importorskip("langchain_core")
    done = bench(folder, "--only", "wrappers", "--out", str(tmp_path / "out.json"), "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["rows"]["wrappers"]
    runs = runs_of(row)
    assert {"embrief", "LangChain"} <= set(runs)
    assert runs["embrief"]["overhead"] == 0
    assert len(runs["LangChain"]["seconds"]) == row["rounds"] == 5
    pairs = np.array(runs["LangChain"]["seconds"]) / np.array(runs["embrief"]["seconds"])
    assert runs["LangChain"]["overhead"] == pytest.approx(np.median(pairs) - 1)


def test_hits_are_compared_with_computing(folder, tmp_path):
    done = bench(folder, "--only", "cache", "--out", str(tmp_path / "out.json"), "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["rows"]["cache"]
    runs = runs_of(row)
    computed, *hits = runs.values()
    assert computed["name"] == "embrief bf16"
    assert [run["name"] for run in hits] == ["from memory", "from a file"]
    assert all(run["cosine_min"] > 0.999999 and run["faster"] > 0 for run in hits)
    assert "one query from a file in" in row["note"]


def test_requests_to_a_server_are_compared_with_the_bare_library(folder, tmp_path):
    pytest.importorskip("httpx")
    out = tmp_path / "out.json"
    done = bench(folder, "--only", "server", "--budget", "10m", "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["rows"]["server"]
    ours, bare = row["runs"]
    assert (ours["name"], bare["name"]) == ("embrief", "httpx alone")
    assert (row["texts"], row["values"], row["requests"], row["rounds"]) == (100, 1536, 2, 9)
    # The same vectors from the same answers.
    assert ours["cosine_min"] > 0.999999
    assert bare["of_bare"] == 1
    assert bare["own_s"] == 0
    for run in row["runs"]:
        each = np.array(run["seconds"]) / row["requests"]
        assert run["request_s"] == pytest.approx(np.median(each))
        assert run["texts_per_s"] == pytest.approx(100 / np.median(each))
    pairs = (np.array(ours["seconds"]) - np.array(bare["seconds"])) / row["requests"]
    assert ours["own_s"] == pytest.approx(np.median(pairs))
    page = bench(folder, "--only", "server", "--out", str(out), "--markdown").stdout
    assert "100 texts of 1,536 values each, 2 requests in turn" in page
    assert page.count(" texts/s ") == 2


def test_import_load_and_memory_come_from_processes_of_their_own(folder, tmp_path):
    done = bench(folder, "--only", "load", "--out", str(tmp_path / "out.json"), "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["rows"]["load"]
    runs = runs_of(row)
    ours, theirs = runs
    assert (ours, theirs) in (("embrief bf16", "ST bf16"), ("embrief fp32", "ST fp32"))
    # Importing embrief brings no torch; a process in which something was imported before would show the same for both.
    assert 0 < runs[ours]["import_s"] < runs[theirs]["import_s"]
    if sys.platform != "win32":
        for run in runs.values():
            assert 0 < run["peak_load_bytes"] <= run["peak_batch_bytes"]
        peaks = [runs[name]["peak_batch_bytes"] for name in (ours, theirs)]
        assert row["memory_ratio"] == pytest.approx(peaks[0] / peaks[1])


def test_every_runtime_that_is_installed_stands_beside_the_engine(folder, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from embrief.bench import rows

    arguments = ["--only", "runtimes", "--out", str(tmp_path / "out.json"), "--json"]
    done = bench(folder, *arguments)
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    works = [f"runtimes {work}" for work in ("chunks", "queries", "query", "rerank")]
    assert list(data["rows"]) == [*works, "runtimes load"]
    for key in works:
        row = data["rows"][key]
        runs = runs_of(row)
        assert {"embrief bf16", "embrief int8", "embrief fp32", "ST bf16, batch 32", "onnx fp32"} <= set(runs), key
        # What is not there is told, with the way to have it.
        assert all(run["unavailable"] for run in row["runs"] if run["name"] not in runs)
        against = runs[row["runs"][0]["against"]]
        for run in runs.values():
            assert run["vs_embrief"] == pytest.approx(np.median(against["seconds"]) / np.median(run["seconds"]))
        exact = runs["onnx fp32"]
        assert exact["difference_max"] < 1e-4 if key == "runtimes rerank" else exact["cosine_min"] > 0.99999
    for run in runs_of(data["rows"]["runtimes load"]).values():
        assert run["import_s"] > 0
        assert run["load_s"] > 0
    # What was exported is not exported again.
    exports = sorted(file.name for file in folder.iterdir() if "-onnx-" in file.name)
    assert [name.rpartition("-")[2] for name in exports] == ["float32", "int8"] * 2
    stamps = [(folder / name / "model.onnx").stat().st_mtime_ns for name in exports]
    few = tuple(row for row in rows.ROWS if row.key in ("runtimes query", "runtimes rerank"))
    monkeypatch.setattr(rows, "ROWS", few)
    again = bench(folder, "--only", "runtimes", "--out", str(tmp_path / "again.json"), "--json")
    assert again.exit_code == 0, again.output
    assert [(folder / name / "model.onnx").stat().st_mtime_ns for name in exports] == stamps


def test_a_runtime_that_is_not_installed_is_told_once(folder, monkeypatch):
    from embrief.bench import beside

    monkeypatch.setattr(beside, "is_installed", lambda name: name != "onnxruntime")
    missing = {}
    for variant in beside.variants():
        if variant.backend == "onnx":
            assert beside._files(variant, None, None, missing) is None
    assert list(missing) == ["onnx"]
    assert "pip install" in missing["onnx"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_time_and_memory_of_a_process_of_its_own_belong_to_whoever_started_it():
    import os
    import subprocess

    from embrief.bench.fresh_process import children, peak_bytes

    alone = peak_bytes()
    code = "held = bytearray(b'x' * 200_000_000); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert child.pid in children(os.getpid())
        assert peak_bytes() - alone > 200_000_000
        child.communicate(b"\n")
    assert child.pid not in children(os.getpid())


def test_texts_have_the_lengths_of_their_workload(folder):
    from embrief.bench.checkpoint import make
    from embrief.bench.settings import TINY, Sizes
    from embrief.bench.shapes import TINY_QWEN3
    from embrief.bench.texts import load_tokenizer
    from embrief.bench.workloads import EQUAL, build

    model = make(TINY_QWEN3, 2, "embedder", folder)
    tokenizer = load_tokenizer(model.folder)
    equal = build("equal", model, TINY)
    assert [len(row) for row in equal.ids] == [EQUAL] * TINY.equal
    chunks = build("chunks", model, Sizes(chunks=64))
    lengths = [len(row) for row in chunks.ids]
    assert 20 <= min(lengths) < 60
    assert 250 < max(lengths) <= 512
    assert 90 < np.median(lengths) < 150
    assert len(set(chunks.texts)) == 64
    assert build("chunks", model, Sizes(chunks=64)) == chunks
    long = build("long", model, TINY)
    assert all(300 <= len(row) <= 1000 for row in long.ids)
    queries = build("queries", model, TINY)
    assert all(text.startswith("Instruct: ") for text in queries.rendered)
    assert all(8 <= len(tokenizer.encode(text).ids) - 1 <= 20 for text in queries.texts)


def test_random_weights_hold_what_the_published_shape_says():
    """The number of parameters is that of the record, so no tensor is missing or of another size."""
    from embrief.bench.shapes import SHAPES, linear_flops, record_of

    for shape in SHAPES["real"].values():
        # A layer's factor is no parameter, though it is in the file.
        count = sum(math.prod(size) for name, size in shape.tensors(shape.layers) if not name.endswith("layer_scalar"))
        count += sum(inputs * outputs for inputs, outputs in shape.dense)
        spec = record_of(shape, "embedder")
        assert count == spec.parameters
        matrices = sum(
            math.prod(size)
            for name, size in shape.tensors(shape.layers)
            if len(size) == 2 and "embed_tokens" not in name
        )
        # What a picture costs goes by its patches, not by its tokens.
        assert linear_flops(shape.config(shape.layers)) == (2 * matrices if shape.tower is None else None)
    assert linear_flops({"model_type": "bert"}) is None


def test_what_a_tower_computes_is_planned_with_a_row_of_pictures(folder):
    from embrief.bench.measure import Bench
    from embrief.bench.rows import choose
    from embrief.bench.settings import TINY, Settings
    from embrief.bench.shapes import SHAPES

    bench = Bench(Settings(shape="tiny", sizes=TINY, device="cpu"), folder)
    (row,) = choose(["pages"])
    work, model = bench.workload(row), bench.checkpoint(row)
    text = 24 * model.config["hidden_size"] ** 2 * model.layers * work.tokens
    tower = SHAPES["tiny"]["vision"].tower
    # Four patches a token; a product of two matrices has two operations per weight, or per pair of patches and value.
    patches = (224 // 16) * (160 // 16)
    matrices = sum(math.prod(size) for name, size in tower.tensors("", 0) if "blocks." in name and len(size) == 2)
    pairs = 2 * tower.depth * tower.hidden * patches
    assert bench.work(row) - text == 2 * patches * (matrices + pairs)


def test_a_ranking_template_gives_the_prompt_byte_for_byte():
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from embrief import Reranker
    from embrief.bench.runners import chat_template

    reranker = Reranker("Qwen/Qwen3-Reranker-0.6B")
    query, document = '  what "is" {query} \\n?', "line\n\n{instruction} 'x' {{ y }}  "
    pair = reranker.render(query, document)
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        chat_template(reranker.spec)
    )
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    assert template.render(messages=messages) == pair.head + pair.body + pair.tail
