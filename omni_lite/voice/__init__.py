"""A voice for any language model: it reads words, not one model's hidden states.

`model.py` predicts seven delayed streams of codes around a pointer into the phonemes.
"""
