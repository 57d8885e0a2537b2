"""The page of `embrief serve --ui`: looking at why a passage ranks where it does."""
