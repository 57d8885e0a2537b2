"""A plugin that puts the facades into a framework, which need not be installed to be described."""

from embrief import Integration, hookimpl

SEARCH = Integration(
    name="acme-search",
    package="acme_framework",
    framework="acme_search_engine",
    install="pip install acme-search-engine",
    provides=("NotesIndex",),
)


@hookimpl
def register_integrations(register):
    register(SEARCH)


class NotesIndex:
    """What the plugin's users hold: an index of the framework, fed by any embedder."""

    def __init__(self, embedder):
        self.embedder = embedder
        self.texts = []

    def add(self, texts):
        self.texts += texts

    def search(self, query):
        scores = self.embedder.embed_documents(self.texts) @ self.embedder.embed_query(query)
        return self.texts[int(scores.argmax())]
