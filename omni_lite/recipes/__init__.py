"""Training recipes: the paper's, the lite model's, SmolLM2's ASR adapter, and their shared parts."""
