"""`embrief demo`: ask the Python standard library, or pictures."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from embrief.cli.naming import ConfigFile, given
from embrief.cli.output import console, plain, print_line, print_table, table
from embrief.cli.paths import expanded
from embrief.config.offline import offline_models
from embrief.errors import ArgumentError
from embrief.facts.records import TINY_EMBEDDING, TINY_VL_EMBEDDING
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from rich.console import Console

    from embrief import Embedder, Reranker
    from embrief.cli.demo_index import DemoIndex, Hit
    from embrief.facts.specs import EmbeddingSpec

QUESTIONS = (
    "remove leading and trailing whitespace from a string",
    "the n largest elements of an iterable",
    "make a temporary directory that is removed afterwards",
    "throw away a folder and everything in it",
)
MISSED = "shutil.rmtree"
LEXICAL_MISS = f"The answer is {MISSED}: other words, so a lexical model cannot find it."
CANDIDATES = 20
_BETTER_VL = "Qwen/Qwen3-VL-Embedding-2B"
_BETTER = ("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Reranker-0.6B")


def demo(
    ask: Annotated[
        list[str] | None, typer.Option(metavar="QUESTION", help="A question of your own; may be given several times.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The embedding model; by default a tiny one, together with its reranker.")
    ] = None,
    reranker: Annotated[str | None, typer.Option(help="A reranker for the best 20 of each question, or none.")] = None,
    dim: Annotated[int | None, typer.Option(help="Values per vector.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Docstrings to read at most.")] = None,
    folder: Annotated[
        Path | None, typer.Option(callback=expanded, help="Where to keep the vectors; used again by the next run.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Answers to show per question.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    instruction: Annotated[str | None, typer.Option(help="What the questions are for, in a sentence.")] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Find pictures by words and words by pictures instead.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Ask the Python standard library, or pictures.

    Embeds the docstrings of this interpreter, stores them in Chroma and answers questions. With --images it does so
    with pictures that come with this package. With the default models nothing is downloaded.
    """
    if any(not question.strip() for question in ask or ()):
        raise ArgumentError("--ask is empty; ask for something, such as --ask 'copy a file'")
    if images:
        others = {"--reranker": reranker, "--limit": limit, "--folder": folder}
        _ask_pictures(ask or (), model, dim, instruction, device, top, others)
        return
    from embrief import Embedder, Reranker
    from embrief.cli.demo_index import open_store
    from embrief.evaluation.corpus import read_corpus

    missing: tuple[str, ...] = ()
    if model is None:
        offline = offline_models()
        model, missing = offline.embedding, offline.missing
        reranker = reranker or offline.reranker
    if reranker == "none":
        reranker = None
    embedder = Embedder(model, dim=dim, instruction=instruction, truncate="silent", **given(device=device))
    judge = Reranker(reranker, instruction=instruction, truncate="silent", **given(device=device)) if reranker else None
    out = console()
    _print_head(out, embedder, judge, missing)
    if judge is not None:
        # Before the long part: if it cannot be had, this is the time to say so.
        judge.load()
    with open_store(folder, embedder) as store:
        start = time.perf_counter()
        with console(stderr=True).status("Reading the standard library"):
            entries = read_corpus(limit)
        taken = time.perf_counter() - start
        print_line(
            out,
            f"Read      {len(entries):,} docstrings of Python {platform.python_version()} in {taken:.1f} s",
        )
        index = store.index(entries)
        _fill(out, index, embedder, len(entries))
        print_line(out, f"Stored    {'in ' + str(folder) if folder else 'in a temporary folder (--folder keeps it)'}")
        for question in (*QUESTIONS, *(ask or ())):
            _answer(out, index, embedder, judge, question, top)
    if title := _hint(embedder.spec):
        _print_hint(out, title)


def _ask_pictures(
    ask: Sequence[str],
    model: str | None,
    dim: int | None,
    instruction: str | None,
    device: str,
    top: int,
    others: Mapping[str, object],
) -> None:
    from embrief import Embedder
    from embrief.cli.demo_images import show

    if given_too := [name for name, value in others.items() if value is not None]:
        raise ArgumentError(f"{given_too[0]} does nothing for pictures; leave it out, or --images")
    embedder = Embedder(model or TINY_VL_EMBEDDING, dim=dim, instruction=instruction, **given(device=device))
    out = console()
    print_line(out, "Pictures by words, words by pictures", "bold")
    print_line(out, f"Model     {embedder.spec.id}, {embedder.dim} values per vector")
    show(out, embedder, ask, top)
    if embedder.spec.id == TINY_VL_EMBEDDING:
        print_line(out, "")
        print_line(
            out,
            "The tiny model knows drawings, and few of them. For photographs and pages (downloads 4.3 GB once):",
            "bold",
        )
        print_line(out, f"  embrief demo --images --model {_BETTER_VL}")


