"""Telling models apart by their files.

A language model, an embedder and a reranker of the Qwen3 family share one class, so `architectures` alone decides
nothing. What decides: modules.json and 1_Pooling/config.json (written by sentence-transformers), config.json, and
whether the tokenizer appends an end token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from embrief.engine.description import check_types
from embrief.errors import AmbiguousModelError, ModelMismatchError, WeightsUnavailableError, WrongKindError, warn
from embrief.foreign import folder_problem
from embrief.json_files import LARGE, JsonObject, optional_object, read_object, reads_folder
from embrief.modules import Module, after_pooling, check_modules, read_modules, transformer_folder, transformer_settings
from embrief.specs import (
    EmbeddingPrompts,
    EmbeddingSpec,
    ModelSpec,
    Pooling,
    RerankerSpec,
    RerankPrompt,
    Task,
)

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.registry import Registry

_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
_POOLING_NAMES: dict[str, Pooling] = {"lasttoken": "last", "mean": "mean", "cls": "cls"}
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"}
_ADAPTER = "adapter_config.json"
_QUERY_NAMES = ("query",)
_DOCUMENT_NAMES = ("document", "passage", "corpus")
_PREFERRED = (*_QUERY_NAMES, *_DOCUMENT_NAMES)
_SIDED = re.compile(
    r"(?:(?P<task>.+?)(?:[-_.:/ ]|(?<=[a-z0-9])(?=[A-Z])))?(?P<side>(?i:query|queries|documents?|passages?|corpus))"
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The small files of a model folder, read once."""

    folder: Path
    base: Path
    """Where config.json and the tokenizer are: the folder, or that of its Transformer module."""
    config: JsonObject
    modules: tuple[Module, ...] | None
    """What modules.json names, `None` without that file."""
    prompts: dict[str, str] | None
    """The folder's own prompts, `None` if it names none."""
    default_prompt: str | None
    max_length: int | None
    truncate_dim: int | None
    """Values per vector that the folder's author wants by default."""
    metric: str | None
    """How the folder's author compares vectors."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the class names in modules.json."""
        return tuple(module.kind for module in self.modules or ())

    @property
    def architecture(self) -> str:
        """Return `model_type` of config.json."""
        return self.config.text("model_type") or ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return `architectures` of config.json."""
        return tuple(self.config.texts("architectures") or ())

    @property
    def context(self) -> int | None:
        """Return the tokens that the model can hold, `None` if config.json does not say."""
        return _context(self.config)

    @property
    def hidden_size(self) -> int:
        """Return the width of the hidden states."""
        return self.config.count("hidden_size") or 0

    def module_config(self, kind: str) -> list[JsonObject]:
        """Return config.json of each module of a class, in order."""
        found = (module for module in self.modules or () if module.kind == kind)
        return [read_object(self.folder / module.path / "config.json") for module in found]

    def pooling(self) -> Pooling:
        """Return how token states become one vector, from 1_Pooling/config.json.

        Raises:
            ModelMismatchError: It is a mode, or a mix of modes, that no record describes.
        """
        config = self.module_config("Pooling")[0]
        if (named := config.get("pooling_mode")) is not None:
            modes = [named] if isinstance(named, str) else config.texts("pooling_mode") or []
            found = [_POOLING_NAMES[mode] for mode in modes if mode in _POOLING_NAMES]
        else:
            modes = [key for key in config if key.startswith("pooling_mode_") and config.flag(key)]
            found = [_POOLING_FLAGS[mode] for mode in modes if mode in _POOLING_FLAGS]
        if len(modes) != 1 or len(found) != 1:
            raise ModelMismatchError(f"{self.folder} pools with {modes}; one of last, mean and cls is supported")
        return found[0]

    def dim(self) -> int:
        """Return the values per vector, after Dense layers."""
        if dense := self.module_config("Dense"):
            width = dense[-1].count("out_features")
            return width if width else dense[-1].refuse("out_features", "the values per vector")
        pooling = self.module_config("Pooling")
        keys = ("embedding_dimension", "word_embedding_dimension")
        widths = [pooling[0].count(key) for key in keys] if pooling else []
        return next((width for width in widths if width), self.hidden_size)

    def appended_token(self) -> str | None:
        """Return the special token that the tokenizer puts at the end of a text, if any."""
        data = optional_object(self.base / "tokenizer.json", limit=LARGE)
        steps = data.object("post_processor")
        if steps is None:
            return None
        try:
            for step in steps.get("processors", [steps]):
                last = (step.get("single") or [{}])[-1]
                if "SpecialToken" in last:
                    return str(last["SpecialToken"]["id"])
                if step.get("type") in ("RobertaProcessing", "BertProcessing"):
                    return str(step["sep"][0])
        except (AttributeError, KeyError, IndexError, TypeError):
            data.refuse("post_processor", "what the tokenizers library writes")
        return None


@reads_folder
def read_files(folder: Path, *, trusted: bool = False) -> ModelFiles:
    """Read the small files of a model folder.

    Args:
        folder: The model.
        trusted: Whether modules of other packages than sentence-transformers may be named.

    Raises:
        WeightsUnavailableError: config.json, or a file that modules.json points to, is missing.
        ModelMismatchError: A file is not what it should be.
    """
    check_modules(folder, trusted=trusted)
    base = transformer_folder(folder)
    if not (base / "config.json").exists():
        raise WeightsUnavailableError(f"{base / 'config.json'} is missing: the folder {folder_problem(base)}")
    _refuse_adapter(folder, base)
    saved = optional_object(folder / "config_sentence_transformers.json")
    prompts = saved.object("prompts")
    length = transformer_settings(folder).count("max_seq_length")
    tokenizer = optional_object(base / "tokenizer_config.json")
    if length is None:
        # Written as 1e30 where there is none.
        length = int(tokenizer.number("model_max_length") or 0)
    config = read_object(base / "config.json")
    check_types(config)
    lengths = [value for value in (length, _context(config)) if value is not None and 0 < value < 10**9]
    default = saved.text("default_prompt_name")
    if default is not None and default not in (*_PREFERRED[:2], *(prompts or ())):
        raise ModelMismatchError(
            f"'default_prompt_name' in {saved.file} is {default!r}, which names no prompt of that file "
            f"({', '.join(prompts or ()) or 'there are none'}); write one of them, or null"
        )
    return ModelFiles(
        folder=folder,
        base=base,
        config=config,
        modules=read_modules(folder),
        prompts={name: text for name in prompts if (text := prompts.text(name)) is not None} if prompts else None,
        default_prompt=default,
        max_length=min(lengths, default=None),
        truncate_dim=saved.count("truncate_dim"),
        metric=saved.text("similarity_fn_name"),
    )


def _refuse_adapter(folder: Path, base: Path) -> None:
    """Refuse a folder with an adapter: transformers would put it onto the weights, where peft is installed."""
    for file in (base / _ADAPTER, folder / _ADAPTER):
        if file.exists():
            raise ModelMismatchError(
                f"{file} says that an adapter belongs to these weights, and no runtime here adds it: if it is merged "
                "already, delete that file (and adapter_model.safetensors); else load both with peft, call "
                "merge_and_unload() and save the result"
            )


def _check_widths(files: ModelFiles) -> None:
    """Refuse modules that do not fit together: a runtime would find out at the first text."""
    width = files.hidden_size
    for module in after_pooling(files.modules or ()):
        key = {"Dense": "in_features", "LayerNorm": "dimension"}.get(module.kind)
        if module.foreign or key is None:
            continue
        config = optional_object(files.folder / module.path / "config.json")
        if width and config.count(key) not in (None, width):
            raise ModelMismatchError(
                f"{config.file} takes {config[key]} values, and what comes before it in modules.json gives {width}; "
                "check the order of the modules, or save the model again"
            )
        width = config.count("out_features") or width


def _context(config: JsonObject) -> int | None:
    """Return the tokens a model can hold. RoBERTa's family counts positions from the padding id on."""
    positions = config.count("max_position_embeddings")
    if positions is not None and config.text("model_type") in _OFFSET_POSITIONS:
        padding = config.count("pad_token_id")
        return positions - (1 if padding is None else padding) - 1
    return positions


