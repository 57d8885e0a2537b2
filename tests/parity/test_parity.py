"""`check_parity` names what is wrong with a server, for each thing that is known to go wrong, and nothing else.

The server is this test's: transformers on the same tiny checkpoint, with one fault each.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

import embrief
from embrief import Embedder, Reranker
from embrief.errors import ArgumentError
from embrief.parity import ParityReport, check_parity, kept
from embrief.parity.probe import special
from embrief.servers import OpenAI
from embrief.testing import Asked, LoopbackServer, Reply

SERVED = {"qwen3": "acme/served-qwen3", "gemma": "acme/served-gemma"}
RECORDS = {"qwen3": "Qwen/Qwen3-Embedding-0.6B", "gemma": "google/embeddinggemma-300m"}
QUERY_PROMPT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


@cache
def loaded(folder: Path, window: int | None) -> Any:
    """A checkpoint in transformers."""
    from sentence_transformers import SentenceTransformer

    options = {} if window is None else {"config_kwargs": {"sliding_window": window}}
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)


_known: dict[tuple[Path, int | None, str, bool, tuple[int, ...]], np.ndarray] = {}
_lock = threading.Lock()


def computed(folder: Path, window: int | None, pooling: str, dense: bool, ids: list[int]) -> np.ndarray:
    """The vector of one text. Most servers of these tests get the same texts, hence each is computed once."""
    key = folder, window, pooling, dense, tuple(ids)
    if key not in _known:
        import torch

        model = loaded(folder, window)
        with torch.no_grad():
            states = model[0].auto_model(torch.tensor([ids])).last_hidden_state[0].float()
            vector = states[-1] if pooling == "last" else states.mean(0)
            for module in list(model)[2:]:
                if type(module).__name__ == "Dense" and dense:
                    vector = module.activation_function(module.linear(vector))
        _known[key] = vector.numpy()
    return _known[key]


@dataclass
class Faulty:
    """Embeds with transformers, and does one thing otherwise."""

    folder: Path
    pooling: str = "last"
    end: bool = True
    limit: int | None = None
    special: bool = True
    normalize: bool = True
    change: Callable[[str], str] = str
    mixed: bool = False
    noise: float = 0.0
    refuse_empty: bool = False
    window: int | None = None
    dense: bool = True

    def vectors(self, texts: list[str]) -> np.ndarray:
        tokenizer = loaded(self.folder, self.window).tokenizer
        rows = []
        for text in map(self.change, texts):
            ids = tokenizer(text, split_special_tokens=not self.special)["input_ids"]
            if self.limit is not None:
                ids = ids[: self.limit]
            if not self.end:
                ids = ids[:-1] or ids
            rows.append(computed(self.folder, self.window, self.pooling, self.dense, ids))
        found = np.array(rows)
        if self.mixed and len(found) > 1:
            found = found - found.mean(0)
        if self.noise:
            scale = np.linalg.norm(found, axis=1, keepdims=True) / np.sqrt(found.shape[1])
            seeds = [np.random.default_rng(len(text)).standard_normal(found.shape[1]) for text in texts]
            found = found + self.noise * scale * np.array(seeds)
        return found / np.linalg.norm(found, axis=1, keepdims=True) if self.normalize else found

    def __call__(self, asked: Asked) -> Reply:
        if not asked.path.endswith("/embeddings"):
            return Reply({}, 404)
        texts = asked.body["input"]
        if self.refuse_empty and "" in texts:
            return Reply({"error": {"message": "empty"}}, 400)
        with _lock:
            rows = self.vectors(texts)
        return Reply({"data": [{"index": place, "embedding": row.tolist()} for place, row in enumerate(rows)]})


@pytest.fixture(scope="module")
def folders(qwen3_folder: Path, gemma_folder: Path, tmp_path_factory) -> Iterator[dict[str, Path]]:
    """Two tiny checkpoints with room for the long texts, and records of them as of models that servers have."""
    found = {}
    for name, folder in (("qwen3", qwen3_folder), ("gemma", gemma_folder)):
        found[name] = shutil.copytree(folder, tmp_path_factory.mktemp("parity") / name)
        for file, key in (("config.json", "max_position_embeddings"), ("sentence_bert_config.json", "max_seq_length")):
            if (found[name] / file).is_file():
                config = json.loads((found[name] / file).read_text("utf-8"))
                window = {"sliding_window": 512} if "sliding_window" in config and name == "gemma" else {}
                (found[name] / file).write_text(json.dumps(config | {key: 4096} | window), "utf-8")
    catalog = embrief.plugins().catalog
    for name, folder in found.items():
        local = Embedder(folder)
        spec = catalog.models[RECORDS[name]]
        catalog.add_model(
            replace(
                spec,
                id=SERVED[name],
                aliases=(),
                served_names=(),
                dim=local.dim,
                hidden_size=local.spec.hidden_size,
                mrl=(),
                max_tokens=1600,
                context=1600,
                defines_family=False,
            )
        )
    yield found
    catalog.remove("none", list(SERVED.values()))


@contextmanager
def served(kind: str, faulty: Faulty) -> Iterator[Embedder]:
    with (
        LoopbackServer(faulty) as server,
        Embedder(SERVED[kind], backend=OpenAI(base_url=server.url, batch_rows=32)) as embedder,
    ):
        yield embedder


@cache
def reference(folder: Path) -> Embedder:
    """The engine on the same files."""
    return Embedder(folder, max_tokens=1600, dtype="float32", device="cpu")


def parity(kind: str, folders: dict[str, Path], **fault: Any) -> ParityReport:
    folder = folders[kind]
    fault.setdefault("pooling", "last" if kind == "qwen3" else "mean")
    with served(kind, Faulty(folder, **fault)) as embedder:
        return check_parity(embedder, reference(folder))


@pytest.mark.parametrize("kind", ["qwen3", "gemma"])
def test_a_healthy_server_has_no_fault(kind: str, folders: dict[str, Path]) -> None:
    report = parity(kind, folders)
    assert report.findings == ()
    assert report.verdict == "equal"
    assert min(report.cosines.values()) > 0.9999
    assert {"at the limit", "over 512 tokens", "empty", "white space at the edges"} <= set(report.cosines)


def without_prompt(text: str) -> str:
    return text.removeprefix(QUERY_PROMPT)


def with_prompt(text: str) -> str:
    return QUERY_PROMPT + text


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "missing end token": ("qwen3", {"end": False}),
    "end token twice": ("qwen3", {"change": lambda text: f"{text}<|endoftext|>"}),
    "wrong pooling": ("qwen3", {"pooling": "mean"}),
    "prompt missing": ("qwen3", {"change": without_prompt}),
    "prompt twice": ("qwen3", {"change": with_prompt}),
    "not normalised": ("qwen3", {"normalize": False}),
    "cut silently": ("qwen3", {"limit": 512}),
    "stripped": ("qwen3", {"change": str.strip}),
    "special tokens": ("qwen3", {"special": False}),
    "batch": ("qwen3", {"mixed": True}),
    "empty refused": ("qwen3", {"refuse_empty": True}),
    "number format": ("qwen3", {"noise": 0.1}),
}


@pytest.mark.parametrize("cause", FAULTS)
def test_each_fault_is_named(cause: str, folders: dict[str, Path]) -> None:
    kind, fault = FAULTS[cause]
    report = parity(kind, folders, **fault)
    assert [finding.cause for finding in report.findings] == [cause]
    assert cause in str(report)
    assert report.findings[0].remedy in str(report)
    harmless = cause in ("not normalised", "empty refused", "special tokens")
    assert report.verdict == ("equal" if harmless else "differs")
    assert json.loads(json.dumps(report.to_json()))["findings"][0]["cause"] == cause


@pytest.mark.parametrize(
    ("cause", "fault"),
    [
        ("wrong pooling", {"pooling": "last"}),
        ("dense layers missing", {"dense": False}),
        ("cut silently", {"limit": 512}),
        ("stripped", {"change": str.strip}),
        ("prompt twice", {"change": lambda text: f"task: search result | query: {text}"}),
    ],
)
def test_faults_of_a_model_with_mean_pooling(cause: str, fault: dict[str, Any], folders: dict[str, Path]) -> None:
    report = parity("gemma", folders, **fault)
    assert [finding.cause for finding in report.findings] == [cause]
    assert report.verdict == "differs"


def test_a_window_that_is_read_otherwise(folders: dict[str, Path]) -> None:
    report = parity("gemma", folders, window=1024)
    assert [finding.cause for finding in report.findings] == ["window"]


def test_another_model(folders: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(folders["qwen3"], tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    torch.manual_seed(77)
    for name, tensor in tensors.items():
        tensors[name] = torch.randn_like(tensor) * 0.05 if tensor.ndim == 2 else tensor
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with served("qwen3", Faulty(other)) as embedder:
        report = check_parity(embedder, reference(folders["qwen3"]))
    assert [finding.cause for finding in report.findings] == ["other weights"]


# ---- Alone


ALONE = {
    "cut silently": {"limit": 512},
    "stripped": {"change": str.strip},
    "prompt missing": {"change": without_prompt},
    "not normalised": {"normalize": False},
    "batch": {"mixed": True},
    "empty refused": {"refuse_empty": True},
}


@pytest.mark.parametrize("cause", ALONE)
def test_what_shows_without_a_reference(cause: str, folders: dict[str, Path]) -> None:
    with served("qwen3", Faulty(folders["qwen3"], **ALONE[cause])) as embedder:
        report = check_parity(embedder)
    assert [finding.cause for finding in report.findings] == [cause]


def test_alone_a_healthy_server_is_not_verified(folders: dict[str, Path]) -> None:
    with served("qwen3", Faulty(folders["qwen3"])) as embedder:
        report = check_parity(embedder)
    assert report.findings == ()
    assert report.verdict == "not verified"
    assert "nothing is known" in str(report)


def test_alone_published_cosines_are_compared(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a published model it is the card; here what the tiny one gives."""
    from embrief.parity import published

    card = published.PUBLISHED[RECORDS["qwen3"]]
    with Embedder(folders["qwen3"], dtype="float32") as local:
        cosines = local.embed_queries(card.queries) @ local.embed_documents(card.documents).T
    known = replace(card, cosines=tuple(map(tuple, cosines.tolist())))
    monkeypatch.setitem(published.PUBLISHED, SERVED["qwen3"], known)
    for fault, verdict, causes in (
        ({}, "equal", []),
        ({"end": False}, "differs", ["missing end token"]),
        ({"pooling": "mean"}, "differs", ["other weights"]),
    ):
        with served("qwen3", Faulty(folders["qwen3"], **fault)) as embedder:
            report = check_parity(embedder)
        assert report.against == card.source
        assert (report.verdict, [finding.cause for finding in report.findings]) == (verdict, causes)


