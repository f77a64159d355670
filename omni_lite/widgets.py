"""Talk with the model on a page: a push-to-talk recorder, a player that sounds what is still being made, and both.

    demo = LiveDemo(Assistant.load())
    demo                                     # as the last line of a cell, in JupyterLab, Notebook 7 or Voila

Each widget has a half on the page (`recorder.js`, `talker.js`), which holds what must not wait: when the
button is pressed while the model talks, the page falls silent at once and tells Python afterwards.

    Recorder, page -> Python     {kind: "press"}                                  the button went down
                                 {kind: "sound", take, seq, last, rate, released}  + float32 samples
                                 {kind: "file", take, seq, last, name, released}   + bytes of the file
                                 {kind: "refused", why}                            no microphone
              Python -> page     {text}                                            what was wrong with it, or ""

    Talker,   Python -> page     {kind: "begin", turn, asked_at}
                                 {kind: "stage", turn, stage}                      "heard"
                                 {kind: "step", turn, text, pace}                  + int16 samples, or none
                                 {kind: "end", turn, why}     {kind: "stop", turn}
                                 {kind: "question", turn, text}    {kind: "saved", text}
              page -> Python     {kind: "sounding", turn, ms}                      ms since the button was let go
                                 {kind: "played", turn, samples, chunks, underruns, gap_ms}
                                 {kind: "stopped", turn, why, played_s}    {kind: "save", turn}

`released` and `asked_at` are the same moment on the page's own clock, so no two clocks are ever compared.
Without a page (nbval, nbconvert, a script) all of it works and nothing waits: the messages go nowhere.
"""

import base64
import html
import io
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import soundfile
import torch
import traitlets
from torch import Tensor

from omni_lite.assistant import ROOT, Assistant, Reply
from omni_lite.audio import check_question, load_question, save_wav, to_int16, to_mono_rate, trim_quiet
from omni_lite.generate import Step
from omni_lite.streams import Task
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FRAME_SECONDS, MAX_QUESTION_SECONDS

HERE = Path(__file__).parent
PACKAGED = ROOT / "data" / "audio" / "question.wav"   # asked where nobody can talk
ERRORS = (OSError, ValueError)               # what the library raises, with one sentence each


# --- the ears of the page -----------------------------------------------------------------------------------


@dataclass
class Question:
    """One question as it reached Python.

    wav_16k:  (N,) float32
    source:   "microphone", a file's name, or "python"
    asked_at: when the button was let go or the file chosen, ms on the page's clock; None from Python
    """

    wav_16k: Tensor
    source: str = "python"
    asked_at: float | None = None


class Recorder(anywidget.AnyWidget):
    """Push to talk: hold the button, or Space, or touch it; a level meter; or a sound file.

    question: the last one that could be answered, or None
    error:    why the last one could not, or why there is no microphone; "" where all is well
    """

    _esm = HERE / "recorder.js"
    _css = HERE / "widgets.css"
    rate = traitlets.Int(EAR_RATE).tag(sync=True)
    max_s = traitlets.Float(MAX_QUESTION_SECONDS).tag(sync=True)
    keep_open_s = traitlets.Float(60.0).tag(sync=True)     # how long the microphone stays open for the next press
    processing = traitlets.Bool(False).tag(sync=True)      # the browser's echo canceller, noise filter and gain

    def __init__(self, **traits: Any) -> None:
        self.question: Question | None = None
        self.error = ""
        self._take: float | None = None
        self._pieces: list[bytes] = []
        self._on_press: list[Callable[[], object]] = []
        self._on_question: list[Callable[[Question], object]] = []
        super().__init__(**traits)
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        return f"Recorder({self.rate} Hz)"

    def on_press(self, callback: Callable[[], object]) -> None:
        """Call this when somebody begins to ask. It may be called in any thread."""
        self._on_press.append(callback)

    def on_question(self, callback: Callable[[Question], object]) -> None:
        """Call this with every question that can be answered. It may be called in any thread."""
        self._on_question.append(callback)

    def wav_16k(self) -> Tensor:
        """What was asked last; where nobody has asked (or can), the packaged recording."""
        return self.question.wav_16k if self.question else load_question(PACKAGED)

    def _receive(self, _: object, message: dict, buffers: list) -> None:
        """One message of the page."""
        kind = message["kind"]
        if kind == "press":
            for hush in self._on_press:
                hush()
        elif kind == "refused":
            self.error = message["why"]
        elif kind in ("sound", "file"):
            self._collect(message, bytes(buffers[0]) if buffers else b"")

    def _collect(self, message: dict, piece: bytes) -> None:
        """Put the pieces of one take together; with the last one it becomes a question."""
        if message["seq"] == 0:
            self._take, self._pieces = message["take"], []
        if message["take"] != self._take:
            return                           # of another page, or begun before this kernel
        self._pieces.append(piece)
        if not message["last"]:
            return
        pieces, self._take, self._pieces = self._pieces, None, []
        try:
            if len(pieces) != message["seq"] + 1:
                raise ValueError("A part of the question was lost on its way: ask again.")
            if message["kind"] == "file":
                wav_16k, source = read_question(b"".join(pieces), message["name"]), message["name"]
            else:
                samples = np.frombuffer(b"".join(pieces), "<f4")
                wav_16k, source = to_mono_rate(samples, message["rate"], EAR_RATE), "microphone"
                check_question(wav_16k, "The recording")
                wav_16k = trim_quiet(wav_16k)
        except ERRORS as error:
            self.error = str(error)
            self.send({"text": self.error})
            return
        self.error, self.question = "", Question(wav_16k, source, message["released"])
        self.send({"text": ""})
        for ask in self._on_question:
            ask(self.question)


