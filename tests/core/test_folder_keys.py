"""A folder is read closed-world: what sentence-transformers honours is honoured, to its result, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, Embedder, ModelMismatchError, Reranker

pytest.importorskip("sentence_transformers")

TEXTS = ["Mars is often called the RED Planet.", "x", "Copying Directory Trees, compressing archives."]
BACKENDS = ("engine", "sentence-transformers")


def edit(file: Path, **changes: object) -> None:
    data = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({**data, **changes}), "utf-8")


def write_list(folder: Path, *modules: tuple[str, str]) -> None:
    """Write modules.json."""
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries), "utf-8")


@pytest.fixture
def folder(gemma_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gemma_folder, tmp_path / "model"))


@pytest.fixture
def qwen(qwen3_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen3_folder, tmp_path / "qwen"))


def expected(folder: Path) -> np.ndarray:
    """Return what sentence-transformers makes of documents, at unit length."""
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(str(folder), device="cpu").encode_document(TEXTS)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def check_equal(folder: Path, *backends: str) -> np.ndarray:
    """Compare documents of each backend with those of sentence-transformers; return these."""
    right = expected(folder)
    for backend in backends or BACKENDS:
        ours = Embedder(folder, backend=backend, dtype="float32", device="cpu").embed_documents(TEXTS)
        np.testing.assert_allclose(ours, right, atol=2e-6, err_msg=backend)
    return right


PLAIN = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense"))


@pytest.mark.parametrize(
    "modules",
    [
        (*PLAIN[:2], ("Normalize", "n"), *PLAIN[2:]),
        (*PLAIN[:3], ("Normalize", "n"), PLAIN[3], ("Normalize", "m")),
        (*PLAIN[:3], ("Dropout", "d"), ("Normalize", "n"), PLAIN[3], ("Dropout", "e")),
        (*PLAIN[:2], ("Dense", "9_Dense"), ("Dense", "3_Dense")),
    ],
)
def test_modules_run_in_the_order_of_the_list(gemma_folder: Path, folder: Path, modules: tuple) -> None:
    # With biases and Tanh, a factor in the middle does not cancel out.
    for name in ("2_Dense", "3_Dense"):
        edit(folder / name / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    (folder / "d").mkdir()
    edit(folder / "d" / "config.json", dropout=0.5)
    shutil.copytree(folder / "2_Dense", folder / "9_Dense")
    write_list(folder, *PLAIN, ("Normalize", "4_Normalize"))
    plain, plain_space = expected(folder), Embedder(folder).space
    write_list(folder, *modules)
    right = check_equal(folder)
    moved = bool(np.abs(right - plain).max() > 1e-3)
    assert moved == any(kind == "Normalize" for kind, _ in modules[:-1])
    if moved:
        assert Embedder(folder).space != plain_space


def test_what_only_training_and_cosine_need_does_not_change_the_space(folder: Path) -> None:
    space = Embedder(folder).space
    write_list(folder, *PLAIN)
    assert Embedder(folder).space == space
    write_list(folder, *PLAIN, ("Dropout", "d"), ("Normalize", "n"))
    assert Embedder(folder).space == space
    edit(folder / "sentence_bert_config.json", do_lower_case=False)
    edit(folder / "config_sentence_transformers.json", similarity_fn_name=None, model_type="SentenceTransformer")
    assert Embedder(folder).space == space


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_lower_case_is_honoured_under_all_names_of_the_file(folder: Path, name: str) -> None:
    space, plain = Embedder(folder).space, expected(folder)
    (folder / "sentence_bert_config.json").write_text("{}", "utf-8")
    edit(folder / f"sentence_{name}_config.json", do_lower_case=True, max_seq_length=77)
    embedder = Embedder(folder)
    assert embedder.max_tokens == 77
    assert embedder.space != space
    if name in ("bert", "xlnet"):
        assert np.abs(check_equal(folder) - plain).max() > 1e-3


def test_lower_case_and_a_normalizer_of_the_tokenizer(folder: Path) -> None:
    replace = {"type": "Replace", "pattern": {"String": "planet"}, "content": "?"}
    for own in ({"type": "Lowercase"}, replace, {"type": "Sequence", "normalizers": [{"type": "NFC"}, replace]}):
        edit(folder / "tokenizer.json", normalizer=own)
        edit(folder / "sentence_bert_config.json", do_lower_case=True)
        check_equal(folder)


@pytest.mark.parametrize("backend", BACKENDS)
def test_truncate_dim_is_the_default_width(folder: Path, backend: str) -> None:
    edit(folder / "config_sentence_transformers.json", truncate_dim=20)
    embedder = Embedder(folder, backend=backend, dtype="float32", device="cpu")
    assert (embedder.dim, embedder.space.dim) == (20, 20)
    np.testing.assert_allclose(embedder.embed_documents(TEXTS), expected(folder), atol=2e-6)
    assert embedder.with_dim(48).dim == 48
    assert embedder.with_dim(48).with_dim(None).dim == 20
    assert Embedder(folder, dim=20).space == embedder.space
    for dim, result in embedder.encode_dims(TEXTS, [48, 20], role="document").items():
        np.testing.assert_allclose(result.vectors, embedder.with_dim(dim).embed_documents(TEXTS), atol=2e-6)
    edit(folder / "config_sentence_transformers.json", truncate_dim=4096)
    assert Embedder(folder).dim == 48
    with pytest.raises(ArgumentError, match="does not fit"):
        Embedder(folder, dim=49)


REFUSED = [
    ("1_Pooling/config.json", {"include_prompt": False}, "leaving the prompt out"),
    ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "pools with"),
    ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pools with"),
    ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}, "pools with"),
    ("1_Pooling/config.json", {"pooling_mode_mean_tokens": "yes"}, "not true or false"),
    ("1_Pooling/config.json", {"layer_weights": [1, 2]}, "has the key 'layer_weights'"),
    ("2_Dense/config.json", {"activation_function": "evil.code.Identity"}, "no class of torch.nn.modules"),
    ("2_Dense/config.json", {"activation_function": None}, "no class of torch.nn.modules"),
    ("2_Dense/config.json", {"activation_function": "torch.nn.functional.tanh"}, "no class of torch.nn.modules"),
    ("2_Dense/config.json", {"bias": 1}, "not true or false"),
    ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "modules work on pooled vectors"),
    ("2_Dense/config.json", {"module_output_name": "other"}, "modules work on pooled vectors"),
    ("2_Dense/config.json", {"scale": 2}, "has the key 'scale'"),
    ("4_Normalize/config.json", {"module_input_name": "token_embeddings"}, "modules work on pooled vectors"),
    ("4_Normalize/config.json", {"p": 1}, "has the key 'p'"),
    ("sentence_bert_config.json", {"do_lower_case": "true"}, "not true or false"),
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "this kind of model needs"),
    ("sentence_bert_config.json", {"modality_config": {"message": {"method": "forward"}}}, "sets 'text'"),
    ("sentence_bert_config.json", {"modality_config": {"text": {"method": "encode"}}}, "sets 'text'"),
    ("sentence_bert_config.json", {"module_output_name": "logits"}, "this kind of model makes"),
    ("sentence_bert_config.json", {"processing_kwargs": {"text": {"padding": "max_length"}}}, "sets 'text' in"),
    ("sentence_bert_config.json", {"query_length": 32}, "late interaction"),
    ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, "late interaction"),
    ("sentence_bert_config.json", {"model_args": {"output_hidden_states": True}}, "sets 'output_hidden_states'"),
    ("sentence_bert_config.json", {"model_kwargs": {"variant": "fp16"}}, "sets 'variant'"),
    ("sentence_bert_config.json", {"tokenizer_args": {"add_eos_token": False}}, "sets 'add_eos_token'"),
    ("sentence_bert_config.json", {"config_args": {"rope_theta": 5}}, "sets 'rope_theta'"),
    ("sentence_bert_config.json", {"config_kwargs": [1]}, "not an object"),
    ("sentence_bert_config.json", {"tokenizer_name_or_path": "bert-base-uncased"}, "read from this folder"),
    ("sentence_bert_config.json", {"pad_to_multiple_of": 8}, "has the key 'pad_to_multiple_of'"),
    ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "its modules are those of"),
    ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "its modules are those of"),
    ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, "one vector per text"),
    ("config_sentence_transformers.json", {"truncate_dim": 0}, "at least 1"),
    ("config_sentence_transformers.json", {"truncate_dim": "64"}, "whole number"),
    ("config_sentence_transformers.json", {"default_prompt_name": "absent"}, "names no prompt"),
    ("config_sentence_transformers.json", {"query_prefix": "[Q] "}, "has the key 'query_prefix'"),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_a_key_that_nobody_honours_is_refused(
    folder: Path, name: str, change: dict[str, object], message: str, backend: str
) -> None:
    edit(folder / name, **change)
    with pytest.raises(ModelMismatchError, match=message) as caught:
        Embedder(folder, backend=backend)
    if "pools with" not in message:
        assert str(folder / name) in str(caught.value)


def test_harmless_keys_stay_harmless(folder: Path) -> None:
    plain = expected(folder)
    edit(
        folder / "sentence_bert_config.json",
        model_args={"torch_dtype": "float32", "attn_implementation": "sdpa"},
        tokenizer_args={"use_fast": True},
        unpad_inputs=False,
        transformer_task="feature-extraction",
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
        query_length=None,
    )
    edit(folder / "config_sentence_transformers.json", requirements={"python": ">=3"}, __version__={"pytorch": "9"})
    edit(folder / "4_Normalize" / "config.json", module_input_name="sentence_embedding", module_output_name=None)
    edit(folder / "2_Dense" / "config.json", module_input_name="sentence_embedding", use_residual=False)
    np.testing.assert_allclose(check_equal(folder), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ((("Pooling", "1_Pooling"), ("Transformer", "")), "should begin with its only 'Transformer'"),
        ((("Transformer", ""), ("Transformer", "0_T"), ("Pooling", "1_Pooling")), "its only 'Transformer'"),
        ((("Transformer", ""), ("Pooling", "1_Pooling"), ("Pooling", "p")), "one 'Pooling' or one 'LogitScore'"),
        ((("Transformer", ""), ("Dense", "2_Dense"), ("Pooling", "1_Pooling")), "in front of 'Pooling'"),
        ((("Transformer", ""), ("Normalize", "n"), ("Pooling", "1_Pooling")), "in front of 'Pooling'"),
        ((*PLAIN[:3], ("Dense", "2_Dense")), "two modules with the path"),
        ((("Transformer", ""), ("Pooling", "")), "two modules with the path"),
        ((("Router", ""), ("Pooling", "1_Pooling")), "runs queries and documents through different layers"),
        ((("Asym", ""),), "runs queries and documents through different layers"),
        ((*PLAIN[:2], ("WeightedLayerPooling", "w")), "the module 'WeightedLayerPooling'"),
        ((*PLAIN[:2], ("SpladePooling", "w")), "the module 'SpladePooling'"),
        ((), "should begin with its only 'Transformer'"),
    ],
)
def test_modules_that_nobody_runs_are_refused(folder: Path, modules: tuple, message: str) -> None:
    write_list(folder, *modules)
    with pytest.raises(ModelMismatchError, match=message) as caught:
        Embedder(folder)
    assert "modules.json" in str(caught.value)


def test_two_modules_of_one_name_are_refused(folder: Path) -> None:
    entries = json.loads((folder / "modules.json").read_text("utf-8"))
    entries[3]["name"] = entries[2]["name"]
    (folder / "modules.json").write_text(json.dumps(entries), "utf-8")
    with pytest.raises(ModelMismatchError, match="two modules with the name '2'"):
        Embedder(folder)


@pytest.mark.parametrize("path", ["../other", "/etc", "2_Dense/../../other", "..\\other", "C:\\models", "link"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, path: str, place: int) -> None:
    shutil.copytree(folder / "2_Dense", folder.parent / "other")
    (folder / "link").symlink_to(folder.parent / "other")
    modules = list(PLAIN)
    modules[place] = (modules[place][0], path)
    write_list(folder, *modules)
    with pytest.raises(ModelMismatchError, match=r"modules\.json is .*, not a folder inside the model's"):
        Embedder(folder)


def test_links_inside_a_cache_are_followed(folder: Path) -> None:
    """The hub's cache is made of links to files elsewhere."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    before = Embedder(folder, dtype="float32").embed_documents(TEXTS)
    for number, file in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    linked = folder.parent / "linked"
    linked.symlink_to(folder)
    np.testing.assert_array_equal(Embedder(linked, dtype="float32").embed_documents(TEXTS), before)


