"""The tests, and what several of them need."""

import pytest


def assert_one_sentence(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    """An error message is one line and one sentence, and holds these words."""
    text = str(error.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text, text
    for word in words:
        assert word in text, f"{word!r} is missing in: {text}"
