"""The wrappers for mteb, inside mteb: its roles, prompts and titles reach the model as they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embrief import ArgumentError, Embedder, Image, Reranker
from embrief.facts.records.gemma import EMBEDDING_PROMPTS
from embrief.testing import FakeRuntime

mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models import CrossEncoderProtocol, EncoderProtocol  # noqa: E402
from mteb.types import PromptType  # noqa: E402

from embrief.evaluation.mteb import MtebEmbedder, MtebReranker  # noqa: E402

CORPUS = [
    {"id": "mars", "title": "Mars", "text": "It is often called the Red Planet."},
    {"id": "venus", "title": "", "text": "Venus is very bright and hot."},
    {"id": "copy", "title": "shutil", "text": "Copy a directory tree."},
]
QUERIES = [{"id": "q1", "text": "the red planet"}, {"id": "q2", "text": "copy a directory"}]
RELEVANT = {"q1": {"mars": 1}, "q2": {"copy": 1}}
ASKED = "Given a question, find the text"


def make_task(prompt=ASKED, top_ranked=None, name="LocalPlanets"):
    class Task(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            description="A few sentences.",
            dataset={"path": "local/planets", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            prompt=prompt,
        )

        def load_data(self, num_proc=None, **options):
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": datasets.Dataset.from_list(CORPUS),
                        "queries": datasets.Dataset.from_list(QUERIES),
                        "relevant_docs": RELEVANT,
                        "top_ranked": top_ranked,
                    }
                }
            }
            self.data_loaded = True

    return Task()


def scores(model, task):
    found = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return found.task_results[0].scores["test"][0]


@pytest.fixture
def rendered(monkeypatch):
    """What reaches the tokenizer, by role."""
    seen = {"query": [], "document": []}
    original = Embedder._render

    def noted(self, spec, texts, role, call, titles=None):
        found = original(self, spec, texts, role, call, titles)
        if list(texts) != [""]:  # a look at the prompt alone
            seen[role] += [item.text for item in found]
        return found

    monkeypatch.setattr(Embedder, "_render", noted)
    return seen


@pytest.fixture
def qwen3(qwen3_folder):
    return Embedder(qwen3_folder, like="Qwen/Qwen3-Embedding-0.6B", dtype="float32", device="cpu")


def test_the_protocols_are_met(qwen3, reranker_folder):
    assert isinstance(MtebEmbedder(qwen3), EncoderProtocol)
    assert isinstance(MtebReranker(Reranker(reranker_folder)), CrossEncoderProtocol)
    meta = MtebEmbedder(qwen3).mteb_model_meta
    assert meta.embed_dim == qwen3.dim
    assert meta.name == "local/tiny-qwen3-embedding"
    assert MtebEmbedder(Embedder("embrief/hash")).mteb_model_meta.name == "embrief/hash"


def test_what_mteb_keeps_results_by_follows_the_set_up(qwen3, reranker_folder):
    judge = Reranker(reranker_folder, dtype="float32", device="cpu")
    models = [MtebEmbedder(model) for model in (qwen3, qwen3.with_dim(32), qwen3.with_instruction("Find it"))]
    models += [MtebReranker(model) for model in (judge, judge.with_instruction("Judge it"))]
    assert len({model.mteb_model_meta.revision for model in models}) == 5


def test_a_lexical_model_finds_its_words():
    found = scores(MtebEmbedder(Embedder("embrief/hash")), make_task())
    assert found["ndcg_at_10"] == 1


def test_the_tasks_prompt_is_the_instruction_of_queries_only(qwen3, rendered):
    scores(MtebEmbedder(qwen3), make_task())
    assert sorted(set(rendered["query"])) == sorted(f"Instruct: {ASKED}\nQuery:{item['text']}" for item in QUERIES)
    assert set(rendered["document"]) == {
        "Mars It is often called the Red Planet.",
        "Venus is very bright and hot.",
        "shutil Copy a directory tree.",
    }


@pytest.mark.parametrize("prompt", [{"query": "For the query", "document": "For the document"}, None])
def test_a_prompt_may_have_sides_or_be_missing(qwen3, rendered, prompt):
    scores(MtebEmbedder(qwen3), make_task(prompt))
    expected = "For the query" if prompt else qwen3.spec.prompts.default_instruction
    assert all(text.startswith(f"Instruct: {expected}\nQuery:") for text in rendered["query"])
    assert not any("For the" in text for text in rendered["document"])


def test_titles_go_to_their_place(gemma_folder, rendered):
    gemma = Embedder(gemma_folder, like="google/embeddinggemma-300m", dtype="float32", device="cpu")
    scores(MtebEmbedder(gemma), make_task())
    assert set(rendered["document"]) == {
        "title: Mars | text: It is often called the Red Planet.",
        "title: none | text: Venus is very bright and hot.",
        "title: shutil | text: Copy a directory tree.",
    }
    # Its own task of that type, not the benchmark's sentence.
    assert set(rendered["query"]) == {f"task: search result | query: {item['text']}" for item in QUERIES}


def metadata(kind, prompt=None):
    return make_task(prompt).metadata.model_copy(update={"type": kind})


def encode(model, batches, kind, prompt=None, prompt_type=None):
    options = {"task_metadata": metadata(kind, prompt), "hf_split": "test", "hf_subset": "default", "batch_size": 3}
    return model.encode(batches, prompt_type=prompt_type, **options)


def test_tasks_with_one_kind_of_text_use_the_models_own_prompt(gemma_folder, qwen3):
    texts = ["a planet", "a function"]
    gemma = Embedder(gemma_folder, like="google/embeddinggemma-300m", dtype="float32", device="cpu")
    found = encode(MtebEmbedder(gemma), [{"text": texts}], "Classification")
    np.testing.assert_allclose(found, gemma.embed_queries(texts, task="Classification"), atol=1e-6)
    found = encode(MtebEmbedder(qwen3), [{"text": texts}], "STS")
    np.testing.assert_allclose(found, qwen3.embed_queries(texts, task="STS"), atol=1e-6)
    found = encode(MtebEmbedder(qwen3), [{"text": texts}], "Classification", "Classify it")
    np.testing.assert_allclose(found, qwen3.embed_queries(texts, instruction="Classify it"), atol=1e-6)
    found = encode(MtebEmbedder(qwen3), [{"text": texts}], "Classification")
    np.testing.assert_allclose(found, qwen3.embed_documents(texts), atol=1e-6)


def test_queries_with_instructions_of_their_own(qwen3, reranker_folder):
    batch = {
        "text": ["Find a planet red one", "Find code copy", "blue one"],
        "query": ["red one", "copy", "blue one"],
        "instruction": ["Find a planet", "Find code", ""],
    }
    found = encode(MtebEmbedder(qwen3), [batch], "InstructionRetrieval", ASKED, PromptType.query)
    for vector, query, instruction in zip(found, batch["query"], ("Find a planet", "Find code", ASKED), strict=True):
        np.testing.assert_allclose(vector, qwen3.embed_query(query, instruction=instruction), atol=1e-6)
    judge = Reranker(reranker_folder, like="Qwen/Qwen3-Reranker-0.6B", dtype="float32", device="cpu")
    documents = ["Mars", "shutil", "Earth"]
    options = {"task_metadata": metadata("InstructionReranking", ASKED), "hf_split": "test", "hf_subset": "default"}
    values = MtebReranker(judge).predict([batch], [{"text": documents[:2]}, {"text": documents[2:]}], **options)
    for value, query, document, instruction in zip(
        values, batch["query"], documents, ("Find a planet", "Find code", ASKED), strict=True
    ):
        assert value == pytest.approx(judge.score(query, [document], instruction=instruction)[0], abs=1e-6)


def test_a_reranker_reranks_the_candidates(reranker_folder):
    judge = Reranker(reranker_folder, like="Qwen/Qwen3-Reranker-0.6B", dtype="float32", device="cpu")
    ranked = {item["id"]: [document["id"] for document in CORPUS] for item in QUERIES}
    found = scores(MtebReranker(judge), make_task(top_ranked=ranked, name="LocalReranking"))
    texts = {item["id"]: f"{item['title']} {item['text']}".strip() for item in CORPUS}
    expected = []
    for query in QUERIES:
        values = judge.score(query["text"], list(texts.values()), instruction=ASKED)
        order = [list(texts)[place] for place in np.argsort(-values)]
        expected.append(1 / (1 + order.index(next(iter(RELEVANT[query["id"]])))))
    assert found["mrr_at_10"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_similarities_are_cosines_of_any_input():
    wrapper = MtebEmbedder(Embedder("embrief/hash"))
    a, b = np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 5.0]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(wrapper.similarity(a, b), [[half, 0], [half, 1]], atol=1e-6)
    np.testing.assert_allclose(wrapper.similarity_pairwise(a, b), [half, 1], atol=1e-6)
    assert np.isfinite(wrapper.similarity(np.zeros((1, 2)), b)).all()


def colour(*values):
    from PIL import Image as Pillow

    return Pillow.new("RGB", (48, 32), values)


PICTURES = {"red": colour(255, 0, 0), "green": colour(0, 255, 0), "blue": colour(0, 0, 255)}


def image_task(category, documents, queries, name="LocalColours", top_ranked=None):
    """A retrieval task in memory; `category` is mteb's: t2i, i2t, it2it and so on."""
    from PIL import Image as Pillow

    def table(rows):
        features = {key: datasets.Value("string") for key in rows[0]}
        if "image" in features:
            features["image"] = datasets.Image()
        # Pixels are compressed without a loss.
        assert all(isinstance(row.get("image"), Pillow.Image | None) for row in rows)
        return datasets.Dataset.from_list(rows, features=datasets.Features(features))

    class Task(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            description="A few colours.",
            dataset={"path": "local/colours", "revision": "1"},
            type="Any2AnyRetrieval",
            category=category,
            modalities=sorted({{"t": "text", "i": "image"}[letter] for letter in category if letter in "ti"}),
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            prompt={"query": "Find the colour", "document": "Of no use"},
        )

        def load_data(self, num_proc=None, **options):
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": table(documents),
                        "queries": table(queries),
                        "relevant_docs": {row["id"]: {documents[place]["id"]: 1} for place, row in enumerate(queries)},
                        "top_ranked": top_ranked,
                    }
                }
            }
            self.data_loaded = True

    return Task()


