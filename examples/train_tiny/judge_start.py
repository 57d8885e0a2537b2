"""Where the reranker's training starts: layers that find the query's words in the document.

A few layers do not discover in some hours that a query must be compared with a document. Here they begin with a plain
way to do it, written into the weights, and training improves on it:

- layer 1 marks which tokens belong to the query, to the document and to the end, by the template's marks;
- in layer 2 each token of the document looks for tokens like it in the query; what finds none looks at the first token
  of the template, which carries nothing. What was found is noted, weighed by the query's word. Two more heads take the
  mean of the query's token vectors;
- layer 3 gathers for the end, and for nothing else, what the document's tokens noted and the mean of their vectors. The
  product of the two means is what an embedding model would compare;
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

LAYERS = 3
CONTENT = 104
"""Of a token's values, how many say what it means; as many hold the query's mean, then come notes and a constant."""
ASKED = CONTENT
WEIGHT, IN_QUERY, IN_DOCUMENT, IN_END, QUERY_MARK, DOCUMENT_MARK, END_MARK, FIRST = range(208, 216)
FOUND, SCORE = 216, 248
MATCHING = (0.5, 1.0)
"""How strict each head is that looks for like tokens."""
NOTE = 16
"""What each head of layer 2 notes: how much was found, and 15 values that tell which word."""
HEAD = 64
_PARTS = ((0, HEAD), (HEAD, CONTENT - HEAD))
"""A head is narrower than what a token means: (first value, values) of the two that carry it."""
# Pairs of a head's values that rotary positions turn by less than a third over a few hundred tokens.
_STILL = [*range(16, 32), *range(48, 64)]
_PLAIN, _MARKED_QUERY, _MARKED_DOCUMENT, _MARKED_END = 31, 30, 29, 28


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
    made = Qwen3Model(config(len(tokens), LAYERS))
    weight = made.embed_tokens.weight
    meaning = torch.from_numpy(tokens[:, :CONTENT]) / float(
        np.median(np.linalg.norm(tokens[len(tokens) // 10 :], axis=1))
    )
    weight.normal_(std=0.02, generator=random)
    weight[:, :CONTENT] = meaning
    weight[:, CONTENT:SCORE] = 0.0
    weight[:, WEIGHT] = meaning.norm(dim=1).clamp(max=3.0)
    weight[:, SCORE] = 0.0
    weight[:, -1] = CONSTANT
    for mark, place in (
        ("\n<Query>: ", QUERY_MARK),
        ("\n<Document>: ", DOCUMENT_MARK),
        ("</think>", END_MARK),
        ("<|im_start|>", FIRST),
    ):
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
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
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
    key[_PLAIN, -1] = 0.1
    for place, (sought, mark, part, strength) in enumerate(
        (
            (_MARKED_QUERY, QUERY_MARK, IN_QUERY, 0.6),
            (_MARKED_DOCUMENT, DOCUMENT_MARK, IN_DOCUMENT, 0.8),
            (_MARKED_END, END_MARK, IN_END, 1.0),
        )
    ):
        query[sought, -1], key[sought, mark], value[place, mark] = strength, 1.0, 1 / CONSTANT
        attention.o_proj.weight[part, place] = 1.5


def _match(layer: torch.nn.Module, random: torch.Generator) -> None:
    """Layer 2: find like tokens in the query, and take its mean."""
    attention = layer.self_attn
    attention.q_norm.weight.fill_(2.2)
    content, nothing, segment = _STILL[:-4], _STILL[-4], _STILL[-3]
    for head, strictness in enumerate(MATCHING):
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
    for head, (source, count) in enumerate(_PARTS, len(MATCHING)):
        _take(attention, head, IN_QUERY)
        _head(attention.v_proj.weight, head)[:count, source : source + count] = torch.eye(count)
        target = ASKED + source
        attention.o_proj.weight[target : target + count, head * HEAD : head * HEAD + count] = 2.0 * torch.eye(count)


def _gather(layer: torch.nn.Module) -> None:
    """Layer 3: what the document noted and its mean, and the product of that with the query's mean."""
    attention = layer.self_attn
    attention.q_norm.weight.fill_(1.6)
    # The mean is made large beside the rest, so that the norm before the product takes most of its length away.
    notes = (FOUND, len(MATCHING) * NOTE, 4.0)
    for head, (source, count, scale) in enumerate((notes, *((*part, 20.0) for part in _PARTS))):
        _take(attention, head, IN_DOCUMENT)
        _head(attention.v_proj.weight, head)[:count, source : source + count] = torch.eye(count)
        attention.o_proj.weight[source : source + count, head * HEAD : head * HEAD + count] = scale * torch.eye(count)
    _even(attention, 3)
    attention.o_proj.weight[SCORE, [head * NOTE for head in range(len(MATCHING))]] = 2.0
    mlp = layer.mlp
    for side, sign in enumerate((1.0, -1.0)):
        rows = slice(side * CONTENT, (side + 1) * CONTENT)
        # silu(a) b + silu(-a) (-b) = a b
        for part, place in ((mlp.gate_proj.weight, 0), (mlp.up_proj.weight, ASKED)):
            part[rows] = 0.0
            part[rows, place : place + CONTENT] = sign * torch.eye(CONTENT)
        mlp.down_proj.weight[SCORE, rows] = 1.0


def _take(attention: torch.nn.Module, head: int, wanted: int) -> None:
    """Let a head of the end's tokens look evenly at those with a mark, and carry nothing yet."""
    for part in (attention.q_proj, attention.k_proj, attention.v_proj):
        _head(part.weight, head).zero_()
    query, key = _head(attention.q_proj.weight, head), _head(attention.k_proj.weight, head)
    # What is not the end looks at the first token, which carries nothing.
    query[_MARKED_QUERY, IN_END], query[_MARKED_DOCUMENT, -1] = 1.0, 0.5 / CONSTANT
    key[_PLAIN, -1], key[_MARKED_QUERY, wanted], key[_MARKED_DOCUMENT, FIRST] = 0.2, 4.0, 1.0


def _even(attention: torch.nn.Module, head: int) -> None:
    """Let a head look everywhere alike, at first."""
    query, key = _head(attention.q_proj.weight, head), _head(attention.k_proj.weight, head)
    query.zero_()
    query[_PLAIN, -1] = 1.0
    key[_PLAIN] *= 0.01