def read_question(data: bytes, name: str) -> Tensor:
    """A sound file's bytes -> (N,) float32 at 16 kHz, read as `load_question` reads it from the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"question{Path(name).suffix}"
        path.write_bytes(data)
        try:
            return load_question(path)
        except ERRORS as error:
            raise ValueError(str(error).replace(str(path), name).replace(path.name, name)) from error


# --- the mouth of the page ----------------------------------------------------------------------------------


class Talker(anywidget.AnyWidget):
    """Shows and sounds an answer while it is being made: words grey when thought, dark when spoken.

        talker = Talker()
        talker                               # in one cell
        talker.play(assistant.ask(wav_16k))  # in the next

    reports: what the page told of each turn, by number: heard_ms, first_word_ms and first_sound_ms since the
             question's end; samples played, chunks, underruns, gap_ms; and, where somebody stopped it,
             why and played_s. Filled as it happens; empty without a page.
    """

    _esm = HERE / "talker.js"
    _css = HERE / "widgets.css"
    rate = traitlets.Int(CODEC_RATE).tag(sync=True)
    lead_ms = traitlets.Float(60.0).tag(sync=True)         # the first chunk's delay: no other may come late
    savable = traitlets.Bool(False).tag(sync=True)         # show the button "Save this turn"
    earlier: traitlets.List = traitlets.List().tag(sync=True)   # [number, question, answer] of all turns

    def __init__(self, **traits: Any) -> None:
        self.turn = 0
        self.reports: dict[int, dict[str, Any]] = {}
        self._stopped = threading.Event()
        self._on_save: list[Callable[[], object]] = []
        super().__init__(**traits)
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        return f"Talker({self.rate} Hz)"

    def on_save(self, callback: Callable[[], object]) -> None:
        """Show the button "Save this turn" and call this when it is pressed."""
        self._on_save.append(callback)
        self.savable = True

    def play(
        self, steps: Iterable[Step], asked_at: float | None = None, stopped: threading.Event | None = None
    ) -> bool:
        """Show every step and sound its samples as soon as it comes; in the calling thread.

        Returns when the last step is made, while the page may still be talking. Whoever stops it (the
        button, somebody who asks the next question, `stop`) ends the model's work too: the steps are closed.

        asked_at: the question's end on the page's clock, from which the page counts; None: from now
        stopped:  an event that ends it; the button sets it
        returns:  whether it came to its end
        """
        self.turn += 1
        self._stopped = stopped = stopped or threading.Event()
        self.reports[self.turn] = {}
        self.send({"kind": "begin", "turn": self.turn, "asked_at": asked_at})
        why, began, count = "", 0.0, 0
        try:
            for step in steps:
                if stopped.is_set():
                    break
                began = began or perf_counter()
                pace = (perf_counter() - began) / (count * FRAME_SECONDS) if count else 0.0
                count += 1
                pcm = [] if step.pcm is None else [to_int16(step.pcm).astype("<i2").tobytes()]
                self.send({"kind": "step", "turn": self.turn, "text": step.text, "pace": pace}, pcm)
                why = "Cut: the answer was too long" if step.reason == "length" else ""
        except KeyboardInterrupt:
            self.stop()
        except Exception as error:
            why = f"The model failed: {error}"
            raise
        finally:
            if isinstance(steps, Iterator) and hasattr(steps, "close"):
                steps.close()
            self.send({"kind": "end", "turn": self.turn, "why": why})
        return not stopped.is_set()

    def reach(self, stage: str) -> None:
        """Tell the page that a stage of the turn is reached now."""
        self.send({"kind": "stage", "turn": self.turn, "stage": stage})

    def show_question(self, text: str) -> None:
        """Write above the answer what was asked."""
        self.send({"kind": "question", "turn": self.turn, "text": text})

    def stop(self) -> None:
        """Fall silent and end the model's work."""
        self._stopped.set()
        self.send({"kind": "stop", "turn": self.turn})

    def _receive(self, _: object, message: dict, buffers: list) -> None:
        """One message of the page."""
        kind, turn = message.pop("kind"), message.pop("turn", None)
        if kind == "save":
            for save in self._on_save:
                save()
        elif turn in self.reports:
            if kind == "stopped" and turn == self.turn:
                self._stopped.set()
            stages_ms = message.pop("ms", {})
            self.reports[turn].update({f"{stage}_ms": ms for stage, ms in stages_ms.items()}, **message)


