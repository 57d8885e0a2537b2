"""Collections, upserts and searches with any client, attached or not. Public parts of qdrant-client only."""
