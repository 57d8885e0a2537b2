"""The local runtime against sentence-transformers and transformers on the same checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, Reranker, TruncationWarning

pytest.importorskip("sentence_transformers")

QUERY = "Given a web search query, retrieve relevant passages that answer the query"


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def peer(folder: Path):
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


@pytest.fixture(scope="module", params=["qwen3", "gemma"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_folder")


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return Embedder(folder, dtype="float32", device="cpu")


def test_queries_and_documents_equal_sentence_transformers(folder: Path, embedder: Embedder, texts: list[str]) -> None:
    oracle = peer(folder)
    queries, documents = embedder.embed_queries(texts), embedder.embed_documents(texts)
    assert cosines(queries, oracle.encode_query(texts)).min() > 0.99999
    assert cosines(documents, oracle.encode_document(texts)).min() > 0.99999
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    # A role mix-up must be visible, or the two lines above prove nothing.
    assert cosines(queries, documents).min() < 0.999


def test_an_instruction_equals_the_cards_prompt(qwen3_folder: Path, texts: list[str]) -> None:
    ours = Embedder(qwen3_folder, dtype="float32").embed_queries(texts, instruction="Find {code} for a task")
    oracle = peer(qwen3_folder).encode(texts, prompt="Instruct: Find {code} for a task\nQuery:")
    assert cosines(ours, oracle).min() > 0.99999


def test_a_title_equals_the_cards_prompt(gemma_folder: Path) -> None:
    ours = Embedder(gemma_folder, dtype="float32").embed_documents(["body", "body"], titles=["A title", None])
    oracle = peer(gemma_folder).encode(["title: A title | text: body", "title: none | text: body"])
    assert cosines(ours, oracle).min() > 0.99999


@pytest.mark.parametrize(("task", "name"), [("clustering", "Clustering"), ("STS", "STS")])
def test_symmetric_tasks_equal_the_saved_prompts(gemma_folder: Path, texts: list[str], task: str, name: str) -> None:
    ours = Embedder(gemma_folder, dtype="float32", task=task)
    oracle = peer(gemma_folder).encode(texts, prompt_name=name)
    assert cosines(ours.embed_documents(texts), oracle).min() > 0.99999
    assert cosines(ours.embed_queries(texts), oracle).min() > 0.99999


def test_a_text_beyond_the_sliding_window_equals_sentence_transformers(gemma_folder: Path) -> None:
    text = " ".join(f"word{number}" for number in range(60))
    ours = Embedder(gemma_folder, dtype="float32").embed_documents([text, "short"])
    assert cosines(ours, peer(gemma_folder).encode_document([text, "short"])).min() > 0.99999


def test_batch_equals_single_equals_shuffled(embedder: Embedder, texts: list[str]) -> None:
    batch = embedder.embed_documents(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = embedder.embed_documents([texts[index] for index in order])
    np.testing.assert_allclose(shuffled, batch[order], atol=1e-5)
    for index, text in enumerate(texts):
        np.testing.assert_allclose(embedder.embed_documents([text])[0], batch[index], atol=1e-5)


def test_a_small_token_budget_changes_nothing(folder: Path, embedder: Embedder, texts: list[str]) -> None:
    tight = Embedder(folder, dtype="float32", device="cpu", batch_tokens=1)
    np.testing.assert_allclose(tight.embed_documents(texts), embedder.embed_documents(texts), atol=1e-5)


def test_truncated_text_keeps_its_final_token(folder: Path, texts: list[str]) -> None:
    limited = Embedder(folder, dtype="float32", max_tokens=32)
    oracle = peer(folder)
    oracle.max_seq_length = 32
    long = texts[-1]
    with pytest.warns(TruncationWarning, match=r"1 of 2 texts .* index 1, \d+ tokens"):
        result = limited.encode(["short", long], role="document")
    assert result.truncated.tolist() == [False, True]
    assert result.token_counts[1] > 32
    assert cosines(result.vectors, oracle.encode_document(["short", long])).min() > 0.99999


def test_exactly_at_the_limit_nothing_is_cut(folder: Path, texts: list[str], recwarn: pytest.WarningsRecorder) -> None:
    count = int(Embedder(folder, dtype="float32").encode([texts[0]], role="document").token_counts[0])
    assert not Embedder(folder, max_tokens=count).encode([texts[0]], role="document").truncated.any()
    assert not [item for item in recwarn if item.category is TruncationWarning]
    with pytest.warns(TruncationWarning):
        assert Embedder(folder, max_tokens=count - 1).encode([texts[0]], role="document").truncated.all()


def test_a_cut_vector_is_the_normalised_prefix(folder: Path, embedder: Embedder, texts: list[str], request) -> None:
    # Gemma's own widths do not fit so small a model; the rule is the same, so the raw vectors show it.
    raw = Embedder(folder, dtype="float32", normalize=False).embed_documents(texts)
    if "qwen3" in folder.name:
        cut = embedder.with_dim(40).embed_documents(texts)
        expected = raw[:, :40] / np.linalg.norm(raw[:, :40], axis=1, keepdims=True)
        np.testing.assert_allclose(cut, expected, atol=1e-5)
        oracle = peer(folder).encode_document(texts, truncate_dim=40, normalize_embeddings=True)
        assert cosines(cut, oracle).min() > 0.99999
    np.testing.assert_allclose(
        embedder.embed_documents(texts), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5
    )


def test_bfloat16_is_close_to_float32(folder: Path, embedder: Embedder, texts: list[str]) -> None:
    half = Embedder(folder, dtype="bfloat16", device="cpu")
    assert half.info()["dtype"] == "bfloat16"
    assert cosines(half.embed_documents(texts), embedder.embed_documents(texts)).min() > 0.99
    assert half.fingerprint != embedder.fingerprint
    assert half.space == embedder.space


def card_scores(folder: Path, query: str, documents: list[str], instruction: str, max_length: int) -> np.ndarray:
    """The recipe on the model card of Qwen3-Reranker, in float32, one pair at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    judge = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".'
    )
    prefix = tokenizer.encode(f"<|im_start|>system\n{judge}<|im_end|>\n<|im_start|>user\n", add_special_tokens=False)
    suffix = tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", add_special_tokens=False)
    scores = []
    for document in documents:
        body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        room = max_length - len(prefix) - len(suffix)
        ids = prefix + tokenizer.encode(body, add_special_tokens=False)[:room] + suffix
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        answers = logits[[tokenizer.convert_tokens_to_ids("no"), tokenizer.convert_tokens_to_ids("yes")]]
        scores.append(torch.log_softmax(answers, 0)[1].exp().item())
    return np.array(scores)