def test_dense_layers_with_bias_and_other_activations_and_a_residual_with_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = folder / "3_Dense" / "model.safetensors"
    weights = load_file(file)
    save_file({**weights, "linear.bias": torch.randn(48)}, file)
    edit(folder / "3_Dense" / "config.json", bias=True, activation_function="torch.nn.modules.activation.Tanh")
    check_equal(folder)
    edit(folder / "3_Dense" / "config.json", activation_function="torch.nn.modules.activation.GELU")
    assert "GELU" in Embedder(folder).info()["backend_reason"]
    check_equal(folder, "sentence-transformers")
    save_file({**weights, "residual.weight": torch.randn(48, 96)}, file)
    edit(folder / "3_Dense" / "config.json", bias=False, use_residual=True)
    with pytest.raises(ModelMismatchError, match=r"'use_residual' in .*3_Dense"):
        Embedder(folder)


def test_modules_that_do_not_fit_together_are_refused(folder: Path) -> None:
    write_list(folder, *PLAIN[:2], PLAIN[3], PLAIN[2])
    with pytest.raises(ModelMismatchError, match=r"3_Dense/config.json takes 96 values, and .* gives 48"):
        Embedder(folder)


def test_pooling_without_a_mode_is_refused(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 48}), "utf-8")
    with pytest.raises(ModelMismatchError, match="pools with"):
        Embedder(folder)