def test_published_cosines_are_those_of_the_goldens(data: Path) -> None:
    """Each that the shared goldens have, too."""
    from embrief.parity.published import PUBLISHED

    for model, card in PUBLISHED.items():
        assert model in embrief.plugins().catalog.models
        assert len(card.cosines) == len(card.queries)
        assert {len(row) for row in card.cosines} == {len(card.documents)}
        assert all(-1 < value < 1 for row in card.cosines for value in row)


# ---- Around it


def test_a_server_that_is_not_there() -> None:
    embedder = Embedder(RECORDS["qwen3"], backend=OpenAI(base_url="http://127.0.0.1:9", tries=1))
    report = check_parity(embedder)
    assert [finding.cause for finding in report.findings] == ["unreachable"]
    assert report.verdict == "differs"


def test_two_models_are_not_compared(folders: dict[str, Path]) -> None:
    with pytest.raises(ArgumentError, match="two models"):
        check_parity(Embedder(folders["qwen3"]), Embedder("embrief/hash"))


def test_the_same_model_twice_on_this_machine() -> None:
    report = check_parity(Embedder("embrief/tiny-embedding"), Embedder("embrief/tiny-embedding"))
    assert report.verdict == "equal"
    assert report.findings == ()


def test_special_tokens_are_read_as_the_embedder_reads_them(qwen3_folder: Path, tmp_path: Path) -> None:
    """Vectors that are kept for a space of letters, or compared, are those that its texts get."""
    letters, parsed = (
        Embedder(qwen3_folder, special_tokens=way, dtype="float32", max_tokens=64) for way in ("text", "parsed")
    )
    causes = [finding.cause for finding in check_parity(letters, parsed).findings]
    assert "special tokens" in causes
    probe = special(letters.spec.final_token)
    for embedder in (letters, parsed):
        kept.record(embedder, tmp_path)
        found = kept.load(kept.whole(embedder), tmp_path)
        assert found is not None
        assert float(found.vectors[probe.name] @ embedder.embed_documents([probe.text])[0]) > 0.99999