def test_scores_equal_the_cards_recipe(reranker_folder: Path, texts: list[str]) -> None:
    reranker = Reranker(reranker_folder, dtype="float32", device="cpu")
    query = "which planet is {red}?"
    ours = reranker.score(query, texts)
    np.testing.assert_allclose(ours, card_scores(reranker_folder, query, texts, QUERY, 8192), atol=1e-4)
    assert ours.min() >= 0
    assert ours.max() <= 1
    assert ours.std() > 1e-3
    told = reranker.score(query, texts, instruction="Find astronomy facts")
    expected = card_scores(reranker_folder, query, texts, "Find astronomy facts", 8192)
    np.testing.assert_allclose(told, expected, atol=1e-4)
    assert np.abs(told - ours).max() > 1e-3


CHAT_TEMPLATE = (
    "{% set ns = namespace(instruction='INSTRUCTION', query='', document='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.instruction = message['content'] %}"
    "{% elif message['role'] == 'query' %}{% set ns.query = message['content'] %}"
    "{% elif message['role'] == 'document' %}{% set ns.document = message['content'] %}{% endif %}{% endfor %}"
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {{ ns.instruction }}\n<Query>: {{ ns.query }}\n<Document>: "
    "{{ ns.document }}<|im_end|>\n"
    # jinja drops a newline at the end of a template, hence the expression.
    "<|im_start|>assistant\n<think>\n\n</think>{{ '\\n\\n' }}"
).replace("INSTRUCTION", QUERY)


