"""Where the reranker's training starts: layers that find the query's words in the document.

Four layers do not discover in some hours that a query must be compared with a document. Here they begin with a plain
way to do it, written into the weights, and training improves on it:

- layer 1 marks which tokens belong to the query and which to the document, by the template's marks;
- in layer 2 each token of the document looks for tokens like it in the query; what finds none looks at the first token
  of the template, which carries nothing. What was found is noted, weighed by the query's word;
- layer 3 gathers for the last token: what the document's tokens noted, and the mean of the document's and the query's
  token vectors, whose product it takes;
- the last state's product with the vectors of "yes" and "no" reads the sum.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from start import CONSTANT, config
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Model

CONTENT = 160
"""Of a token's values, how many say what it means; then comes what the layers note, and a constant."""
WEIGHT, IN_QUERY, IN_DOCUMENT, QUERY_MARK, DOCUMENT_MARK, FIRST, FOUND, SCORE = 160, 161, 162, 163, 164, 165, 166, 231
NOTE = 16
"""What each head of layer 2 notes: how much was found, and 15 values that tell which word."""
HEAD = 64
# Pairs of a head's values that rotary positions turn by less than a third over a few hundred tokens.
_STILL = [*range(16, 32), *range(48, 64)]
_PLAIN, _MARKED_QUERY, _MARKED_DOCUMENT = 31, 30, 29


