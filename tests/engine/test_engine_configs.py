"""Whatever config.json says: vectors equal those of sentence-transformers, or the folder is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, EmbriefError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
CHANGES = {
    "nothing": {},
    "wide epsilon": {"rms_norm_eps": 0.1},
    "two generations of positions": {"rope_scaling": YARN},
    "positions of the older generation": {"rope_scaling": YARN, "rope_parameters": None, "rope_theta": 1000.0},
    "no positions named": {"rope_parameters": None},
    "flat positions": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    "part of a head turned": {"partial_rotary_factor": 0.5},
    "not causal": {"is_causal": False},
    "causal": {"is_causal": True},
    "other layers": {"layer_types": None, "sliding_window": 8},
    "softcaps": {"attn_logit_softcapping": 5.0},
    "another scale": {"query_pre_attn_scalar": 64},
    "narrow context": {"max_position_embeddings": 256},
    "private keys": {"_note": "trained on Tuesday", "unsloth_version": "1", "pretraining_tp": 2},
}
TEXTS = ["Mars is often called the Red Planet.", "x", "copying directory trees " * 12]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["qwen3", "gemma"])
@pytest.mark.parametrize("case", CHANGES)
def test_vectors_are_those_of_the_oracle(
    case: str, kind: str, request: pytest.FixtureRequest, other_folder: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    shutil.copytree(request.getfixturevalue(f"{kind}_folder"), other_folder)
    file = other_folder / "config.json"
    changed = {**json.loads(file.read_text("utf-8")), **CHANGES[case]}
    file.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}), "utf-8")
    try:
        found = Embedder(other_folder, dtype="float32", device="cpu").embed_documents(TEXTS)
    except EmbriefError:
        # Nothing that transformers cannot load either is expected to run; all else must.
        with pytest.raises(Exception, match=r"."):
            SentenceTransformer(str(other_folder), device="cpu").encode_document(TEXTS)
        return
    oracle = SentenceTransformer(str(other_folder), device="cpu")
    expected = oracle.encode_document(TEXTS, normalize_embeddings=True)
    cosines = (found.astype(np.float64) * expected).sum(axis=1)
    assert cosines.min() > 0.999999, cosines