def test_int8_is_compared_by_its_own_measure() -> None:
    one, other = (Embedder("embrief/tiny-embedding", dtype=dtype, device="cpu") for dtype in ("int8", "float32"))
    report = check_parity(one, other)
    assert report.tolerance == 0.99
    assert check_parity(one, other, tolerance=0.99999).verdict == "differs"


def test_a_reference_that_is_not_there_makes_nothing_equal(folders: dict[str, Path]) -> None:
    away = Embedder(SERVED["qwen3"], backend=OpenAI(base_url="http://127.0.0.1:9", tries=1))
    with served("qwen3", Faulty(folders["qwen3"])) as embedder:
        report = check_parity(embedder, away)
    assert [finding.cause for finding in report.findings] == ["unreachable"]
    assert "reference" in report.findings[0].detail
    assert report.verdict == "differs"


def test_a_cut_beyond_the_long_texts_is_found(folders: dict[str, Path]) -> None:
    """Some servers cut at a thousand tokens or more."""
    with served("qwen3", Faulty(folders["qwen3"], limit=1400)) as embedder:
        report = check_parity(embedder)
    assert [finding.cause for finding in report.findings] == ["cut silently"]


def test_arguments_that_cannot_work() -> None:
    tiny = Embedder("embrief/tiny-embedding")
    for tolerance in (0.0, -1.0, 2.0, float("nan")):
        with pytest.raises(ArgumentError, match="tolerance"):
            check_parity(tiny, tolerance=tolerance)
    with pytest.raises(ArgumentError, match="embedders"):
        check_parity(Reranker("embrief/tiny-reranker"))  # type: ignore[arg-type]
    assert check_parity(Embedder("embrief/tiny-embedding", dim=64), tiny).verdict == "equal"
