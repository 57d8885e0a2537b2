"""Caches that a configuration asks for."""

from __future__ import annotations

from embrief import Embedder, MemoryCache, SqliteCache


def test_a_configured_cache(use):
    use(
        "models:\n  a: {provider: hash, cache: true}\n  b: {provider: hash, cache_enabled: true, cache_ttl: 1h}\n"
        "  c: {provider: hash, cache: sqlite, cache_ttl: 2d}\n  d: {provider: hash, cache: false}\n"
        "  e: {provider: hash}\n  f: {model_id: embrief/tiny-embedding, cache: true}\n"
        "runs: {embrief/tiny-embedding: f}\n"
    )
    found = [Embedder(name).settings.cache for name in "abcde"]
    assert found == [MemoryCache(), MemoryCache(ttl=3600.0), SqliteCache(ttl=172800.0), None, None]
    assert Embedder("a", cache="sqlite").settings.cache == SqliteCache()
    assert Embedder("embrief/tiny-embedding").settings.cache == MemoryCache(), (
        "where vectors are kept is this machine's"
    )
    embedder = Embedder("a")
    assert (embedder.embed_query("q") == embedder.embed_query("q")).all()
