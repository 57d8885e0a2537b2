"""Pictures of EmbeddingGemma 2 on the engine, for those who say in which form, against transformers' own model."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, InputTooLongError, ModelMismatchError, use_config
from embrief.runtimes.engine_options import EngineOptions

from ..gemma2_pictures import IMAGES, marks, oracle, write_seeing_gemma2

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.embedding_gemma2")

from embrief.engine import seeing  # noqa: E402
from embrief.engine.checkpoint import Checkpoint  # noqa: E402
from embrief.engine.description import describe, with_pictures  # noqa: E402
from embrief.engine.pooled_vision import PooledVisionTower  # noqa: E402
from embrief.engine.seeing import Features  # noqa: E402
from embrief.files.json_files import read_object  # noqa: E402
from embrief.images.patches import fit  # noqa: E402

PROMPT, QUERY = "title: none | text: ", "task: search result | query: "
LONG = "The quick brown fox copies directory trees. " * 40
SMALL = 70 * 48 * 48
"""Few tokens, where their number does not matter."""
Pixels = np.ndarray
Document = tuple[tuple[Pixels, ...], str]
"""Pictures and what follows them."""


def pixels(height: int, width: int, seed: int) -> Pixels:
    """A picture with large and small structures, so that neither size nor place is the same everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (-(-height // 16), -(-width // 16), 3))
    whole = np.kron(coarse, np.ones((16, 16, 1), int))[:height, :width]
    return (whole + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


WIDE, TALL, SQUARE, LINE = pixels(32, 128, 1), pixels(160, 64, 2), pixels(96, 96, 3), pixels(5, 900, 4)
DOCUMENTS: list[Document] = [
    ((), "which planet is red?"),
    ((SQUARE,), ""),
    ((WIDE,), "a wide picture"),
    ((TALL, WIDE), "two pictures of different sizes"),
    ((WIDE, TALL), "two pictures of different sizes"),
    ((SQUARE, SQUARE), ""),
    ((LINE,), LONG),
    ((), LONG),
    ((SQUARE,), "x"),
]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def given(document: Document) -> str | tuple[str | Image, ...]:
    shown, text = document
    return (*(Image(one) for one in shown), *([text] if text else [])) if shown else text


def asked(folder: Path, form: str = "none", **options: object) -> Embedder:
    settings = {"dtype": "float32", "device": "cpu", "max_pixels": SMALL, **options}
    return Embedder(folder, backend=EngineOptions(picture_prompt=form), **settings)


def expected(
    folder: Path, form: str, prompt: str = PROMPT, documents: list[Document] = DOCUMENTS, dtype: str = "float32"
) -> np.ndarray:
    found = []
    for shown, text in documents:
        before = prompt if form == "behind" or not shown else ""
        found.append(oracle(folder, f"{marks(shown, SMALL)}{before}{text}", shown, 70, dtype))
    return np.stack(found)


@pytest.fixture(scope="module")
def folder(gemma2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seeing_gemma2(gemma2_folder, tmp_path_factory.mktemp("seeing") / "tiny")


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return asked(folder)


@pytest.fixture(scope="module")
def whole(embedder: Embedder) -> np.ndarray:
    return embedder.embed_documents([given(one) for one in DOCUMENTS])


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


@pytest.mark.parametrize(
    ("form", "tower"),
    [("none", {}), ("behind", {"use_clipped_linears": True, "standardize": True})],
    ids=["plain", "clipped"],
)
def test_vectors_are_those_of_transformers(
    gemma2_folder: Path, other_folder: Path, form: str, tower: dict[str, object]
) -> None:
    folder = write_seeing_gemma2(gemma2_folder, other_folder, **tower)
    found = asked(folder, form).encode([given(one) for one in DOCUMENTS], role="document")
    due = expected(folder, form)
    assert cosines(found.vectors, due).min() >= 0.9999999
    np.testing.assert_allclose(found.vectors, due, atol=2e-5)
    # Two of them differ in one token of hundreds, two in the order of their pictures, and they are still apart.
    assert np.triu(due @ due.T, 1).max() < 0.99999
    counts = [sum(IMAGES.tokens(*one.shape[:2], SMALL) for one in shown) for shown, _ in DOCUMENTS]
    assert found.image_tokens.tolist() == counts


def test_queries_have_their_own_prompt_in_the_same_place(folder: Path) -> None:
    found = asked(folder, "behind").embed_queries([given(one) for one in DOCUMENTS[:4]])
    assert cosines(found, expected(folder, "behind", QUERY, DOCUMENTS[:4])).min() >= 0.99999


def test_a_picture_alone_in_company_and_in_any_order_is_one_vector(embedder: Embedder, whole: np.ndarray) -> None:
    documents = [given(one) for one in DOCUMENTS]
    alone = np.concatenate([embedder.embed_documents([one]) for one in documents])
    assert cosines(whole, alone).min() > 0.999999
    order = np.random.default_rng(0).permutation(len(documents))
    mixed = embedder.embed_documents([documents[place] for place in order])
    assert cosines(mixed, whole[order]).min() > 0.999999


def test_texts_are_what_they_are_without_pictures(folder: Path, whole: np.ndarray) -> None:
    texts = [text for shown, text in DOCUMENTS if not shown]
    places = [place for place, (shown, _) in enumerate(DOCUMENTS) if not shown]
    plain = Embedder(folder, dtype="float32", device="cpu").embed_documents(texts)
    np.testing.assert_allclose(plain, whole[places], atol=1e-5)


@pytest.mark.parametrize("budget", [280, 560])
def test_other_budgets_of_tokens_are_areas(folder: Path, budget: int) -> None:
    most = None if budget == 280 else budget * 48 * 48
    embedder = asked(folder, max_pixels=most)
    assert embedder.max_pixels == budget * 48 * 48
    found = embedder.encode([[Image(SQUARE), "x"]], role="document")
    assert found.image_tokens.tolist() == [IMAGES.tokens(96, 96, most)] == [{280: 256, 560: 529}[budget]]
    due = oracle(folder, f"{marks([SQUARE], most)}x", [SQUARE], budget=budget)
    assert cosines(found.vectors, due[None]).min() >= 0.9999999
    assert embedder.space != asked(folder).space


def test_other_areas_are_refused(folder: Path) -> None:
    with pytest.raises(ArgumentError, match=r"max_pixels=1000000 .* one of 161280 \(70\), .*2580480 \(1120\)"):
        asked(folder, max_pixels=1_000_000)


def test_the_form_is_a_part_of_the_space_and_of_a_pickle(folder: Path) -> None:
    spaces = [Embedder(folder).space, asked(folder, "none").space, asked(folder, "behind").space]
    assert len({space.id for space in spaces}) == 3
    assert [space.picture_prompt for space in spaces] == ["", "none", "behind"]
    assert type(spaces[1]).from_json(spaces[1].to_json()) == spaces[1]
    assert pickle.loads(pickle.dumps(asked(folder))).space == spaces[1]


def test_the_prompt_is_shown_where_it_stands(folder: Path) -> None:
    document = [Image(SQUARE), "a text"]
    assert asked(folder).render(document, role="document") == f"{IMAGES.mark}a text"
    behind = asked(folder, "behind")
    assert behind.render(document, role="document") == f"{IMAGES.mark}{PROMPT}a text"
    assert behind.render(document, role="document", title="T") == f"{IMAGES.mark}title: T | text: a text"
    assert behind.render("a text", role="document") == f"{PROMPT}a text"
    numbers = [token.id for token in behind.tokenize([document], role="document")[0]]
    assert numbers[0] == 2
    assert numbers[-1] == 1


def test_without_the_form_pictures_are_refused_with_what_to_do(folder: Path, gemma2_text_folder: Path) -> None:
    for name in (folder, "google/embeddinggemma-2"):
        embedder = Embedder(name)
        assert embedder.modalities == ("text",)
        with pytest.raises(
            ArgumentTypeError,
            match=r"texts\[1\] holds .*is Qwen.*in Python you can tell .*EngineOptions\(picture_prompt='none'",
        ) as found:
            embedder.embed_documents(["a", Image(SQUARE)])
        assert found.value.index == 1
    with pytest.raises(ArgumentTypeError, match=r"one that takes images is Qwen"):
        Embedder(gemma2_text_folder).embed_documents([Image(SQUARE)])
    assert asked("google/embeddinggemma-2").modalities == ("text", "image")


def test_what_nobody_asked_the_user_is_refused(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="picture_prompt='around' is not known"):
        EngineOptions(picture_prompt="around")
    with pytest.raises(ArgumentError, match=r"Qwen3-Embedding-0.6B takes texts only, so leave it out"):
        Embedder("Qwen/Qwen3-Embedding-0.6B", backend=EngineOptions(picture_prompt="none"))
    with pytest.raises(ArgumentError, match=r"takes them as its authors do"):
        Embedder("Qwen/Qwen3-VL-Embedding-2B", backend=EngineOptions(picture_prompt="none"))


def test_a_folder_of_another_family_is_refused_by_its_own_name(qwen3_folder: Path) -> None:
    """The record that stands for its family is a model that the user never named."""
    for options in ({}, {"like": "Qwen/Qwen3-Embedding-0.6B"}):
        with pytest.raises(ArgumentError, match="takes texts only, so leave it out") as found:
            _ = Embedder(qwen3_folder, backend=EngineOptions(picture_prompt="none"), **options).spec
        assert qwen3_folder.name in str(found.value)
        assert "Qwen/" not in str(found.value)


def test_info_tells_the_form_where_somebody_chose_it(folder: Path) -> None:
    assert asked(folder, "behind").info()["picture_prompt"] == "behind"
    for name in (folder, "Qwen/Qwen3-VL-Embedding-2B", "embrief/hash"):
        assert "picture_prompt" not in Embedder(name).info()


def test_titles_and_instructions_need_a_prompt(embedder: Embedder) -> None:
    pictured = [Image(SQUARE), "x"]
    with pytest.raises(ArgumentError, match=r"at index 1 has pictures and a title") as found:
        embedder.embed_documents(["a", pictured], titles=["T", "T"])
    assert found.value.index == 1
    with pytest.raises(ArgumentError, match=r"at index 0 has pictures, and .*instruction='find it'"):
        embedder.embed_query(pictured, instruction="find it")


def test_what_callers_write_forges_no_picture(folder: Path) -> None:
    forged = "<|image|> and <|image><eos>"
    for form in ("none", "behind"):
        found = asked(folder, form).encode([[Image(SQUARE), forged], forged], role="document")
        assert found.image_tokens.tolist() == [IMAGES.tokens(96, 96, SMALL), 0]
    instructed = asked(folder, "behind", instruction=forged).tokenize([[Image(SQUARE), forged]], role="query")[0]
    # Two around all, and two around the picture.
    assert sum(token.special for token in instructed) == IMAGES.tokens(96, 96, SMALL) + 4


def test_a_text_is_cut_and_a_picture_never(folder: Path) -> None:
    tokens = IMAGES.tokens(96, 96, SMALL)
    room = asked(folder, max_tokens=tokens + 20, truncate="silent").encode([[Image(SQUARE), LONG]], role="document")
    assert room.truncated.tolist() == [True]
    with pytest.raises(InputTooLongError, match="pictures are never cut"):
        asked(folder, max_tokens=tokens).embed_documents([Image(SQUARE)])


def test_in_small_blocks_the_features_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_object(folder / "config.json")
    model = with_pictures(describe(config), config)
    shown = [fit(one, IMAGES.fitted(*one.shape[:2], 70 * 48 * 48)) for one in (SQUARE, WIDE, TALL, SQUARE)]

    def features() -> torch.Tensor:
        tower = PooledVisionTower(model.vision, Checkpoint(folder, "tiny"), "cpu", torch.float32, width=48)
        with torch.inference_mode():
            return Features.joined(tower.run(shown)).tokens

    due = features()
    monkeypatch.setattr(seeing, "_BLOCK", 50)
    monkeypatch.setattr(seeing, "_TOGETHER", 700)
    torch.testing.assert_close(features(), due, atol=1e-5, rtol=0)


def test_bfloat16_is_no_further_off_than_transformers(folder: Path, other_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, other_folder)
    file = other_folder / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    due = expected(other_folder, "none")
    ours = asked(other_folder, dtype="bfloat16").embed_documents([given(one) for one in DOCUMENTS])
    theirs = expected(other_folder, "none", dtype="bfloat16")
    assert (1 - cosines(ours, due)).mean() <= 1.2 * (1 - cosines(theirs, due)).mean()


# The files of a folder


@pytest.fixture
def changed(folder: Path, other_folder: Path) -> Callable[..., Path]:
    def change(**settings: object) -> Path:
        shutil.rmtree(other_folder, ignore_errors=True)
        shutil.copytree(folder, other_folder)
        edit(other_folder / "preprocessor_config.json", **settings)
        return other_folder

    return change


def test_the_files_say_how_many_tokens_a_picture_has(changed: Callable[..., Path]) -> None:
    assert asked(changed(max_soft_tokens=140), max_pixels=None).max_pixels == 140 * 48 * 48
    assert asked(changed(image_mean=[0.5] * 3, size=None), max_pixels=None).max_pixels == 280 * 48 * 48


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_soft_tokens": 100}, r"'max_soft_tokens' to 100.*\[70, 140, 280, 560, 1120\]"),
        ({"do_normalize": True}, "'do_normalize' to True"),
        ({"do_resize": False}, "'do_resize' to False"),
        ({"pooling_kernel_size": 2}, "'pooling_kernel_size' to 2"),
        ({"patch_size": 14}, "'patch_size' to 14"),
        ({"resample": 2}, "'resample' to 2"),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "'Qwen2VLImageProcessor'"),
        ({"sharpen": True}, "the key 'sharpen'"),
        ({"min_pixels": 4096}, "the key 'min_pixels'"),
    ],
    ids=str,
)
def test_files_that_ask_for_something_else_are_refused(
    changed: Callable[..., Path], settings: dict[str, object], said: str
) -> None:
    folder = changed(**settings)
    with pytest.raises(ModelMismatchError, match=said):
        _ = asked(folder).spec
    # Texts do not pass there.
    assert Embedder(folder).modalities == ("text",)


def test_a_folder_without_what_pictures_need_serves_texts(changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelMismatchError, match=r"preprocessor_config.json is missing"):
        _ = asked(folder).spec
    assert Embedder(folder, dtype="float32").embed_query("x").shape == (64,)


@pytest.mark.parametrize(
    ("tower", "said"),
    [
        ({"hidden_activation": "silu"}, "hidden_activation='silu'"),
        ({"rope_parameters": {"rope_theta": 100.0, "rope_type": "linear"}}, "rope_parameters of vision_config"),
        ({"num_key_value_heads": 3}, "4 heads of 16 values on 3 of keys"),
        ({"new": 1}, "the key 'new'"),
        ({"position_embedding_size": 840}, "840 positions per axis, and pictures have up to 3360"),
        ({"patch_size": 14}, "14 pixels x 3 patches"),
        ({"num_hidden_layers": 2}, "does not use"),
        ({"num_hidden_layers": 4}, "lack"),
        (None, "finds no vision_config"),
    ],
    ids=str,
)
def test_towers_that_the_engine_does_not_run_are_refused(
    changed: Callable[..., Path], tower: dict[str, object] | None, said: str
) -> None:
    folder = changed()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    found = None if tower is None else {**config["vision_config"], **tower}
    edit(folder / "config.json", vision_config=found)
    with pytest.raises(ModelMismatchError, match=said):
        asked(folder).load()
    assert Embedder(folder, dtype="float32").embed_query("x").shape == (64,)


def test_ids_of_marks_that_are_not_the_tokenizers_are_refused(changed: Callable[..., Path]) -> None:
    folder = changed()
    edit(folder / "config.json", boi_token_id=5)
    with pytest.raises(ModelMismatchError, match=r"'boi_token_id' in .* is 5, and in tokenizer.json '<\|image>' is"):
        asked(folder).load()


def test_a_configured_model_has_its_form_on_the_command_line_and_in_a_server(folder, embedder, tmp_path, request):
    pytest.importorskip("yaml")
    testclient = pytest.importorskip("fastapi.testclient")
    from typer.testing import CliRunner

    from embrief.cli import app
    from embrief.server.app import create_app
    from embrief.server.models import ServedModels

    config = tmp_path / "embrief.yaml"
    said = f"model_id: '{folder.as_posix()}', picture_prompt: none, max_pixels: {SMALL}, dtype: float32, device: cpu"
    config.write_text(f"models: {{seeing: {{{said}}}}}", "utf-8")
    request.addfinalizer(lambda: use_config(None))
    use_config(config)
    url = f"data:image/png;base64,{base64.b64encode(Image(SQUARE).to_png()).decode()}"
    wanted = embedder.embed_documents([(Image(SQUARE), "x"), "x"])
    lines = "".join(json.dumps(line) + "\n" for line in ({"text": "x", "image": url}, {"text": "x"}))
    done = CliRunner().invoke(app, ["embed", "--model", "seeing"], input=lines)
    assert done.exit_code == 0, done.output
    found = [json.loads(line)["embedding"] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    service = create_app(ServedModels({"seeing": Embedder("seeing")}))
    with testclient.TestClient(service, base_url="http://127.0.0.1:8642") as client:
        body = {"model": "seeing", "input": [{"text": "x", "image": url}, "x"], "input_type": "document"}
        answer = client.post("/v1/embeddings", json=body).json()
    assert answer["space"] == embedder.space.id
    np.testing.assert_allclose([row["embedding"] for row in answer["data"]], wanted, atol=1e-6)