def _print_head(out: Console, embedder: Embedder, judge: Reranker | None, missing: tuple[str, ...]) -> None:
    print_line(out, "Ask the Python standard library", "bold")
    print_line(out, f"Model     {embedder.spec.id}, {embedder.dim} values per vector")
    if embedder.spec.lexical:
        print_line(out, "          lexical only: it compares spelling, not meaning", "yellow")
    if missing:
        print_line(out, f"          for meaning: {install_command('demo')} (missing: {', '.join(missing)})", "yellow")
    if judge is not None:
        print_line(out, f"Reranker  {judge.spec.id}, on the best {CANDIDATES} of each question")


def _fill(out: Console, index: DemoIndex, embedder: Embedder, total: int) -> None:
    """Embed what the folder does not hold yet."""
    from embrief.cli.demo_index import is_quick
    from embrief.facades.progress import progress_bar

    count = len(index.missing)
    if not count:
        print_line(out, f"Embedded  nothing: all {total:,} are stored from an earlier run")
        return
    if count > 600 and not is_quick(embedder.spec):
        print_line(out, "          this can take long without a GPU; --limit 600 takes fewer docstrings", "dim")
    # Loading, and a download where there is one, is not embedding.
    embedder.load()
    start = time.perf_counter()
    with progress_bar(count) as bar:
        truncated = index.fill(embedder, bar.advance)
    taken = time.perf_counter() - start
    already = f", {total - count:,} were stored already" if count < total else ""
    print_line(out, f"Embedded  {count:,} in {taken:.1f} s ({count / taken:,.0f} texts/s with storing){already}")
    if truncated:
        print_line(
            out,
            f"          {truncated:,} are longer than {embedder.max_tokens} tokens and lost their end",
            "yellow",
        )


def _answer(
    out: Console, index: DemoIndex, embedder: Embedder, judge: Reranker | None, question: str, top: int
) -> None:
    """Print the best answers to one question."""
    hits = index.search(embedder.embed_query(question), max(CANDIDATES, top) if judge else top)
    rows: list[tuple[Hit, tuple[str, ...]]] = [(hit, ()) for hit in hits]
    if judge is not None:
        ranked = judge.rerank_items(question, hits, text=lambda hit: hit.entry.text, top_n=top)
        rows = [(item.item, (f"{item.score:.3f}",)) for item in ranked]
    names = [plain(hit.entry.name) for hit, _ in rows]
    headings = ("score", "rerank") if judge else ("score",)
    # Left to itself, the table would take room from the names, which are what people look for.
    width = min(max(map(len, names)), out.width * 2 // 5)
    rest = max(out.width - width - 3 - sum(len(heading) + 3 for heading in headings), 8)
    shown = table(title=plain(question))
    for heading in headings:
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("name", overflow="ellipsis", no_wrap=True, width=width, style="cyan")
    shown.add_column("first line")
    for name, (hit, scores) in zip(names, rows, strict=True):
        line = plain(hit.entry.first_line)
        line = line if len(line) <= rest else line[: rest - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
        shown.add_row(f"{hit.score:.3f}", *scores, name, line)
    out.print()
    print_table(out, shown)
    if embedder.spec.lexical and question == QUESTIONS[-1] and MISSED not in names:
        print_line(out, LEXICAL_MISS, "yellow")


def _hint(spec: EmbeddingSpec) -> str | None:
    """Return why to take a larger model than this one, for models that are only for trying out."""
    if spec.lexical:
        return "To search by meaning, with Qwen3 embedding and reranking (downloads 2.4 GB once):"
    if spec.id == TINY_EMBEDDING:
        return "The tiny models are for trying out. For real use, Qwen3 (downloads 2.4 GB once):"
    return None


def _print_hint(out: Console, title: str) -> None:
    embedding, reranking = _BETTER
    print_line(out, "")
    print_line(out, title, "bold")
    print_line(out, f"  {install_command('demo,torch')}")
    print_line(out, f"  embrief demo --model {embedding} --reranker {reranking}")