def test_scores_equal_the_cross_encoder(reranker_folder: Path, other_folder: Path, texts: list[str]) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    shutil.copytree(reranker_folder, other_folder)
    (other_folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    oracle = CrossEncoder(
        str(other_folder),
        device="cpu",
        model_kwargs={"dtype": torch.float32},
        activation_fn=torch.nn.Sigmoid(),
    )
    pairs = [("which planet is red?", text) for text in texts if text]
    ids = oracle.preprocess(pairs[:1])["input_ids"][0].tolist()
    assert oracle.tokenizer.decode(ids).endswith("</think>\n\n"), "the oracle's own template lost its end"
    reranker = Reranker(reranker_folder, dtype="float32", device="cpu")
    ours = reranker.score("which planet is red?", [text for _, text in pairs])
    np.testing.assert_allclose(ours, oracle.predict(pairs), atol=1e-4)


def test_a_long_document_loses_its_end_and_nothing_else(reranker_folder: Path, texts: list[str]) -> None:
    reranker = Reranker(reranker_folder, dtype="float32", device="cpu", max_tokens=160)
    with pytest.warns(TruncationWarning):
        ours = reranker.score("which planet is red?", texts)
    np.testing.assert_allclose(ours, card_scores(reranker_folder, "which planet is red?", texts, QUERY, 160), atol=1e-4)
    quiet = Reranker(reranker_folder, dtype="float32", device="cpu", max_tokens=160, truncate="silent")
    alone = quiet.score("which planet is red?", texts[:-1])
    np.testing.assert_allclose(alone, ours[:-1], atol=1e-5)


def test_a_classifier_equals_the_cross_encoder(classifier_folder: Path, texts: list[str]) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    oracle = CrossEncoder(str(classifier_folder), device="cpu", model_kwargs={"dtype": torch.float32})
    ours = Reranker(classifier_folder, dtype="float32", device="cpu").score("which planet is red?", texts)
    expected = oracle.predict([("which planet is red?", text) for text in texts])
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert ours.std() > 1e-3


def test_a_bert_classifier_equals_the_cross_encoder(other_folder: Path, corpus: list[str], texts: list[str]) -> None:
    """BERT is told which token belongs to the query; without that every score is slightly wrong."""
    import torch
    from sentence_transformers import CrossEncoder
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(5)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=500, special_tokens=specials))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=128).save_pretrained(other_folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, num_labels=1,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(other_folder)
    oracle = CrossEncoder(str(other_folder), device="cpu", model_kwargs={"dtype": torch.float32})
    pairs = [("which planet is red?", text[:200]) for text in texts]
    ours = Reranker(other_folder, dtype="float32", device="cpu").score_pairs(pairs)
    np.testing.assert_allclose(ours, oracle.predict(pairs), atol=1e-4)


def test_folders_that_sentence_transformers_saved_itself(
    qwen3_folder: Path, gemma_folder: Path, tmp_path: Path
) -> None:
    """The newer generation of names, and the layout with the transformer in a folder of its own."""
    for name, folder in (("qwen3", qwen3_folder), ("gemma", gemma_folder)):
        saved = tmp_path / name
        peer(folder).save_pretrained(str(saved))
        # Not compared with the original: transformers 5.0 halves Gemma's sliding window each time it saves.
        expected = peer(saved).encode_document(["one", "two words"])
        ours = Embedder(saved, dtype="float32").embed_documents(["one", "two words"])
        assert cosines(ours, expected).min() > 0.99999
    apart = tmp_path / "apart"
    shutil.copytree(qwen3_folder, apart)
    (apart / "0_Transformer").mkdir()
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (apart / file).rename(apart / "0_Transformer" / file)
    modules = (apart / "modules.json").read_text("utf-8").replace('"path": ""', '"path": "0_Transformer"')
    (apart / "modules.json").write_text(modules, "utf-8")
    expected = Embedder(qwen3_folder, dtype="float32").embed_documents(["one"])
    np.testing.assert_allclose(Embedder(apart, dtype="float32").embed_documents(["one"]), expected, atol=1e-6)
