"""Files of a folder as passages in a collection, kept current, and searching it: for the shell, the server, assistants."""