def sides(embedder: Embedder, task: str | None = None) -> tuple[str, str]:
    return embedder.render("", role="query", task=task), embedder.render("", role="document", task=task)


def prompts(folder: Path, **named: str) -> Embedder:
    edit(folder / "config_sentence_transformers.json", prompts=named)
    return Embedder(folder)


@pytest.mark.parametrize(
    "names",
    [
        ("query", "document"),
        ("Query", "Passage"),
        ("queries", "corpus"),
        ("search_query", "search_document"),
        ("retrieval.query", "retrieval.passage"),
        ("Retrieval-query", "Retrieval-document"),
        ("webQuery", "webDocuments"),
    ],
)
def test_prompts_are_used_on_the_side_that_their_names_say(qwen: Path, folder: Path, names: tuple[str, str]) -> None:
    for model in (qwen, folder):
        embedder = prompts(model, **{names[0]: "q: ", names[1]: "d: ", "clustering": "c: "})
        assert sides(embedder) == ("q: ", "d: ")
        assert embedder.info()["unused_prompts"] == []
        assert embedder.space.document_prompt == "d: "


def test_a_pair_of_prompts_beside_the_main_one_is_a_task(qwen: Path) -> None:
    embedder = prompts(
        qwen, query="q: ", document="d: ", legal_query="lq: ", legal_passage="ld: ", code_query="cq: ", main="m: "
    )
    assert sides(embedder) == ("q: ", "d: ")
    assert sides(embedder, "legal") == ("lq: ", "ld: ")
    assert sides(embedder, "legal_query") == ("lq: ", "ld: ")
    assert sides(embedder, "code") == ("cq: ", "d: ")
    assert sides(embedder, "main") == ("m: ", "m: ")
    assert embedder.info()["unused_prompts"] == []


