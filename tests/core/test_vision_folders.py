"""Folders of models that read pictures: what they are known as, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embrief import Embedder, Reranker, export_model
from embrief.errors import (
    AmbiguousModelError,
    ArgumentError,
    ModelMismatchError,
    WeightsUnavailableError,
    WrongKindError,
)
from embrief.facts.records import qwen3_vl
from embrief.files.folders import missing_files
from embrief.files.identify import verify_files
from embrief.files.model_files import read_files

from ..conftest import write_json
from ..vision_models import HIDDEN_SIZE, write_new_modules

WHOLE = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
TURN = {"add_generation_prompt": True}


@pytest.fixture
def folder(vision_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(vision_folder, tmp_path / "embedder"))


@pytest.fixture
def reranker(vision_reranker_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(vision_reranker_folder, tmp_path / "reranker"))


def change(file: Path, **values: object) -> None:
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    write_json(file, {key: value for key, value in {**found, **values}.items() if value != "gone"})


def prompts(folder: Path, own: dict[str, str], default: str | None = None) -> None:
    change(folder / "config_sentence_transformers.json", prompts=own, default_prompt_name=default)


@pytest.mark.parametrize("layout", ["older", "newer"])
def test_an_embedder_is_known_in_both_layouts(folder, layout):
    if layout == "newer":
        write_new_modules(folder)
    spec = Embedder(folder).spec
    assert spec.modalities == ("text", "image")
    assert spec.images == qwen3_vl.IMAGES
    assert spec.special_tokens == "text"
    assert (spec.dim, spec.pooling, spec.final_token) == (HIDDEN_SIZE, "last", "<|endoftext|>")
    assert (spec.max_tokens, spec.context) == (4096, 4096)
    assert spec.prompts == qwen3_vl.EMBEDDING_PROMPTS
    assert Embedder(folder).modalities == ("text", "image")
    assert Embedder(folder).info()["backend"] == "engine"


def test_a_folder_without_modules_is_known_by_its_tokenizer(folder):
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").unlink()
    assert Embedder(folder).spec.images == qwen3_vl.IMAGES


def test_where_the_files_leave_open_what_it_is_a_record_that_fits_is_named(reranker):
    with pytest.raises(AmbiguousModelError, match="for example like='Qwen/Qwen3-VL-Embedding-2B'"):
        Embedder(reranker)


def test_a_reranker_is_known(reranker):
    spec = Reranker(reranker).spec
    assert spec.images == qwen3_vl.IMAGES
    assert spec.special_tokens == "text"
    assert spec.template == qwen3_vl.RERANK_TEMPLATE
    assert spec.default_instruction == qwen3_vl.RERANK_INSTRUCTION
    assert (spec.max_tokens, spec.context) == (4096, 4096)


def newer_reranker(folder: Path, **settings: object) -> None:
    package = "sentence_transformers"
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": f"{package}.base.modules.transformer.Transformer"},
            {"idx": 1, "name": "1", "path": "1_LogitScore", "type": f"{package}.cross_encoder.modules.LogitScore"},
        ],
    )
    specials = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    write_json(
        folder / "1_LogitScore" / "config.json",
        {"true_token_id": specials["yes"], "false_token_id": specials["no"]},
    )
    method = {"method": "forward", "method_output_name": "logits"}
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "any-to-any",
            "modality_config": {**dict.fromkeys(("text", "image"), method), "message": {**method, "format": "flat"}},
            "module_output_name": "causal_logits",
            "processing_kwargs": {"chat_template": {"chat_template": "reranker", "add_generation_prompt": True}},
            "unpad_inputs": False,
            **settings,
        },
    )


def test_a_reranker_is_known_in_the_newer_layout(reranker):
    newer_reranker(reranker)
    assert Reranker(reranker).spec.images == qwen3_vl.IMAGES
    prompts(reranker, {"mine": "Given a question, retrieve its answer."}, "mine")
    assert Reranker(reranker).spec.default_instruction == "Given a question, retrieve its answer."
    prompts(reranker, {"mine": ""}, "mine")
    assert Reranker(reranker).spec.default_instruction == qwen3_vl.RERANK_INSTRUCTION


def test_a_reranker_of_texts_has_no_task_of_pictures(reranker_folder, tmp_path):
    text = Path(shutil.copytree(reranker_folder, tmp_path / "text"))
    newer_reranker(text)
    with pytest.raises(ModelMismatchError, match="'transformer_task' to 'any-to-any'"):
        _ = Reranker(text).spec


def test_a_reranker_whose_tokenizer_appends_a_token_is_no_reranker(vision_folder):
    with pytest.raises(WrongKindError):
        _ = Reranker(vision_folder).spec


def test_limits_of_pixels_are_the_folders_own(folder):
    file = folder / "preprocessor_config.json"
    before = Embedder(folder).space
    change(file, min_pixels=8192, max_pixels=65536, size={"shortest_edge": 8192, "longest_edge": 65536})
    images = Embedder(folder).spec.images
    assert (images.min_pixels, images.max_pixels) == (8192, 65536)
    space = Embedder(folder).space
    assert (space.min_pixels, space.max_pixels) == (8192, 65536)
    assert space.weights == before.weights
    assert space != before
    # Releases of transformers from 5 on write no older names, and one file for all processors.
    change(file, min_pixels="gone", max_pixels="gone")
    assert Embedder(folder).spec.images == images
    write_json(folder / "processor_config.json", {"image_processor": json.loads(file.read_text("utf-8"))})
    file.unlink()
    assert Embedder(folder).spec.images == images


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resample": 2}, "sets 'resample' to 2; pictures are prepared with 3"),
        ({"rescale_factor": 1.0}, "sets 'rescale_factor'"),
        ({"image_mean": [0.48, 0.45, 0.4]}, "sets 'image_mean'"),
        ({"image_std": [0.5, 0.5]}, "sets 'image_std'"),
        ({"patch_size": 14}, "sets 'patch_size' to 14"),
        ({"merge_size": 1}, "sets 'merge_size' to 1"),
        ({"temporal_patch_size": 1}, "sets 'temporal_patch_size'"),
        ({"do_resize": False}, "sets 'do_resize' to False"),
        ({"do_normalize": False}, "sets 'do_normalize' to False"),
        ({"do_center_crop": True}, "sets 'do_center_crop' to True"),
        ({"image_processor_type": "CLIPImageProcessor"}, "sets 'image_processor_type'"),
        ({"max_pixels": 65536}, "two limits of the same"),
        ({"size": {"longest_edge": 65536}, "max_pixels": "gone", "min_pixels": "gone"}, "has no 'shortest_edge'"),
        ({"do_sharpen": True}, "the key 'do_sharpen', which is not known here"),
    ],
)
def test_pictures_that_would_be_prepared_otherwise_are_refused(folder, values, message):
    change(folder / "preprocessor_config.json", **values)
    with pytest.raises(ModelMismatchError, match=message):
        _ = Embedder(folder).spec


def test_a_folder_without_settings_for_pictures_lacks_a_file(folder, reranker):
    for place, kind in ((folder, Embedder), (reranker, Reranker)):
        (place / "preprocessor_config.json").unlink()
        assert missing_files(place) == ["preprocessor_config.json"]
        with pytest.raises((WeightsUnavailableError, ModelMismatchError), match=r"preprocessor_config\.json"):
            _ = kind(place).spec


@pytest.mark.parametrize("own", [{}, {"query": "", "document": ""}, {"query": "Represent the user's input."}])
def test_the_authors_prompt_is_the_folders_too(folder, own):
    prompts(folder, own)
    assert Embedder(folder).spec.prompts == qwen3_vl.EMBEDDING_PROMPTS


def test_the_folders_prompts_are_its_system_lines_to_the_letter(folder):
    prompts(folder, {"query": " Find it", "document": "", "clustering": "Group it."})
    embedder = Embedder(folder)
    assert embedder.render("a", role="query") == WHOLE.format(" Find it")
    assert embedder.render("a", role="document") == WHOLE.format(qwen3_vl.INSTRUCTION)
    assert embedder.render("a", role="query", task="clustering") == WHOLE.format("Group it.")
    assert embedder.render("a", role="query", instruction="Say it") == WHOLE.format("Say it.")
    assert embedder.spec.prompts.default_instruction == " Find it"
    assert embedder.info()["unused_prompts"] == []


def test_a_default_prompt_is_for_both_sides(folder):
    prompts(folder, {"own": "Read it."}, "own")
    embedder = Embedder(folder)
    assert {embedder.render("a", role=role) for role in ("query", "document")} == {WHOLE.format("Read it.")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"processing_kwargs": {"chat_template": {"add_generation_prompt": False}}}, "'add_generation_prompt' of"),
        ({"processing_kwargs": "gone"}, "'add_generation_prompt' of"),
        ({"processing_kwargs": {"chat_template": {**TURN, "chat_template": "other"}}}, "sets 'chat_template' in"),
        ({"processing_kwargs": {"chat_template": TURN, "text": {}}}, "sets 'text' in 'processing_kwargs'"),
        ({"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}}, "'image'"),
    ],
)
def test_another_use_of_the_chat_template_is_refused(folder, settings, message):
    write_new_modules(folder)
    change(folder / "sentence_bert_config.json", **settings)
    with pytest.raises(ModelMismatchError, match=message):
        _ = Embedder(folder).spec


def test_a_model_of_texts_has_no_chat_template(qwen3_folder, tmp_path):
    text = Path(shutil.copytree(qwen3_folder, tmp_path / "text"))
    change(text / "sentence_bert_config.json", processing_kwargs={"chat_template": {"add_generation_prompt": True}})
    with pytest.raises(ModelMismatchError, match="sets 'chat_template' in 'processing_kwargs'"):
        _ = Embedder(text).spec


def recorded(folder: Path):
    spec = Embedder(folder).spec
    return lambda: verify_files(read_files(folder), spec)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: change(folder / "preprocessor_config.json", min_pixels=8192,
                               size={"shortest_edge": 8192, "longest_edge": 1310720}), "min_pixels is 8192"),
        (lambda folder: change(folder / "preprocessor_config.json", max_pixels=8192,
                               size={"shortest_edge": 4096, "longest_edge": 8192}), "max_pixels is 8192"),
        (lambda folder: change(folder / "preprocessor_config.json", resample=0), "'resample' to 0"),
        (lambda folder: prompts(folder, {"query": "Find it."}), "the prompt 'query' is"),
    ],
)  # fmt: skip
def test_the_files_of_a_recorded_model_are_compared_with_its_record(
    folder: Path, spoil: Callable[[Path], None], message: str
):
    check = recorded(folder)
    prompts(folder, {"query": "Represent the user's input.", "document": ""})
    check()
    spoil(folder)
    with pytest.raises(ModelMismatchError, match=message):
        check()


@pytest.mark.parametrize("backend", ["sentence-transformers", "gguf", "onnx", "openvino", "mistralrs"])
def test_other_runtimes_refuse_with_their_reason(vision_folder, backend):
    with pytest.raises(ArgumentError, match=f"the backend '{backend}' cannot run") as caught:
        _ = Embedder(vision_folder, backend=backend).spec
    assert len(str(caught.value)) > 60


@pytest.mark.parametrize("name", ["Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Reranker-8B"])
def test_recorded_models_run_on_the_engine_alone(name):
    from embrief.servers.options import Tei

    kind = Embedder if "Embedding" in name else Reranker
    # Of servers only embrief's own put the prompts themselves; others refuse such a model, or are found out at load.
    for backend in ("sentence-transformers", Tei(base_url="http://127.0.0.1:1")):
        with pytest.raises(ArgumentError, match="forges a picture"):
            _ = kind(name, backend=backend).spec


def test_an_export_is_refused(vision_folder, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ArgumentError, match="reads pictures, and an export would leave out"):
        export_model(vision_folder, tmp_path / "out", format="onnx")


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_a_tokenizer_that_is_not_the_models_is_refused_at_load(folder, reranker, kind):
    pytest.importorskip("torch")
    place, made = (folder, Embedder) if kind == "embedder" else (reranker, Reranker)
    file = place / "tokenizer.json"
    whole = json.loads(file.read_text("utf-8"))
    for token in whole["added_tokens"]:
        token["special"] = token["content"] != "<|im_start|>"
    write_json(file, whole)
    with pytest.raises(ModelMismatchError, match=r"has no special token '<\|im_start\|>'"):
        made(place, device="cpu").load()


def test_a_config_with_other_ids_than_the_tokenizer_is_refused_at_load(folder):
    pytest.importorskip("torch")
    change(folder / "config.json", vision_end_token_id=0)
    with pytest.raises(ModelMismatchError, match=r"'vision_end_token_id' in .* is 0"):
        Embedder(folder, device="cpu").load()


def test_a_recorded_reranker_whose_tokenizer_appends_a_token_is_refused_at_load(vision_folder, reranker):
    pytest.importorskip("torch")
    spec = Reranker(reranker).spec
    shutil.copy(vision_folder / "tokenizer.json", reranker / "tokenizer.json")
    from embrief.runtimes.base import LoadRequest
    from embrief.runtimes.engine import EngineReranker

    with pytest.raises(ModelMismatchError, match="around a text"):
        EngineReranker(LoadRequest(spec, reranker, "cpu", "float32"))
