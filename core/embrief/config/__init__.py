"""What the user's configuration file and environment say: which models there are by name, and where they run."""
