"""Where training starts: token vectors fitted to the teacher, and layers that add them up.

Random token vectors learn little from few texts: they carry nothing to words that training did not show often. These
are fitted in one step, by ridge regression, so that the sum of a text's token vectors points where the teacher's vector
does; the layers are set up so that the untrained model gives exactly that sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen3Config, Qwen3Model

Floats = NDArray[np.float32]
VALUES = 255
"""Values of a token's vector that are fitted; the last of 256 is a constant."""
CONSTANT = 4.0
"""Value of the last of a token's numbers. It is large beside the others, so that the layers' norms, which divide by the
length of a token's vector, keep how much each token weighs."""

LAYERS = 2
"""Of the embedding model. The last one's attention takes the mean; the one before it passes on what it gets."""


def axes(vectors: Floats, count: int) -> Floats:
    """Return the directions, a column each, that hold most of some vectors; the first hold most."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    return np.ascontiguousarray(directions[:, ::-1][:, :count])


def fit_tokens(ids: Sequence[Sequence[int]], targets: Floats, alone: Floats, *, ridge: float = 0.3) -> Floats:
    """Return a vector for each token, such that their sum over a text points to the text's target.

    Args:
        ids: The tokens of each text.
        targets: A unit vector for each text.
        alone: The teacher's vector of each token by itself: what is known of a token that few texts hold.
        ridge: How far a token's vector is held to that.
    """
    from scipy import linalg, sparse

    vocabulary = len(alone)
    rows = np.concatenate([np.full(len(row), place) for place, row in enumerate(ids)])
    columns = np.concatenate([np.asarray(row) for row in ids])
    lengths = np.array([max(len(row), 1) for row in ids])
    # Between a mean (1.0) and a sum (0.0): long texts count, but do not decide alone.
    values = (lengths**-0.7)[rows].astype(np.float32)
    counts = sparse.csr_matrix((values, (rows, columns)), shape=(len(ids), vocabulary), dtype=np.float32)
    expected = _frequency_weighted(alone, np.bincount(columns, minlength=vocabulary))
    gram = (counts.T @ counts).toarray()
    gram[np.diag_indices(vocabulary)] += ridge
    factor = linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    rest = counts.T @ (targets - counts @ expected)
    return expected + linalg.cho_solve(factor, rest, check_finite=False).astype(np.float32)


def _frequency_weighted(alone: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return directions without what all have in common, shorter for common tokens (SIF, Arora et al. 2017)."""
    own = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    own -= own.mean(axis=0)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    weights = 1e-3 / (1e-3 + counts / counts.sum())
    return (own * weights[:, None]).astype(np.float32)


def config(vocabulary: int, layers: int) -> Qwen3Config:
    """Return the shape of a model."""
    return Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=384,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        use_cache=False,
    )


@torch.no_grad()
def model(tokens: Floats) -> Qwen3Model:
    """Return a model whose vector of a text is the mean of its token vectors, (vocabulary, 255)."""
    torch.manual_seed(0)
    shape = config(len(tokens), LAYERS)
    made = Qwen3Model(shape)
    width = shape.hidden_size
    weight = made.embed_tokens.weight
    weight[:, :-1] = torch.from_numpy(tokens) / float(np.median(np.linalg.norm(tokens[len(tokens) // 10 :], axis=1)))
    weight[:, -1] = CONSTANT
    typical = float(weight.pow(2).mean().sqrt())
    for number, layer in enumerate(made.layers):
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.fill_(typical)
        attention = layer.self_attn
        # Small queries: attention starts nearly even, and can leave that quickly.
        attention.q_norm.weight.fill_(0.1)
        if number == LAYERS - 1:
            attention.v_proj.weight.copy_(torch.eye(width))
            attention.v_proj.weight[-1].zero_()
            attention.o_proj.weight.copy_(torch.eye(width))
        else:
            attention.o_proj.weight.zero_()
        # Not even a little noise: it would be the same for every text, and much beside the mean of many common tokens.
        layer.mlp.down_proj.weight.zero_()
    made.norm.weight.fill_(1.0)
    made.norm.weight[-1] = 0.0
    return made
