"""Any chat model talks: ears write down the question, the model answers as it is, the voice says its words.

`llm.py` streams the text, `ears.py` hears words, `assistant.py` joins both with `omni_lite.voice`.
"""
