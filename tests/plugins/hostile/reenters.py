import embrief

EMBEDDER = embrief.Embedder("embrief/hash")