def identify_embedder(files: ModelFiles, registry: Registry, *, like: EmbeddingSpec | None) -> EmbeddingSpec:
    """Describe the embedding model in a folder that has no record.

    Args:
        files: The folder.
        registry: The records.
        like: The record to take prompts, pooling and limits from where the files are silent.

    Raises:
        AmbiguousModelError: The files fit several kinds of model.
        ModelMismatchError: It is a model of another kind, or one that cannot be described.
    """
    family = like or registry.family(files.architecture, EmbeddingSpec)
    if files.modules is not None and "Pooling" not in files.kinds:
        if "LogitScore" in files.kinds:
            raise WrongKindError(f"{files.folder} is a reranker", use=f"Reranker({str(files.folder)!r})")
        raise ModelMismatchError(
            f"{files.folder} is no embedding model with pooled token states but made of {list(files.kinds)}"
        )
    if (
        files.modules is None
        and like is None
        and (family is None or family.pooling != "last" or files.appended_token() != family.final_token)
    ):
        raise AmbiguousModelError(
            f"{files.folder} has no modules.json, and its config.json ({files.architecture}, {list(files.classes)}) "
            "fits a language model, an embedder and a reranker alike; say which it is: like='<recorded model>' takes "
            "pooling and prompts from that record (for example like='Qwen/Qwen3-Embedding-0.6B'), Reranker(...) loads "
            "a reranker"
        )
    if like is not None and like.architecture != files.architecture:
        raise ModelMismatchError(
            f"{files.folder} has the architecture {files.architecture!r}, so it is not like {like.id} "
            f"({like.architecture!r})"
        )
    _check_widths(files)
    dim = files.dim()
    pooling = files.pooling() if files.modules is not None else family.pooling if family else "mean"
    context = files.context or files.max_length or 512
    base = EmbeddingSpec(
        id=files.folder.name,
        revision="",
        license="unknown",
        architecture=files.architecture,
        hidden_size=files.hidden_size,
        dim=dim,
        mrl=_mrl(family, dim),
        default_dim=None if files.truncate_dim is None else min(files.truncate_dim, dim),
        max_tokens=files.max_length or context,
        context=context,
        pooling=pooling,
        padding_side="right",
        prompts=_prompts(files, family.prompts if family else None),
        final_token=family.final_token if family and family.pooling == pooling else files.appended_token(),
        source=str(files.folder),
    )
    _report_unused(files, base)
    _report_metric(files)
    if family is None:
        return base
    return replace(
        base,
        padding_side=family.padding_side,
        max_tokens=min(base.max_tokens, family.max_tokens),
        banned_dtypes=family.banned_dtypes,
    )