@torch.no_grad()
def model(tokens: NDArray[np.float32], tokenizer: Tokenizer, seed: int) -> Qwen3Model:
    """Return the model that training starts from.

    Args:
        tokens: The fitted token vectors, (vocabulary, 255), the most important axes first.
        tokenizer: Whose tokens these are.
        seed: Of the random projections.
    """
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    made = Qwen3Model(config(len(tokens)))
    weight = made.embed_tokens.weight
    meaning = torch.from_numpy(tokens[:, :CONTENT]) / float(
        np.median(np.linalg.norm(tokens[len(tokens) // 10 :], axis=1))
    )
    weight.normal_(std=0.02, generator=random)
    weight[:, :CONTENT] = meaning
    weight[:, CONTENT:FOUND] = 0.0
    weight[:, WEIGHT] = meaning.norm(dim=1).clamp(max=3.0)
    weight[:, SCORE] = 0.0
    weight[:, -1] = CONSTANT
    for mark, place in (("\n<Query>: ", QUERY_MARK), ("\n<Document>: ", DOCUMENT_MARK), ("<|im_start|>", FIRST)):
        row = tokenizer.token_to_id(mark)
        weight[row, :-1] = 0.0
        weight[row, place] = CONSTANT
    for answer, sign in (("yes", 1.0), ("no", -1.0)):
        row = weight[tokenizer.token_to_id(answer)]
        row[:-1] = 0.0
        row[SCORE] = sign
    typical = float(weight.pow(2).mean().sqrt())
    for layer in made.layers:
        layer.input_layernorm.weight.fill_(typical)
        layer.post_attention_layernorm.weight.fill_(typical)
        layer.self_attn.o_proj.weight.normal_(std=0.002, generator=random)
        layer.mlp.down_proj.weight.normal_(std=0.002, generator=random)
        layer.self_attn.q_norm.weight.fill_(0.5)
    _mark(made.layers[0])
    _match(made.layers[1], random)
    _gather(made.layers[2])
    made.norm.weight.fill_(1.0)
    return made


def _head(weight: Tensor, number: int) -> Tensor:
    """Return a head's rows of a projection."""
    return weight[number * HEAD : (number + 1) * HEAD]


def _mark(layer: torch.nn.Module) -> None:
    """Layer 1, first head: note which mark came last."""
    attention = layer.self_attn
    attention.q_norm.weight.fill_(1.6)
    for head in range(1, 4):
        _even(attention, head)
    query, key, value = (
        _head(part.weight, 0).zero_() for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query[_MARKED_QUERY, -1], query[_MARKED_DOCUMENT, -1] = 0.6, 0.8
    key[_PLAIN, -1], key[_MARKED_QUERY, QUERY_MARK], key[_MARKED_DOCUMENT, DOCUMENT_MARK] = 0.1, 1.0, 1.0
    value[0, QUERY_MARK], value[1, DOCUMENT_MARK] = 1 / CONSTANT, 1 / CONSTANT
    out = attention.o_proj.weight
    out[IN_QUERY, 0], out[IN_DOCUMENT, 1] = 1.5, 1.5


def _match(layer: torch.nn.Module, random: torch.Generator) -> None:
    """Layer 2: find like tokens in the query; four heads, from strict to lenient."""
    attention = layer.self_attn
    attention.q_norm.weight.fill_(2.2)
    content, nothing, segment = _STILL[:-4], _STILL[-4], _STILL[-3]
    for head, strictness in enumerate((0.4, 0.7, 1.0, 1.3)):
        query, key, value = (
            _head(part.weight, head).zero_() for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        basis, _ = torch.linalg.qr(torch.randn(CONTENT, len(content), generator=random))
        projection = basis.T * (CONTENT / len(content)) ** 0.5
        query[content, :CONTENT] = projection
        key[content, :CONTENT] = projection
        query[nothing, -1] = strictness / CONSTANT
        query[segment, -1] = 0.6 / CONSTANT
        key[nothing, FIRST] = 1.0
        # Above zero in the query only; the first token is neither.
        key[segment, IN_QUERY], key[segment, IN_DOCUMENT], key[segment, -1] = 2.0, -2.0, -1.5 / CONSTANT
        key[segment, FIRST] = 1.5 / CONSTANT
        value[0, WEIGHT] = 1.0
        words, _ = torch.linalg.qr(torch.randn(CONTENT, NOTE - 1, generator=random))
        value[1:NOTE, :CONTENT] = words.T * (CONTENT / (NOTE - 1)) ** 0.5
        attention.o_proj.weight[FOUND + head * NOTE : FOUND + (head + 1) * NOTE, head * HEAD : head * HEAD + NOTE] = (
            torch.eye(NOTE)
        )


def _gather(layer: torch.nn.Module) -> None:
    """Layer 3: means over the document and the query, and their product."""
    attention = layer.self_attn
    attention.q_norm.weight.fill_(1.6)
    attention.o_proj.weight.zero_()
    eye = torch.eye(HEAD)
    # What each head reads, of which part, and where it is put.
    for head, (wanted, source, target, scale) in enumerate(
        (
            (IN_DOCUMENT, FOUND, FOUND, 4.0),
            (IN_DOCUMENT, 0, 0, 2.0),
            (IN_QUERY, 0, HEAD, 2.0),
            (IN_QUERY, HEAD, 2 * HEAD, 1.0),
        )
    ):
        query, key, value = (
            _head(part.weight, head).zero_() for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query[_MARKED_QUERY, -1] = 1.0
        key[_PLAIN, -1], key[_MARKED_QUERY, wanted] = 0.2, 4.0
        value[:, source : source + HEAD] = eye
        count = min(HEAD, CONTENT - target) if target < CONTENT else HEAD
        attention.o_proj.weight[target : target + count, head * HEAD : head * HEAD + count] = (
            scale * eye[:count, :count]
        )
    mlp = layer.mlp
    for side, sign in enumerate((1.0, -1.0)):
        rows = slice(side * HEAD, (side + 1) * HEAD)
        # silu(a) b + silu(-a) (-b) = a b
        mlp.gate_proj.weight[rows] = 0.0
        mlp.up_proj.weight[rows] = 0.0
        mlp.gate_proj.weight[rows, :HEAD] = sign * eye
        mlp.up_proj.weight[rows, HEAD : 2 * HEAD] = sign * eye
        mlp.down_proj.weight[SCORE, rows] = 1.0
    # Each head of layer 2: how much was found.
    attention.o_proj.weight[SCORE, [head * NOTE for head in range(4)]] = 1.0


def _even(attention: torch.nn.Module, head: int) -> None:
    """Let a head look everywhere alike, at first."""
    query, key = _head(attention.q_proj.weight, head), _head(attention.k_proj.weight, head)
    query.zero_()
    query[_PLAIN, -1] = 1.0
    key[_PLAIN] *= 0.01