def rows(*keys):
    """Rows of ids with pictures, words or both."""
    words = {name: f"a {name} thing" for name in PICTURES}
    held = {"image": PICTURES, "text": words}
    return [{"id": name, **{key: held[key][name] for key in keys}} for name in PICTURES]


@pytest.fixture
def fake():
    pytest.importorskip("PIL")
    with FakeRuntime() as runtime:
        yield runtime


def word(fake, picture):
    """The one word that a picture is for a model without weights."""
    fake.texts.clear()
    Embedder(fake.vision).embed_documents([Image(picture)])
    (text,) = fake.texts
    return text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]


@pytest.mark.parametrize(
    ("category", "documents", "queries"),
    [
        ("t2i", ("image",), ("text",)),
        ("i2t", ("text",), ("image",)),
        ("i2i", ("image",), ("image",)),
        ("it2it", ("image", "text"), ("image", "text")),
    ],
)
def test_pictures_reach_the_model_in_their_roles(fake, category, documents, queries):
    marks = {name: word(fake, picture) for name, picture in PICTURES.items()}
    fake.texts.clear()
    found = scores(MtebEmbedder(Embedder(fake.vision)), image_task(category, rows(*documents), rows(*queries)))
    assert found["hit_rate_at_10"] == 1

    def expected(keys, instruction):
        held = ["".join({"image": marks[name], "text": f"a {name} thing"}[key] for key in keys) for name in PICTURES]
        return {
            f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
            for text in held
        }

    assert set(fake.texts) == expected(queries, "Find the colour.") | expected(documents, "Represent the user's input.")
    if set(documents) & set(queries) == {"image"}:
        assert found["ndcg_at_10"] == 1


