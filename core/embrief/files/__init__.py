"""Model folders: fetching, reading and judging them. Nothing here loads weights into memory or knows a runtime."""