def _mrl(family: EmbeddingSpec | None, dim: int) -> range | tuple[int, ...]:
    """Return the shorter widths a fine-tune can be expected to keep: its family's, up to its own width."""
    if family is None or not family.mrl:
        return ()
    if isinstance(family.mrl, range):
        return range(min(family.mrl[0], dim), dim + 1)
    return tuple(width for width in family.mrl if width <= dim)


def _prompts(files: ModelFiles, family: EmbeddingPrompts | None) -> EmbeddingPrompts:
    """Return the prompts in force: the folder's own beat the family's."""
    own = files.prompts
    if own is None:
        return family or EmbeddingPrompts(tasks=(Task("retrieval", "", "", aliases=("query", "document")),))
    default = files.default_prompt or ""
    fallback = own.get(default, "")
    plain = {_named(name)[1]: own[name] for name in sorted(own, key=_rank) if not _named(name)[0]}
    # A default whose name says a side is not for the other.
    query, document = (
        plain.get(side, fallback if _named(default)[1] in ("", side) else "") for side in ("query", "document")
    )
    aliases: tuple[str, ...] = ("query", "document")
    pairs = {task for task, side in map(_named, own) if task and side}
    if len(pairs) == 1 and not fallback and not plain.keys() & {"query", "document"}:
        # One pair under longer names, such as search_query and search_document, is what they are for.
        longer = {_named(name)[1]: name for name in own if _named(name)[0] in pairs and _named(name)[1]}
        query, document = (own[longer[side]] if side in longer else "" for side in ("query", "document"))
        aliases += tuple(longer.values())
    retrieval = Task("retrieval", query, document, aliases=aliases)
    others: dict[str, Task] = {}
    fits = family is not None and _fits(query, family)
    if family is not None:
        first = family.tasks[0]
        # Titles keep working as long as the folder's document prompt is the family's.
        retrieval = replace(
            first,
            query=query,
            document=document,
            titled=first.titled if document == first.document else None,
            aliases=tuple(dict.fromkeys((*first.aliases, *aliases))),
        )
        others = {task.name: task for task in family.tasks[1:]} if fits else {}
    for name, prompt in own.items():
        task, side = _named(name)
        if not task or {name, task} & {retrieval.name, *retrieval.aliases}:
            continue
        match = next((item for item in others.values() if {name, task} & {item.name, *item.aliases}), None)
        if side:
            match = match or Task(task, query, document)
            match = replace(match, aliases=(*match.aliases, name))
            others[match.name] = replace(match, query=prompt) if side == "query" else replace(match, document=prompt)
        elif match is None:
            others[name] = Task(name, prompt, prompt)
        elif match.query != prompt:
            symmetric = match.query == match.document
            others[match.name] = replace(match, query=prompt, document=prompt if symmetric else match.document)
    return EmbeddingPrompts(
        tasks=(retrieval, *others.values()),
        instructed=family.instructed if family and fits else None,
        default_instruction=family.default_instruction if family and fits and query == family.tasks[0].query else None,
    )


