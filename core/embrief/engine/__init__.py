"""The fast local executor for Qwen3 and Gemma3 text models. Imports torch: import it inside functions only."""
