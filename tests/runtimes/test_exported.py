"""What exports must keep in every runtime that runs them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, Embedder, InputTooLongError, NonFiniteVectorError, Reranker, plugins
from embrief.stores import read_stamp, require_same, stamp
from embrief.testing import check_runtime

pytest.importorskip("onnxscript")

MARK = "embrief-export.json"
ORACLE = "sentence-transformers"
HANG = 300
WORDS = "Mars is the fourth planet from the Sun and is called red for the iron in its dust. "
Export = Callable[..., Path]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.fixture(params=["onnx", "openvino"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def embedder(exported: Export, form: str) -> Embedder:
    return Embedder(exported("tiny-embedding", form), truncate="silent")


@pytest.mark.parametrize("name", ["tiny-embedding", "gemma", "gemma2_text"])
def test_vectors_are_those_of_sentence_transformers(
    name: str, form: str, exported: Export, original: Callable[[str], str], texts: list[str]
) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    if name == "gemma2_text":
        pytest.importorskip("transformers.models.embedding_gemma2")
    folder = Embedder(original(name)).info()["folder"]
    oracle = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.float32})
    # Far beyond the windows of the tiny models, which reach 9 tokens.
    texts = [*texts, WORDS, WORDS * 5, WORDS * 10]
    with Embedder(exported(name, form), truncate="silent") as embedder:
        oracle.max_seq_length = embedder.max_tokens
        prompts = embedder.info()
        for role, prompt in (("query", prompts["query_prompt"]), ("document", prompts["document_prompt"])):
            found = embedder.encode(texts, role=role).vectors
            assert cosines(found, oracle.encode(texts, prompt=prompt)).min() > 0.99999


def test_log_odds_are_those_of_transformers(form: str, exported: Export, texts: list[str]) -> None:
    query = "which planet is red"
    with (
        Reranker(exported("tiny-reranker", form), truncate="silent") as export,
        Reranker(
            "embrief/tiny-reranker", backend="sentence-transformers", dtype="float32", truncate="silent"
        ) as source,
    ):
        documents = [*texts, WORDS, WORDS * 40]
        found, due = (_log_odds(judge.score(query, documents)) for judge in (export, source))
        assert np.abs(found - due).max() < 1e-4
        assert [item.index for item in export.rerank(query, documents)] == [
            item.index for item in source.rerank(query, documents)
        ]


def _log_odds(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    return np.log(scores) - np.log1p(-scores)


@pytest.mark.parametrize(("kind", "least"), [("onnx", 0.998), ("openvino", 0.996)])
def test_int8_is_close(kind: str, least: float, exported: Export, texts: list[str]) -> None:
    """Bounds for a model with 256 values per token; wider ones lose less. The empty text, one token, loses most."""
    folder = exported("tiny-embedding", kind, "int8")
    documents = ["", *filter(None, texts), WORDS, WORDS * 10]
    with (
        Embedder(folder, truncate="silent") as export,
        Embedder("embrief/tiny-embedding", dtype="float32", truncate="silent") as source,
    ):
        assert export.space == source.space
        assert export.info()["dtype"] == "int8"
        together = export.embed_documents(documents)
        near = cosines(together, source.embed_documents(documents))
        assert near[0] > 0.97
        assert near[1:].min() > least
        # One factor for a whole batch would make a text's vector depend on the others.
        alone = np.concatenate([export.embed_documents([text]) for text in documents])
        assert cosines(together, alone).min() > 0.99999
    whole = sum(file.stat().st_size for file in exported("tiny-embedding", kind).iterdir())
    assert sum(file.stat().st_size for file in folder.iterdir()) < whole


@pytest.mark.parametrize("name", ["tiny-embedding", "tiny-reranker"])
def test_the_contract_of_runtimes(name: str, form: str, exported: Export) -> None:
    folder = exported(name, form)
    facade = Embedder(folder) if name == "tiny-embedding" else Reranker(folder)
    check_runtime(plugins().catalog.backends[form], facade.spec, folder=folder)


def test_order_and_company_change_nothing(embedder: Embedder, texts: list[str]) -> None:
    texts = [*texts, WORDS * 10]
    together = embedder.embed_documents(texts)
    assert cosines(embedder.embed_documents(texts[::-1])[::-1], together).min() > 0.999999
    alone = np.concatenate([embedder.embed_documents([text]) for text in texts])
    assert cosines(alone, together).min() > 0.999999


def test_one_text_of_one_token(embedder: Embedder) -> None:
    with Embedder("embrief/tiny-embedding", dtype="float32") as source:
        for texts in ([""], ["", ""], ["a"]):
            assert cosines(embedder.embed_documents(texts), source.embed_documents(texts)).min() > 0.99999


@pytest.mark.parametrize("limit", [8, 60])
def test_a_text_that_is_cut_keeps_its_end(limit: int, form: str, exported: Export) -> None:
    with (
        Embedder(exported("tiny-embedding", form), max_tokens=limit, truncate="silent") as export,
        Embedder("embrief/tiny-embedding", dtype="float32", max_tokens=limit, truncate="silent") as source,
    ):
        found, due = (each.encode([WORDS * 9, "a"], role="document") for each in (export, source))
        assert cosines(found.vectors, due.vectors).min() > 0.99999
        assert found.truncated.tolist() == due.truncated.tolist() == [True, False]
        assert found.token_counts.tolist() == due.token_counts.tolist()
    with Embedder(exported("tiny-embedding", form), max_tokens=limit, truncate="error") as export:
        with pytest.raises(InputTooLongError) as raised:
            export.embed_documents(["a", WORDS * 9])
        assert raised.value.index == 1


def test_a_document_that_is_cut_keeps_the_template(form: str, exported: Export) -> None:
    with (
        Reranker(exported("tiny-reranker", form), max_tokens=150, truncate="silent") as export,
        Reranker("embrief/tiny-reranker", dtype="float32", max_tokens=150, truncate="silent") as source,
    ):
        found, due = (judge.score("which planet is red", [WORDS * 30]) for judge in (export, source))
        np.testing.assert_allclose(found, due, atol=1e-5)


def test_another_format_or_device_is_refused(form: str, exported: Export) -> None:
    folder = exported("tiny-embedding", form)
    with pytest.raises(ArgumentError, match=r"in float32.*, not in int8: its files hold float32"):
        Embedder(folder, dtype="int8")
    with pytest.raises(ArgumentError, match="float16"):
        Embedder(folder, dtype="float16")
    missing = {"onnx": "cuda", "openvino": "gpu"}[form]
    with Embedder(folder, device=missing) as embedder, pytest.raises(ArgumentError, match=f"{missing}' is not there"):
        embedder.load()


def test_threads_are_the_users_choice(form: str, exported: Export) -> None:
    from embrief.runtimes.onnx import Onnx
    from embrief.runtimes.openvino import OpenVino

    kind = {"onnx": Onnx, "openvino": OpenVino}[form]
    folder = exported("tiny-embedding", form)
    with Embedder(folder, backend=kind(threads=1)) as one, Embedder(folder) as all_of_them:
        assert cosines(one.embed_documents([WORDS]), all_of_them.embed_documents([WORDS])).min() > 0.999999
    with Embedder(folder, backend=kind(threads=0)) as none, pytest.raises(ArgumentError, match="threads=0"):
        none.load()


def test_two_threads(embedder: Embedder, texts: list[str]) -> None:
    due = embedder.embed_documents(texts)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(embedder.embed_documents(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert len(found) == 4
    assert all(cosines(vectors, due).min() > 0.999999 for vectors in found)


def test_pickles_find_the_export_again(embedder: Embedder) -> None:
    copy = pickle.loads(pickle.dumps(embedder))
    assert copy.space == embedder.space
    assert copy.info()["backend"] == embedder.info()["backend"]
    np.testing.assert_allclose(copy.embed_documents(["a"]), embedder.embed_documents(["a"]), atol=1e-6)


def test_a_store_takes_one_for_the_other(embedder: Embedder) -> None:
    with Embedder("embrief/tiny-embedding") as source:
        kept = stamp(source.space)
        require_same(read_stamp(kept, where="a collection"), embedder.space, where="a collection")
        documents = source.embed_documents([WORDS, "Venus is bright.", "a recipe for bread"])
        assert (documents @ embedder.embed_query("which planet is red")).argmax() == 0


def test_a_vector_that_is_not_finite_is_an_error(form: str, exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    session = importlib.import_module(f"embrief.runtimes.{form}")._Session
    run = session.run

    def spoilt(self, ids, lengths):
        found = np.array(run(self, ids, lengths))
        found[lengths == lengths.max()] = np.nan
        return found

    monkeypatch.setattr(session, "run", spoilt)
    with Embedder(exported("tiny-embedding", form)) as embedder, pytest.raises(NonFiniteVectorError) as raised:
        embedder.embed_documents(["a", WORDS, "b"])
    assert raised.value.index == 1


def _in_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=HANG, check=False)


DAMAGE = """
import json, random, shutil, sys, warnings, hashlib
from pathlib import Path
warnings.simplefilter("ignore")
from embrief import Embedder, EmbriefError
source, place, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
random.seed(3)
told = set()
for number in range(24):
    folder = Path(shutil.copytree(source, place / str(number)))
    name = names[number % len(names)]
    data = bytearray((folder / name).read_bytes())
    # Names and shapes stand at both ends; weights, in which any bit may be, in the middle.
    near = random.randrange(min(len(data), 4000))
    at = near if number % 2 else len(data) - 1 - near
    if number % 6 == 5:
        del data[at:]
    else:
        data[at : at + 1 + number % 4] = random.randbytes(1 + number % 4)
    (folder / name).write_bytes(bytes(data))
    mark = json.loads((folder / "embrief-export.json").read_text())
    mark.pop("digest")
    mark["files"][name] = {"bytes": len(data), "digest": "sha256:" + hashlib.sha256(data).hexdigest()}
    canonical = json.dumps(mark, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    mark["digest"] = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    (folder / "embrief-export.json").write_text(json.dumps(mark))
    try:
        with Embedder(folder) as embedder:
            embedder.embed_documents(["a", "b b b"])
        told.add("nothing")
    except EmbriefError as error:
        told.add(type(error).__name__)
    shutil.rmtree(folder)
print("alive", sorted(told))
"""


def test_a_damaged_file_whose_digest_was_mended_ends_no_process(form: str, exported: Export, tmp_path: Path) -> None:
    names = {"onnx": "model.onnx,tokenizer.json", "openvino": "model.xml,tokenizer.json,model.bin"}[form]
    done = _in_child(DAMAGE, exported("tiny-embedding", form), tmp_path, names)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("alive")
    assert "ModelMismatchError" in done.stdout


EXIT = """
import sys, threading, warnings
warnings.simplefilter("ignore")
from embrief import Embedder
embedder = Embedder(sys.argv[1])
running = threading.Event()
def forever():
    number = 0
    while True:
        embedder.embed_documents([f"{number} {place} some words that make a text " * 9 for place in range(48)])
        running.set()
        number += 1
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
running.wait()
"""


def test_the_process_may_end_while_it_runs(form: str, exported: Export) -> None:
    done = _in_child(EXIT, exported("tiny-embedding", form))
    assert (done.returncode, done.stderr) == (0, "")


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")
from embrief import Embedder
embedder = Embedder(sys.argv[1])
due = embedder.embed_documents(["a text", "b"])
child = os.fork()
if child == 0:
    found = embedder.embed_documents(["a text", "b"])
    os._exit(7 if abs(found - due).max() < 1e-5 else 8)
embedder.embed_documents(["c"])
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes(form: str, exported: Export) -> None:
    done = _in_child(FORK, exported("tiny-embedding", form))
    assert done.stdout.strip() == "7", done.stderr


REPLACED = """
import os, shutil, sys, warnings
warnings.simplefilter("ignore")
from embrief import Embedder, ModelMismatchError
embedder = Embedder(sys.argv[1])
embedder.embed_documents(["a"])
shutil.copytree(sys.argv[2], sys.argv[1], dirs_exist_ok=True)
child = os.fork()
if child == 0:
    try:
        embedder.embed_documents(["a"])
    except ModelMismatchError:
        os._exit(7)
    os._exit(8)
embedder.embed_documents(["a"])
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_takes_no_other_export_for_its_own(copied: Export, exported: Export) -> None:
    """It opens the graph again, and another may be there by now: one of another width would be the least harm."""
    done = _in_child(REPLACED, copied("tiny-embedding"), exported("tiny-embedding", "onnx", "int8"))
    assert done.stdout.strip() == "7", done.stderr
