"""Other people's weights, read into this project's classes: Whisper, SNAC, the released Mini-Omni, language models."""
