"""Files of a folder as passages in a collection, kept current, and searched: for the shell, servers, assistants."""
