# Embed queries and documents, see the prompts, cut the vectors. pip install -e ".[torch]"
from embrief import Embedder


def main() -> None:
    # A small model that comes with embrief. The real one: Embedder("Qwen/Qwen3-Embedding-0.6B")
    embedder = Embedder("embrief/tiny-embedding")
    documents = ["gzip.compress: compress data in one shot", "shutil.copytree: copy a directory tree"]
    vectors = embedder.embed_documents(documents)
    scores = vectors @ embedder.embed_query("copy a folder")
    print(documents[scores.argmax()])

    short = embedder.with_dim(64)
    print(vectors.shape, short.embed_documents(documents).shape)
    print("comparable:", short.space == embedder.space)

    # What EmbeddingGemma would get; nothing is loaded for that.
    gemma = Embedder("google/embeddinggemma-300m")
    print(gemma.render("It has two moons.", role="document", title="Mars"))
    print(gemma.render("moons of Mars", role="query", task="question_answering"))


if __name__ == "__main__":
    main()

# Output:
# shutil.copytree: copy a directory tree
# (2, 256) (2, 64)
# comparable: False
# title: Mars | text: It has two moons.
# task: question answering | query: moons of Mars