@pytest.mark.parametrize(
    ("named", "unused"),
    [
        ({"query": "q: ", "document": "d: ", "passage": "p: "}, ["passage"]),
        ({"query": "q: ", "Query": "Q: ", "document": "d: ", "corpus": "d: "}, ["Query"]),
        ({"query": "q: ", "document": "d: ", "retrieval_query": "r: "}, ["retrieval_query"]),
    ],
)
def test_a_prompt_that_nothing_uses_is_reported(qwen: Path, named: dict[str, str], unused: list[str]) -> None:
    with pytest.warns(UserWarning, match=rf"prompts under the names .*{unused[0]}.* which nothing here uses"):
        embedder = prompts(qwen, **named)
    assert embedder.info()["unused_prompts"] == unused
    assert sides(embedder) == ("q: ", "d: ")


def test_a_prompt_of_a_family_under_a_name_that_means_another_is_reported(folder: Path) -> None:
    with pytest.warns(UserWarning, match="Retrieval-query"):
        embedder = prompts(
            folder, query="q: ", document="d: ", **{"Retrieval-query": "other: ", "Retrieval-document": "d: "}
        )
    assert embedder.info()["unused_prompts"] == ["Retrieval-query"]


def test_prompts_of_a_reranker_are_used_or_reported(reranker_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reranker_folder, tmp_path / "reranker"))
    edit(
        folder / "config_sentence_transformers.json",
        prompts={"main": "Find it", "other": "no"},
        default_prompt_name="main",
    )
    with pytest.warns(UserWarning, match=r"names \['other'\]"):
        info = Reranker(folder).info()
    assert (info["instruction"], info["unused_prompts"]) == ("Find it", ["other"])


