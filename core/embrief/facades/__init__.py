"""What users hold: `Embedder` and `Reranker`, and what they check and report."""
