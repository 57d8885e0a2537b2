"""A process of the user's that holds models and stores open, and how the command line finds it.

What only asks (`client`, `places`, `frames`, `sockets`) needs the standard library alone: it runs before a command is
known to need anything.
"""

COMMANDS = ("search", "index")
"""The commands that a process runs for others."""
