"""One model of several kinds, inputs that hold images, and who refuses them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embrief import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    Batched,
    Embedder,
    Image,
    Offer,
    Output,
    Prepared,
    Refusal,
    Rendered,
    Reranker,
    Runtime,
    plugins,
)
from embrief.facts.records.qwen3_vl import IMAGES
from embrief.facts.values import Dense, Multi, Sparse
from embrief.testing import FakeRuntime, check_runtime

PNG = Image(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).to_png()


class Three(Batched):
    """Dense, sparse and one vector per word, of one run."""

    batch_tokens = 100
    padded = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.sizes: list[int] = []

    def prepare(self, inputs, options):  # type: ignore[no-untyped-def]
        counts = np.array([len(item.text.split()) + 1 for item in inputs])
        return Prepared(list(inputs), counts, counts, counts > 10**6)

    def run_rows(self, rows, kinds):  # type: ignore[no-untyped-def]
        self.asked.append(kinds)
        self.sizes.append(len(rows))
        found = {}
        words = [item.text.split() or [""] for item in rows]
        offsets = np.cumsum([0, *map(len, words)])
        every = [word for some in words for word in some]
        if "dense" in kinds or not kinds:
            found["dense"] = Dense(np.array([[len(item.text), 1.0, item.text.count("e")] for item in rows], np.float32))
        if "sparse" in kinds or not kinds:
            found["sparse"] = Sparse(offsets, np.array([len(word) for word in every]), np.ones(len(every), np.float32))
        if "multi" in kinds or not kinds:
            found["multi"] = Multi(offsets, np.array([[len(word), 1.0] for word in every], np.float32))
        return found

    def close(self) -> None:
        """Nothing is held."""


class Looks:
    """A model that takes images: a vector tells what an input was made of."""

    def __init__(self) -> None:
        self.inputs: list[Rendered] = []

    def run(self, inputs, options):  # type: ignore[no-untyped-def]
        self.inputs += inputs
        vectors = np.zeros((len(inputs), 3), np.float32)
        for vector, item in zip(vectors, inputs, strict=True):
            parts = item.body if isinstance(item.body, tuple) else (item.body,)
            images = [part for part in parts if isinstance(part, Image)]
            vector[:] = 1, len(images), sum(len(part) for part in parts if isinstance(part, str))
        return Output.dense(vectors)

    def close(self) -> None:
        """Nothing is held."""


class Kinds(Runtime):
    name = "kinds"

    def __init__(self) -> None:
        self.three, self.looks = Three(), Looks()

    def offer(self, spec, ask):  # type: ignore[no-untyped-def]
        return (
            Offer(device="cpu", dtype="float32", images=True)
            if spec.id.startswith("kinds/")
            else Refusal("runs its own")
        )

    def load(self, request):  # type: ignore[no-untyped-def]
        return self.looks if "image" in request.spec.modalities else self.three


@pytest.fixture
def kinds() -> Iterator[Kinds]:
    runtime, catalog = Kinds(), plugins().catalog
    spec = replace(Embedder("embrief/hash").spec, id="kinds/three", architecture="kinds", dim=3, mrl=(), aliases=())
    catalog.add_backend(runtime)
    catalog.add_model(replace(spec, revision=f"v{id(runtime)}"))
    catalog.add_model(
        replace(spec, id="kinds/images", revision=f"v{id(runtime)}", modalities=("text", "image"), images=IMAGES)
    )
    yield runtime
    catalog.remove("kinds", ["kinds/three", "kinds/images"])


def test_a_dense_call_computes_no_other_kind(kinds: Kinds) -> None:
    embedder = Embedder("kinds/three")
    check_runtime(Three(), embedder.spec)
    texts = ["one", "two three", "four five six"]
    vectors = embedder.embed_documents(texts)
    assert vectors.shape == (3, 3)
    model = embedder._shared.model.load()
    assert isinstance(model, Three)
    assert set(model.asked) == {("dense",)}
    assert embedder.space.kind == "dense"
    assert "kind" not in embedder.space.to_json()
    assert replace(embedder.space, kind="sparse").id != embedder.space.id


def test_a_model_that_gives_more_than_was_asked_for_is_found_out() -> None:
    class Generous(Three):
        def run_rows(self, rows, kinds):  # type: ignore[no-untyped-def]
            return super().run_rows(rows, ())

    spec = replace(Embedder("embrief/hash").spec, dim=3)
    with pytest.raises(AssertionError, match="no other kind"):
        check_runtime(Generous(), spec)


def test_calls_that_want_different_kinds_share_no_batch(kinds: Kinds, monkeypatch: pytest.MonkeyPatch) -> None:
    from embrief.runtimes.base import RunOptions
    from embrief.serving.jobs import Request, Rows

    model = Three()
    jobs = [
        Rows(Request([Rendered("", str(number))], options), model.prepare([Rendered("", str(number))], options), model)
        for number in range(4)
        for options in [RunOptions(max_tokens=9, kinds=("dense",) if number % 2 else ("sparse",))]
    ]
    from embrief.serving.scheduler import Worker

    worker = Worker(lambda: model)
    worker._backend = model
    worker._run(worker._batch(jobs))
    worker._run(worker._batch([job for job in jobs if job.waits]))
    assert model.asked == [("sparse",), ("dense",)]
    assert model.sizes == [2, 2]
    assert [set(job.future.result().values) for job in jobs] == [{"sparse"}, {"dense"}] * 2


def inputs(tmp_path: Path) -> Sequence[object]:
    (tmp_path / "a.png").write_bytes(PNG)
    image = Image(PNG)
    return [
        "text",
        image,
        ("look", image),
        {"text": "look", "image": image},
        Image(tmp_path / "a.png"),
        [image, "a", image],
    ]


def test_a_model_that_takes_images_gets_parts_in_their_order(kinds: Kinds, tmp_path: Path) -> None:
    embedder = Embedder("kinds/images", normalize=False)
    check_runtime(Looks(), embedder.spec)
    vectors = embedder.embed_documents(inputs(tmp_path))  # type: ignore[arg-type] # of every form
    assert vectors[:, 1:].tolist() == [[0, 4], [1, 0], [1, 4], [1, 4], [1, 0], [2, 1]]
    bodies = [item.body for item in kinds.looks.inputs]
    assert bodies == ["text", (Image(PNG),), (Image(PNG), "look"), (Image(PNG), Image(PNG), "a")], (
        "equal inputs run once"
    )
    assert embedder.embed_query(Image(PNG)).tolist() == [1, 1, 0]
    assert len({item.key for item in kinds.looks.inputs}) == 4
    with pytest.raises(BackendError, match="holds images"):
        _ = kinds.looks.inputs[1].text


@pytest.mark.parametrize("form", [0, 1, 2, 3])
def test_a_text_model_refuses_an_image_by_its_index_and_names_one_that_takes_it(kinds: Kinds, form: int) -> None:
    image = Image(PNG)
    bad = [image, ("look", image), {"text": "look", "image": image}, [image]][form]
    named = r"\[2\] holds an image, and .* takes texts only; one that takes images is Qwen/Qwen3-VL-Embedding-2B"
    with FakeRuntime() as fake:
        embedder, judge = Embedder(fake.qwen3), Reranker(fake.reranker)
        with pytest.raises(ArgumentTypeError, match=named) as caught:
            embedder.embed_documents(["a", "b", bad])
        assert caught.value.index == 2
        with pytest.raises(ArgumentTypeError, match="one that takes images is Qwen/Qwen3-VL-Reranker"):
            judge.rerank("q", ["a", bad])
        with pytest.raises(ArgumentTypeError, match="takes texts only"):
            embedder.embed_query(bad)
        assert fake.runs == []


def test_what_is_no_input_of_an_image_model_either(kinds: Kinds, tmp_path: Path) -> None:
    embedder = Embedder("kinds/images")
    for bad, told in (
        ([Image(PNG), 7], "is list; it must be a string, an Image, a sequence of both"),
        ({"text": "a", "picture": Image(PNG)}, "is dict"), (["a", 7], "is list"), (7, "is int"), (None, "missing"),
    ):  # fmt: skip
        with pytest.raises(ArgumentTypeError, match=told) as caught:
            embedder.embed_documents(["fine", bad])  # type: ignore[list-item] # the mistake
        assert caught.value.index == 1
    with pytest.raises(ArgumentError, match=r"the image .*gone\.png cannot be read") as unread:
        embedder.embed_documents(["fine", Image(tmp_path / "gone.png")])
    assert unread.value.index == 1
    with pytest.raises(ArgumentError, match="surrogate"):
        embedder.embed_documents([("\ud800", Image(PNG))])
    assert kinds.looks.inputs == []


def test_an_image_is_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert Image(PNG) == Image(file) == Image(bytearray(PNG))
    assert hash(Image(PNG)) == hash(Image(file))
    assert Image(pixels) == Image(pixels.copy()) != Image(pixels.reshape(4, 2, 3))
    np.testing.assert_array_equal(Image(pixels).pixels, pixels)
    for image in (Image(PNG), Image(file), Image(pixels)):
        assert pickle.loads(pickle.dumps(image)) == image
    assert "PNG" not in repr(Image(PNG))
    known = Image(file)
    assert known.digest
    file.write_bytes(Image(pixels).to_png())
    known.let_go()
    with pytest.raises(ArgumentError, match="changed since it was first read"):
        _ = known.pixels


def test_pillow_and_numpy_are_told_by_what_they_can_do() -> None:
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert Image(pillow.fromarray(pixels)) == Image(pixels)
    for wrong in (pixels.astype(np.float32), pixels[0, 0], pixels[:, :, :2], np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ArgumentError, match=r"pixels are a uint8 array|which is nothing"):
            Image(wrong)
    with pytest.raises(ArgumentTypeError, match="a string is always a text"):
        Image("a.png")
    with pytest.raises(ArgumentTypeError, match="not int"):
        Image(7)


def test_a_batch_without_the_kind_that_was_asked_for_is_an_error(kinds: Kinds, monkeypatch: pytest.MonkeyPatch) -> None:
    run_rows = Three.run_rows

    def forgetful(self, rows, asked):  # type: ignore[no-untyped-def]
        found = run_rows(self, rows, asked)
        return {} if any(item.body == "b" for item in rows) else found

    monkeypatch.setattr(Three, "run_rows", forgetful)
    monkeypatch.setattr(Three, "batch_tokens", 1)
    with pytest.raises(BackendError, match="gave nothing, and 'dense' was asked for"):
        Embedder("kinds/three").embed_documents(["a", "b"])