def test_models_of_texts_are_refused_by_mteb_itself(fake):
    model = MtebEmbedder(Embedder("embrief/hash"))
    assert model.mteb_model_meta.modalities == ["text"]
    assert MtebEmbedder(Embedder(fake.vision)).mteb_model_meta.modalities == ["text", "image"]
    assert MtebReranker(Reranker(fake.vision_reranker)).mteb_model_meta.modalities == ["text", "image"]
    with pytest.raises(ValueError, match=r"supports \['text'\], but none overlap"):
        scores(model, image_task("t2i", rows("image"), rows("text")))


def test_a_model_of_texts_leaves_out_no_picture_silently():
    # mteb lets it try where some of a task's inputs are texts.
    with pytest.raises(TypeError, match=r"texts\[0\] holds an image, and embrief/hash takes texts only"):
        scores(MtebEmbedder(Embedder("embrief/hash")), image_task("t2it", rows("image", "text"), rows("text")))


def test_pictures_are_read_one_batch_at_a_time(fake):
    """mteb gives 50,000 documents at once, and decodes those of a batch when it is asked for."""
    taken = []
    model = Embedder(fake.vision)

    def batches():
        for picture in PICTURES.values():
            taken.append(len(fake.runs))
            yield {"image": [picture, picture], "text": ["a", "b"]}

    found = encode(MtebEmbedder(model), batches(), "Any2AnyRetrieval", prompt_type=PromptType.document)
    assert taken == [0, 1, 2]
    expected = [(Image(picture), words) for picture in PICTURES.values() for words in ("a", "b")]
    np.testing.assert_allclose(found, model.embed_documents(expected), atol=1e-6)


