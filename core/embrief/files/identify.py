"""Telling models apart by their files.

A language model, an embedder and a reranker of the Qwen3 family share one class, so `architectures` alone decides
nothing. What decides: modules.json and 1_Pooling/config.json (written by sentence-transformers), config.json, and
whether the tokenizer appends an end token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embrief.errors import AmbiguousModelError, ModelMismatchError, WrongKindError, warn
from embrief.facts.specs import EmbeddingSpec, ModelSpec, RerankerSpec, Template
from embrief.files.folder_prompts import DOCUMENT_NAMES, QUERY_NAMES, as_template, embedding_prompts, report_unused
from embrief.files.image_files import read_images
from embrief.files.json_files import optional_object
from embrief.files.modules import after_pooling

if TYPE_CHECKING:
    from embrief.files.model_files import ModelFiles


def _check_widths(files: ModelFiles) -> None:
    """Refuse modules that do not fit together: a runtime would find out at the first text."""
    width = files.token_width
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


def identify_embedder(
    files: ModelFiles, family: EmbeddingSpec | None, *, like: EmbeddingSpec | None = None
) -> EmbeddingSpec:
    """Describe the embedding model in a folder that has no record.

    Args:
        files: The folder.
        family: The record that stands for models of this architecture, if there is one.
        like: The record that the caller named instead, for what the files do not say: prompts, pooling, limits.

    Raises:
        AmbiguousModelError: The files fit several kinds of model.
        ModelMismatchError: It is a model of another kind, or one that cannot be described.
    """
    family = like or family
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
        example = "Qwen/Qwen3-Embedding-0.6B" if family is None else family.id
        raise AmbiguousModelError(
            f"{files.folder} has no modules.json, and its config.json ({files.architecture}, {list(files.classes)}) "
            "fits a language model, an embedder and a reranker alike; say which it is: like='<recorded model>' takes "
            f"pooling and prompts from that record (for example like={example!r}), Reranker(...) loads "
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
        mrl=shorter_widths(family, dim),
        default_dim=None if files.truncate_dim is None else min(files.truncate_dim, dim),
        max_tokens=files.max_length or context,
        context=context,
        pooling=pooling,
        padding_side="right",
        prompts=embedding_prompts(files, family.prompts if family else None),
        final_token=family.final_token if family and family.pooling == pooling else files.appended_token(),
        source=str(files.folder),
    )
    report_unused(files, base)
    _report_metric(files)
    if family is None:
        return base
    if family.images is not None:
        base = replace(
            base,
            images=read_images(files.base, family.images),
            modalities=family.modalities,
            # What the authors state; config.json has what the model that it was made of could hold.
            context=min(base.context, family.context),
        )
    return replace(
        base,
        # A text model may be stored alone.
        images_unverified=family.images_unverified if files.config.object("vision_config") else None,
        special_tokens=family.special_tokens,
        padding_side=family.padding_side,
        final_token_left_out=base.final_token == family.final_token and family.final_token_left_out,
        max_tokens=min(base.max_tokens, family.max_tokens),
        banned_dtypes=family.banned_dtypes,
    )


def shorter_widths(family: EmbeddingSpec | None, dim: int) -> range | tuple[int, ...]:
    """Return the shorter widths a fine-tune can be expected to keep: its family's, up to its own width."""
    if family is None or not family.mrl:
        return ()
    if isinstance(family.mrl, range):
        return range(min(family.mrl[0], dim), dim + 1)
    return tuple(width for width in family.mrl if width <= dim)


def _report_metric(files: ModelFiles) -> None:
    metric = files.metric or "cosine"
    # At unit length, dot products and Euclidean distances order texts as cosines do.
    if metric == "manhattan" or (metric != "cosine" and files.kinds[-1:] != ("Normalize",)):
        warn(
            f"{files.folder} compares by {metric!r}, for which it was trained, and cosine may order texts differently; "
            "pass normalize=False for its vectors as they are, and set the store to that metric",
            UserWarning,
        )


def identify_reranker(
    files: ModelFiles, family: RerankerSpec | None, *, like: RerankerSpec | None = None
) -> RerankerSpec:
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
    family = like or family
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
            template=Template("{query}"),
            source=str(files.folder),
        )
        report_unused(files, spec)
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
    if not own and family.images is not None:
        # sentence-transformers has no system line for an empty prompt, and the template puts its own.
        own = None
    spec = replace(
        family,
        default_instruction=own if own is not None else family.default_instruction,
        images=None if family.images is None else read_images(files.base, family.images),
        scoring="label" if classifier else family.scoring,
        id=files.folder.name,
        revision="",
        license="unknown",
        gated=False,
        parameters=None,
        hidden_size=files.hidden_size,
        max_tokens=min(family.max_tokens, context),
        context=context if family.images is None else min(context, family.context),
        defines_family=False,
        aliases=(),
        served_names=(),
        verified=False,
        source=str(files.folder),
    )
    report_unused(files, spec)
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
        own = files.prompts or {}
        for names, recorded in ((QUERY_NAMES, first.query.head), (DOCUMENT_NAMES, first.document.head)):
            found = next((own[name] for name in names if name in own), None)
            if found is not None:
                compare(f"the prompt {names[0]!r}", as_template(found, spec.prompts).head, recorded)
    if spec.images is not None:
        seen = read_images(files.base, spec.images)
        compare("min_pixels", seen.min_pixels, spec.images.min_pixels)
        compare("max_pixels", seen.max_pixels, spec.images.max_pixels)
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
