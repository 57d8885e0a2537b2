# pip install -e ".[torch,llama-index]"
"""Save an index with the space of its vectors, and refuse to load it with another model."""

import json
import tempfile
from pathlib import Path

from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage

from embrief import SpaceMismatchError
from embrief.stores import read_stamp, require_same, stamp
from llama_index_embrief import Qwen3Embedding


def load(folder: str, embed_model: Qwen3Embedding) -> VectorStoreIndex:
    stored = read_stamp(json.loads(Path(folder, "space.json").read_text()), where="the index")
    require_same(stored, embed_model.embedder.space, where="the index")
    return load_index_from_storage(StorageContext.from_defaults(persist_dir=folder), embed_model=embed_model)


def main() -> None:
    # Compares spelling, offline. The real model: Qwen3Embedding()
    embed_model = Qwen3Embedding("embrief/hash", dim=256)
    index = VectorStoreIndex.from_documents([Document(text="Mars is red.")], embed_model=embed_model)
    index.storage_context.persist(folder := tempfile.mkdtemp())
    Path(folder, "space.json").write_text(json.dumps(stamp(embed_model.embedder.space)))
    print(load(folder, embed_model).as_retriever().retrieve("red")[0].text)
    try:
        load(folder, embed_model.with_dim(128))
    except SpaceMismatchError as error:
        print(str(error).partition(": ")[2].partition(". ")[0])


if __name__ == "__main__":
    main()

# Output:
# Mars is red.
# stored: dim=256, this embedder: dim=128
