"""The recipe of the voice that speaks for any language model: texts, teacher, codec, voice (docs/recipe.md)."""