def _named(name: str) -> tuple[str, str]:
    """Return the task and the side that a prompt's name says; without a side, the name is the task."""
    found = _SIDED.fullmatch(name)
    if found is None:
        return name, ""
    return found["task"] or "", "query" if found["side"].lower().startswith("q") else "document"


def _rank(name: str) -> int:
    """Return a number that is highest for the name that sentence-transformers prefers for its side."""
    return -_PREFERRED.index(name) if name in _PREFERRED else -len(_PREFERRED)


def unused_prompts(files: ModelFiles, spec: ModelSpec) -> list[str]:
    """Return the names of the folder's prompts that nothing here uses on the side that their names say."""
    own = files.prompts or {}
    if isinstance(spec, RerankerSpec):
        return [name for name, prompt in own.items() if prompt not in ("", spec.prompt.default_instruction)]
    return [name for name, prompt in own.items() if prompt not in _used(spec, name)]


def _used(spec: ModelSpec, name: str) -> tuple[str, ...]:
    """Return the prompts of an embedder that are in use under a name."""
    tasks = cast("EmbeddingSpec", spec).prompts.tasks
    whole, side = _named(name)
    task = next((task for task in tasks if name == task.name or name in task.aliases), None if whole else tasks[0])
    if task is None:
        return ()
    return (task.query,) if side == "query" else (task.document,) if side else (task.query, task.document)


def _report_metric(files: ModelFiles) -> None:
    metric = files.metric or "cosine"
    # At unit length, dot products and Euclidean distances order texts as cosines do.
    if metric == "manhattan" or (metric != "cosine" and files.kinds[-1:] != ("Normalize",)):
        warn(
            f"{files.folder} compares by {metric!r}, for which it was trained, and cosine may order texts differently; "
            "pass normalize=False for its vectors as they are, and set the store to that metric",
            UserWarning,
        )


def _report_unused(files: ModelFiles, spec: ModelSpec) -> None:
    if unused := unused_prompts(files, spec):
        warn(
            f"{files.folder} has prompts under the names {unused}, which nothing here uses; info()['unused_prompts'] "
            "lists them. Name prompts 'query' and 'document' in config_sentence_transformers.json, or after a task and "
            "a side, such as 'legal_query', and choose it with task='legal'",
            UserWarning,
        )


def _fits(query: str, family: EmbeddingPrompts) -> bool:
    """Return whether a folder's query prompt is of its family's kind: none, the family's, or with other words in it."""
    before, _, after = (family.instructed or "").partition("{instruction}")
    return not query or (bool(before) and query.startswith(before) and query.endswith(after))