# --- both together --------------------------------------------------------------------------------------------


@dataclass
class Turn(Reply):
    """A question, its answer, and what both cost.

    heard:      the question as the model transcribes it, after it has answered
    stages_ms:  ms since the question was in Python: heard, first_word, first_sound, end
    trace:      after every step: ms since the question was in Python, text and seconds of sound so far
    page:       what the page measured and told (see `Talker.reports`)
    """

    number: int = 0
    question: Question = field(default_factory=lambda: Question(torch.zeros(0)))
    heard: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)
    trace: list[tuple[float, str, float]] = field(default_factory=list)
    page: dict[str, Any] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    began: float = field(default_factory=perf_counter, repr=False)
    chunks: list[np.ndarray] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        return f"Turn({self.number}: {self.heard!r} -> {self.text!r})"

    def reach(self, stage: str) -> float:
        """Note the time of a stage, the first time; returns ms since the question was in Python."""
        now_ms = 1000 * (perf_counter() - self.began)
        self.stages_ms.setdefault(stage, now_ms)
        return now_ms

    def take(self, step: Step) -> None:
        """Keep what this step adds."""
        self.steps += 1
        self.text += step.text
        self.reason = step.reason or ""
        if step.text.strip():
            self.reach("first_word")
        if step.pcm is not None:
            self.first_audio_ms = self.first_audio_ms or self.reach("first_sound")
            self.chunks.append(step.pcm)
        self.total_ms = 1000 * (perf_counter() - self.began)
        self.trace.append((self.total_ms, self.text, sum(map(len, self.chunks)) / CODEC_RATE))

    def finish(self) -> None:
        """All that will be made is made."""
        self.reach("end")
        if self.chunks:
            self.wav_24k = np.concatenate(self.chunks)
            self.chunks.clear()
        if self.stopped.is_set() and not self.reason:
            self.reason = "stopped"

    def save(self, folder: str | Path = ".") -> tuple[Path, Path]:
        """Write the question and the answer as wav files; returns their paths."""
        paths = tuple(Path(folder) / f"turn-{self.number:02d}-{part}.wav" for part in ("question", "answer"))
        save_wav(paths[0], self.question.wav_16k, EAR_RATE)
        save_wav(paths[1], self.wav_24k, CODEC_RATE)
        return paths[0], paths[1]

    def _repr_html_(self) -> str:
        """The transcript and two players, which stay in a saved notebook."""
        rows = [("Asked", self.heard, self.question.wav_16k.numpy(), EAR_RATE),
                ("Answered", self.text, self.wav_24k, CODEC_RATE)]
        cells = "".join(
            f'<tr><th style="text-align:left">{who}</th><td style="text-align:left">{html.escape(text)}</td>'
            f"<td>{player(wave, rate)}</td></tr>" for who, text, wave, rate in rows)
        return f"<table>{cells}</table>"