@pytest.mark.parametrize("metric", ["dot", "euclidean", "manhattan"])
def test_another_metric_is_told(folder: Path, metric: str) -> None:
    edit(folder / "config_sentence_transformers.json", similarity_fn_name=metric)
    if metric == "manhattan":
        with pytest.warns(UserWarning, match="compares by 'manhattan'"):
            Embedder(folder)
    else:
        Embedder(folder)
    write_list(folder, *PLAIN)
    with pytest.warns(UserWarning, match=f"compares by '{metric}'"):
        Embedder(folder)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("installed", [False, True])
def test_an_adapter_that_was_left_behind_is_refused(
    qwen: Path, reranker_folder: Path, tmp_path: Path, backend: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, "is_peft_available", lambda: installed)
    reranker = Path(shutil.copytree(reranker_folder, tmp_path / "reranker"))
    for folder, facade in ((qwen, Embedder), (reranker, Reranker)):
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
        with pytest.raises(
            ModelMismatchError, match=r"merged already, delete that file .* else load both with peft"
        ) as caught:
            facade(folder, backend=backend)
        assert str(folder / "adapter_config.json") in str(caught.value)


def test_layers_without_a_list_of_their_kinds_are_those_of_transformers(folder: Path) -> None:
    edit(folder / "config.json", layer_types=None, _sliding_window_pattern=2, sliding_window=4)
    before = check_equal(folder)
    edit(folder / "config.json", sliding_window_pattern=2)
    assert np.abs(check_equal(folder) - before).max() > 1e-4
    assert Embedder(folder).info()["backend"] == "engine"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_parameters": None}, "for each kind of layer"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, "for each kind of layer"),
        ({"layer_types": ["full_attention"]}, "1 layer_types"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"sliding_windows": 3}, "'sliding_windows'"),
    ],
)
def test_what_the_engine_does_not_know_of_gemma_goes_to_transformers(
    folder: Path, change: dict[str, object], reason: str
) -> None:
    edit(folder / "config.json", **change)
    info = Embedder(folder).info()
    assert info["backend"] == "sentence-transformers"
    assert reason in info["backend_reason"]