def identify_reranker(files: ModelFiles, registry: Registry, *, like: RerankerSpec | None) -> RerankerSpec:
    """Describe the reranker in a folder that has no record.

    Raises:
        AmbiguousModelError: No template is known for this language model.
        ModelMismatchError: It is a model of another kind.
    """
    if files.modules is not None and "Pooling" in files.kinds:
        raise WrongKindError(
            f"{files.folder} is an embedding model (modules.json pools its states)",
            use=f"Embedder({str(files.folder)!r})",
        )
    context = files.context or files.max_length or 512
    classifier = any(name.endswith("ForSequenceClassification") for name in files.classes)
    family = like or registry.family(files.architecture, RerankerSpec)
    if classifier:
        _check_labels(files)
        if files.modules is not None and like is None and family is not None and family.scoring != "classifier":
            raise AmbiguousModelError(
                f"{files.folder} was trained by sentence-transformers to give a pair one label, and its files do not "
                f"say whether inside a template; if inside that of {family.id}, pass like={family.id!r}"
            )
    if classifier and (family is None or family.scoring == "classifier"):
        if (files.prompts or {}).get(files.default_prompt or ""):
            raise ModelMismatchError(
                f"{files.folder} names the prompt {files.default_prompt!r} as default, for which classifiers have no "
                "place here; set 'default_prompt_name' in config_sentence_transformers.json to null if it does nothing"
            )
        spec = RerankerSpec(
            id=files.folder.name,
            revision="",
            license="unknown",
            architecture=files.architecture,
            hidden_size=files.hidden_size,
            max_tokens=min(files.max_length or context, context),
            context=context,
            padding_side="right",
            scoring="classifier",
            prompt=RerankPrompt(head="{query}", tail=""),
            source=str(files.folder),
        )
        _report_unused(files, spec)
        return spec
    if family is None:
        raise AmbiguousModelError(
            f"{files.folder} is a {files.architecture!r} language model for which no rerank template is known; "
            "like='<recorded reranker>' takes one from that record"
        )
    if family.architecture != files.architecture:
        raise ModelMismatchError(
            f"{files.folder} has the architecture {files.architecture!r}, so it is not like {family.id} "
            f"({family.architecture!r})"
        )
    if files.appended_token() is not None:
        raise WrongKindError(
            f"the tokenizer of {files.folder} appends {files.appended_token()!r}, as embedders do and rerankers never",
            use=f"Embedder({str(files.folder)!r})",
        )
    own = (files.prompts or {}).get(files.default_prompt or "")
    prompt = replace(family.prompt, default_instruction=own) if own is not None else family.prompt
    spec = replace(
        family,
        prompt=prompt,
        scoring="label" if classifier else family.scoring,
        id=files.folder.name,
        revision="",
        license="unknown",
        gated=False,
        parameters=None,
        hidden_size=files.hidden_size,
        max_tokens=min(family.max_tokens, context),
        context=context,
        defines_family=False,
        aliases=(),
        verified=False,
        source=str(files.folder),
    )
    _report_unused(files, spec)
    return spec


def _check_labels(files: ModelFiles) -> None:
    # What transformers takes where the file names none.
    labels = len(files.config.object("id2label") or ()) or files.config.count("num_labels") or 2
    if labels != 1:
        raise ModelMismatchError(
            f"{files.folder} is a classifier with {labels} labels; a reranker has one. Train it with num_labels=1, or, "
            "if two labels mean no and yes, save a model with one whose weights are those of yes minus those of no"
        )


def verify_files(files: ModelFiles, spec: ModelSpec) -> None:
    """Check that the files of a recorded model are what its record says.

    Raises:
        ModelMismatchError: They disagree; the message lists every difference.
    """
    wrong: list[str] = []

    def compare(what: str, found: object, recorded: object) -> None:
        if found != recorded:
            wrong.append(f"{what} is {found!r}, recorded is {recorded!r}")

    compare("model_type", files.architecture, spec.architecture)
    if spec.hidden_size is not None:
        compare("hidden_size", files.hidden_size, spec.hidden_size)
    if isinstance(spec, EmbeddingSpec) and files.modules is not None:
        if "Pooling" in files.kinds:
            compare("pooling", files.pooling(), spec.pooling)
            compare("dim", files.dim(), spec.dim)
            compare("truncate_dim", files.truncate_dim, spec.default_dim)
        else:
            wrong.append(f"modules.json has no Pooling but {list(files.kinds)}")
        first = spec.prompts.tasks[0]
        for names, recorded in ((_QUERY_NAMES, first.query), (_DOCUMENT_NAMES, first.document)):
            own = files.prompts or {}
            found = next((own[name] for name in names if name in own), None)
            if found is not None:
                compare(f"the prompt {names[0]!r}", found, recorded)
    if isinstance(spec, EmbeddingSpec) and files.modules is None:
        wrong.append("modules.json is missing; without it the pooling is a guess")
    if isinstance(spec, RerankerSpec) and files.modules is not None and "Pooling" in files.kinds:
        wrong.append("modules.json describes an embedder")
    if wrong:
        raise ModelMismatchError(
            f"the files in {files.folder} are not those of {spec.id}: {'; '.join(wrong)}. Load a modified model from "
            "its own folder, or under its own name on the hub"
        )
    if isinstance(spec, RerankerSpec) and spec.scoring != "yes_no":
        _check_labels(files)
    _check_widths(files)
