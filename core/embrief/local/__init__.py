"""A process of the user's that holds models and stores open, and how the command line finds it."""
