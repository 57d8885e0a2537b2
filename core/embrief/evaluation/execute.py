"""One evaluation: every system on every set, each line saved as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from embrief.evaluation.measures import score
from embrief.evaluation.results import Results, make_row
from embrief.evaluation.systems import UnfitError

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.evaluation.retrieval_set import RetrievalSet
    from embrief.evaluation.systems import System, Variant


def evaluate(
    sets: Sequence[RetrievalSet],
    systems: Sequence[System],
    *,
    out: Path | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> Results:
    """Measure systems on retrieval sets.

    Args:
        sets: What to measure on.
        systems: What to measure; the first is what others are compared with.
        out: A results file. Lines in it that were measured on the same set with the same model are taken from there,
            so that an interrupted run goes on where it stopped; other lines in it stay behind those of this run.
        fresh: Measure everything again.
        say: Called with what happens.

    Returns:
        The lines asked for, in the order of sets and systems. Systems that read texts only have none for a set that
        holds pictures; `say` is told why.

    Raises:
        ArgumentError: Two lines would have the same name, no system can be measured on a set, or the file holds
            something else. Nothing was measured then.
    """
    planned = [_planned(found, systems, say) for found in sets]
    earlier = Results.load(out) if out is not None and out.exists() else Results([])
    results = Results([])
    for found, lines in zip(sets, planned, strict=True):
        for system, variants in lines:
            done = (
                {} if fresh else {variant.label: row for variant in variants if (row := earlier.find(found, variant))}
            )
            wanted = [variant.label for variant in variants if variant.label not in done]
            if wanted:
                say(f"{found.name}: {variants[0].label} ({len(wanted)} of {len(variants)} lines)")
                for ranked in system.rank(found, wanted):
                    done[ranked.variant.label] = make_row(found, ranked, score(ranked.ranking, found.judgements))
                    if out is not None:
                        _save(out, earlier, [*results.rows, *done.values()])
            # Named and compared as in this run, also where it was measured in an earlier one.
            results.rows += [
                done[variant.label] | {"set": found.name, "against": variant.against} for variant in variants
            ]
    if out is not None:
        _save(out, earlier, results.rows)
    return results


def _planned(
    found: RetrievalSet, systems: Sequence[System], say: Callable[[str], None]
) -> list[tuple[System, list[Variant]]]:
    """Return the systems that can be measured on a set, with their lines."""
    planned: list[tuple[System, list[Variant]]] = []
    reasons: list[str] = []
    for system in systems:
        try:
            planned.append((system, system.variants(found)))
        except UnfitError as error:
            reasons.append(str(error))
            say(f"left out: {error}")
    if reasons and not planned:
        raise ArgumentError(f"nothing can be measured on {found.name}: {'. '.join(reasons)}")
    labels = [variant.label for _, variants in planned for variant in variants]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ArgumentError(f"two lines would be called {twice[0]!r}; leave one out, or give it another name")
    return planned


def _save(out: Path, earlier: Results, rows: list[dict[str, Any]]) -> None:
    """Save what there is, and behind it the lines of earlier runs that this one does not replace."""
    there = {(row["digest"], row["system"]) for row in rows}
    left = [row for row in earlier.rows if (row["digest"], row["system"]) not in there]
    Results([*rows, *left]).save(out)
