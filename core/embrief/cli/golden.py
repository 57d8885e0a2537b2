"""`embrief eval collection`: what a search of an indexed collection finds of what it should."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated, Any

import typer

from embrief.cli.lines import line, print_json, styled
from embrief.cli.naming import ConfigFile  # noqa: TC001 - typer reads it
from embrief.cli.paths import expanded
from embrief.cli.terminal import terminal

_SHOWN = 5
_RERANKED = 10
"""Hits per question with a reranker, which reads four times as many: as `embrief search` does."""


def collection(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection that `embrief index` made.")],
    golden: Annotated[
        Path,
        typer.Option(
            callback=expanded,
            metavar="FILE",
            help='Questions with their answers: JSON lines with "query" and "expected" (path:line), or a .tsv file.',
        ),
    ],
    to: Annotated[str | None, typer.Option(metavar="DIR|URL", help="Where its store is.")] = None,
    store: Annotated[str | None, typer.Option(help="chroma or qdrant.")] = None,
    model: Annotated[str | None, typer.Option(help="The embedding model; by default the collection's.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What the questions are for, in a sentence.")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="With a reranker, as in `embrief search`.")] = False,
    reranker: Annotated[str | None, typer.Option(help="Which one.")] = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every question.")] = False,
) -> None:
    """Measure what a search of an indexed collection finds: nDCG@10, MRR@10 and recall, with intervals."""
    from embrief.evaluation.measures import DEPTH, NAMES, mean, score
    from embrief.indexing.golden import missing, rank, read_golden
    from embrief.indexing.workspace import USUAL, shared_workspace

    workspace, cwd = shared_workspace(), terminal().cwd
    asked = read_golden(cwd / golden)
    info = workspace.choose(name, to=to, store=store, cwd=cwd)
    judge = reranker or (USUAL if rerank else None)
    where: dict[str, Any] = {"to": info.to, "store": info.store, "model": model, "cwd": cwd}
    with workspace.opened(info) as opened:
        lost = missing(asked, opened.paths())
        rankings = rank(
            asked,
            lambda question: workspace.search(
                question,
                info.name,
                **where,
                instruction=instruction,
                rerank=judge,
                top_k=_RERANKED if judge else DEPTH,
            ),
        )
    scores = score(rankings, asked.expected)
    names = [measure for measure in NAMES if judge is None or not measure.endswith("@100")]
    means = {measure: mean(list(scores[measure].values())) for measure in names}
    if as_json:
        questions = [
            {
                "query": question,
                "expected": asked.expected[key],
                **{measure: scores[measure][key] for measure in names},
            }
            for key, question in asked.questions.items()
        ]
        figures = {measure: {"mean": item.mean, "low": item.low, "high": item.high} for measure, item in means.items()}
        print_json({"collection": info.name, "measures": figures, "missing": lost, "questions": questions})
        return
    line(styled(f"{len(asked.questions)} questions to {info.name}", "bold"))
    for measure, item in means.items():
        line(styled(f"{measure:<9} {item.mean:.3f}  (95 %: {item.low:.3f} to {item.high:.3f})", ""))
    worst = sorted(asked.questions, key=lambda key: scores["nDCG@10"][key])
    if failed := [key for key in worst if not scores["nDCG@10"][key]]:
        line(styled(f"{len(failed)} of them find nothing of it among the first 10:", "yellow"))
        for key in failed[:_SHOWN]:
            line(styled(f"  {asked.questions[key]}", "yellow"))
    if lost:
        shown = ", ".join(lost[:_SHOWN]) + (", ..." if len(lost) > _SHOWN else "")
        line(styled(f"warning: not in the collection: {len(lost)} of the places, {shown}", "yellow"), error=True)
