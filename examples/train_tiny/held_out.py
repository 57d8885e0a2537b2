"""Retrieval sets from the third of the standard library that training never sees.

A question is the first sentence of a docstring; what answers it is the rest of that docstring, or the function's code.
"""

from __future__ import annotations

import inspect

import sources
import texts

from embrief.evaluation import RetrievalSet

# Worded as in training: so small a model follows no others.
CODE = "Given what a function does, retrieve its source code"
DOCUMENTATION = "Given what a function does, retrieve its documentation"


def sets() -> list[RetrievalSet]:
    """Return the sets: among docstrings only, and among docstrings and code with either as what is asked for."""
    questions: dict[str, str] = {}
    docs: dict[str, str] = {}
    codes: dict[str, str] = {}
    for path, text in sources.standard_library():
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        # Private modules hold what had another name, and another side of the split, in another Python.
        if not texts.held_out(module) or module.startswith("_"):
            continue
        for name, raw, code in texts.functions(module, text):
            doc = inspect.cleandoc(raw).strip()
            question = texts.first_sentence(doc)
            rest = texts.without(question, doc)
            if 15 < len(question) < 250 and len(rest) >= 60 and rest != doc and question not in questions.values():
                questions[name], docs[name] = question, rest[: texts.MAX_CHARACTERS]
                if code.count("\n") >= 2:
                    codes[name] = code[: texts.MAX_CHARACTERS]
    both = {name: questions[name] for name in codes}
    corpus = {**{f"doc {name}": docs[name] for name in both}, **{f"code {name}": codes[name] for name in both}}

    def judged(kind: str, instruction: str) -> RetrievalSet:
        judgements = {name: {f"{kind} {name}": 1} for name in both}
        return RetrievalSet(f"stdlib-{kind}", corpus, both, judgements, instruction)

    return [
        RetrievalSet("stdlib", docs, questions, {name: {name: 1} for name in questions}),
        judged("code", CODE),
        judged("doc", DOCUMENTATION),
    ]
