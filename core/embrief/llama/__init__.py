"""llama.cpp, given token ids: a process of its own, what passes between it and us, and the library's own calls."""
