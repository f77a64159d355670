"""From any recording to a question: every container is read, speech is found, the silence around it is cut."""

from omni_lite.recording.containers import load_audio
from omni_lite.recording.question import load_question, prepare_question

__all__ = ["load_audio", "load_question", "prepare_question"]