def test_inputs_without_a_picture_or_without_words(fake):
    model = Embedder(fake.vision)
    batch = {"image": [PICTURES["red"], None, PICTURES["red"]], "text": ["", "words", "words"]}
    red = Image(PICTURES["red"])
    expected = model.embed_documents([red, "words", (red, "words")])
    for prompt_type in (PromptType.document, None):
        found = encode(MtebEmbedder(model), [batch], "Any2AnyRetrieval", prompt_type=prompt_type)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert encode(MtebEmbedder(model), [], "Any2AnyRetrieval").shape == (0, model.dim)
    with pytest.raises(ValueError, match="a task gives audio; texts and pictures are embedded here"):
        encode(MtebEmbedder(model), [{"audio": [1]}], "Any2AnyRetrieval")


@pytest.mark.parametrize(
    "broken",
    [
        {"image": [None]},
        {"image": [None], "text": [""]},
        {"image": [None], "text": [" \n"]},
        # The instruction of a query is none of its words.
        {"image": [None], "text": ["Find it"], "query": [""], "instruction": ["Find it"]},
    ],
)
def test_an_input_without_picture_and_words_is_refused_with_its_place(fake, broken):
    """Its place is that among all inputs of the call, whatever batch it is in."""
    good = {**broken, "image": [PICTURES["red"]]}
    batches = [{key: 2 * values for key, values in good.items()}, {key: good[key] + broken[key] for key in good}]
    message = "input at index 3 has no picture and no words, and nothing is embedded in a picture's place"
    for prompt_type in (PromptType.document, PromptType.query):
        with pytest.raises(ArgumentError, match=message) as caught:
            encode(MtebEmbedder(Embedder(fake.vision)), batches, "Any2AnyRetrieval", prompt_type=prompt_type)
        assert caught.value.index == 3
    judge = MtebReranker(Reranker(fake.vision_reranker))
    options = {"task_metadata": metadata("Any2AnyRetrieval"), "hf_split": "test", "hf_subset": "default"}
    texts = [{"text": list("abcd")}]
    for sides in ((batches, texts), (texts, batches)):
        with pytest.raises(ArgumentError, match=message):
            judge.predict(*sides, **options)