def player(wave: np.ndarray, rate: int) -> str:
    """An HTML player that holds the sound itself, as mp3: a tenth of a wav."""
    if not len(wave):
        return "(no sound)"
    encoded = io.BytesIO()
    soundfile.write(encoded, wave, rate, format="MP3")
    sound = base64.b64encode(encoded.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio>'


class LiveDemo(ipywidgets.VBox):
    """Ask aloud, and see and hear the answer while it is being thought; turn after turn.

    Each turn is independent: the model knows nothing of the ones before. It thinks in a thread of its own,
    so cells can be run meanwhile. Whoever presses the button while it talks silences it and asks anew.

    history: every turn, in order
    """

    def __init__(self, assistant: Assistant, folder: str | Path = "turns", **how: Any) -> None:
        """folder: where "Save this turn" writes; how: as in `Assistant.ask`, for example seed=1."""
        self.assistant = assistant = assistant.quick()
        self.folder, self.how = Path(folder), how
        self.recorder, self.talker = Recorder(), Talker()
        self.history: list[Turn] = []
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="omni")
        self._warm = self._worker.submit(assistant.warm_up)
        self.recorder.on_press(self.hush)
        self.recorder.on_question(self._answer)
        self.talker.on_save(self._save)
        super().__init__([self.recorder, self.talker])
        self.add_class("omni-live")

    def __repr__(self) -> str:
        return f"LiveDemo(turns={len(self.history)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and a line for readers without a kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        return (bundle or {}) | {"text/html": "<p><em>The live demo appears here when this notebook is run.</em></p>"}

    def ask(self, question: Tensor | str | Path | None = None) -> Turn:
        """Ask from Python and wait until the answer is made; the page, if there is one, shows and sounds it too.

        question: (N,) float32 at 16 kHz, or a sound file; None: what was recorded last, else the packaged recording
        """
        if question is None:
            question = self.recorder.wav_16k()
        elif not isinstance(question, Tensor):
            question = load_question(question)
        check_question(question, "The question")
        self._warm.result()                  # so that the first turn's times are those of any turn
        return self._answer(Question(question)).result()

    def hush(self) -> None:
        """The answer that is being made is no longer wanted."""
        if self.history:
            self.history[-1].stopped.set()

    def save(self) -> tuple[Path, Path]:
        """Write the last turn's question and answer as wav files; returns their paths."""
        if not self.history:
            raise ValueError("There is no turn to save yet: ask something first.")
        return self.history[-1].save(self.folder)

    def close(self) -> None:
        """Stop, and free the thread."""
        self.hush()
        self._worker.shutdown(wait=False, cancel_futures=True)
        for widget in self.children:
            widget.close()
        super().close()

    def _save(self) -> None:
        """The page's button: what came of it stands on the page."""
        try:
            question, answer = self.save()
            self.talker.send({"kind": "saved", "text": f"Saved {question} and {answer.name}"})
        except ERRORS as error:
            self.talker.send({"kind": "saved", "text": str(error)})

    def _answer(self, question: Question) -> Future[Turn]:
        """Put a new turn in line; the one before ends with its next step."""
        self.hush()
        turn = Turn(number=len(self.history) + 1, question=question)
        self.history.append(turn)
        return self._worker.submit(self._take_turn, turn)

    def _take_turn(self, turn: Turn) -> Turn:
        """The worker's part: think, talk, then write down what was heard."""
        try:
            self.talker.play(self._steps(turn), turn.question.asked_at, turn.stopped)
        finally:
            turn.finish()
        heard = ""
        for step in self.assistant.ask(turn.question.wav_16k, Task.A1T1):
            heard += step.text
            if turn is not self.history[-1]:
                break                        # somebody waits for an answer
        turn.heard = heard
        self.talker.show_question(turn.heard)
        self.talker.earlier = [[t.number, t.heard, t.text] for t in self.history[: turn.number]]
        return turn

    def _steps(self, turn: Turn) -> Iterator[Step]:
        """The model's steps, noted in the turn as they pass."""
        turn.page = self.talker.reports[self.talker.turn]
        if turn.stopped.is_set():
            return
        features = self.assistant.hear(turn.question.wav_16k)
        turn.reach("heard")
        self.talker.reach("heard")
        for step in self.assistant.ask(features, **self.how):
            turn.take(step)
            yield step