class BareRuntime(FakeRuntime):
    """Its model of pictures has prompts with instructions and titles, and none of them beside pictures."""

    def _models(self):
        return [
            replace(spec, prompts=EMBEDDING_PROMPTS, images=replace(spec.images, prompt="none"))
            if spec.id == self.vision
            else spec
            for spec in super()._models()
        ]


@pytest.fixture
def bare():
    pytest.importorskip("PIL")
    with BareRuntime() as runtime:
        yield runtime


def test_a_model_whose_pictures_have_no_prompt_gets_that_of_the_task_for_texts_alone(bare):
    model = Embedder(bare.vision)
    red = Image(PICTURES["red"])
    expected = [
        model.embed_query(red),
        model.embed_query("a red thing", instruction=ASKED),
        model.embed_query((red, "a red thing")),
    ]
    bare.texts.clear()
    batch = {"image": [PICTURES["red"], None, PICTURES["red"]], "text": ["", "a red thing", "a red thing"]}
    found = encode(MtebEmbedder(model), [batch], "Any2AnyRetrieval", ASKED, PromptType.query)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert sum(ASKED in text for text in bare.texts) == 1
    # A set whose queries say what they ask for.
    batch |= {"query": batch["text"], "instruction": ["Find it"] * 3}
    found = encode(MtebEmbedder(model), [batch], "Any2AnyRetrieval", ASKED, PromptType.query)
    expected[1] = model.embed_query("a red thing", instruction="Find it")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_titles_stay_in_front_of_texts_with_pictures_where_those_have_no_prompt(bare):
    model = Embedder(bare.vision)
    red = Image(PICTURES["red"])
    batch = {
        "image": [PICTURES["red"], None],
        "text": ["Mars It is red.", "Venus It is hot."],
        "body": ["It is red.", "It is hot."],
        "title": ["Mars", "Venus"],
    }
    found = encode(MtebEmbedder(model), [batch], "Any2AnyRetrieval", prompt_type=PromptType.document)
    expected = [
        model.embed_documents([(red, "Mars It is red.")])[0],
        model.encode(["It is hot."], role="document", titles=["Venus"]).vectors[0],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_reranker_judges_pictures(fake):
    ranked = {row["id"]: list(PICTURES) for row in rows("image")}
    judge = Reranker(fake.vision_reranker)
    task = image_task("i2it", rows("image", "text"), rows("image"), "LocalColourReranking", ranked)
    found = scores(MtebReranker(judge), task)
    # A document with the same picture shares a word with the query.
    assert found["ndcg_at_1"] == 1
    assert {pair.source.query is not None for pair in fake.pairs} == {True}
    assert all("<Instruct>: Find the colour<Query>:" in pair.head for pair in fake.pairs)


def test_pairs_with_pictures_are_read_a_few_at_a_time(fake):
    judge, taken = Reranker(fake.vision_reranker), []
    names = [list(PICTURES)[place % 3] for place in range(70)]

    def batches(size):
        for start in range(0, 70, size):
            taken.append(sum(fake.runs))
            yield {"image": [PICTURES[name] for name in names[start : start + size]]}

    options = {"task_metadata": metadata("Any2AnyRetrieval"), "hf_split": "test", "hf_subset": "default"}
    queries = [{"text": [f"q{place}" for place in range(70)]}]
    values = MtebReranker(judge).predict(queries, batches(8), **options)
    expected = [judge.score(f"q{place}", [Image(PICTURES[name])])[0] for place, name in enumerate(names)]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert taken[-1] > 0
    assert MtebReranker(judge).predict([], [], **options).shape == (0,)
