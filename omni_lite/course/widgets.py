"""The live demo as widgets: a push-to-talk recorder, a player that streams an answer, and both together.

    demo = LiveDemo(load_assistant())
    demo                                     # as the last line of a cell, in JupyterLab, Notebook 7 or Voila

Each widget has a JavaScript half, `recorder.js` and `talker.js`, that reacts at once. If the user presses the button
while the model talks, the page stops the sound first and then tells Python.

    Recorder, page -> Python     {kind: "press"}                                  the button went down
                                 {kind: "sound", take, seq, last, rate, released}  + float32 samples
                                 {kind: "file", take, seq, last, name, released}   + bytes of the file
                                 {kind: "refused", why}                            why the microphone is missing
              Python -> page     {text, hint}                                      an error or ""; hint: shown quietly

    Talker,   Python -> page     {kind: "begin", turn, asked_at}
                                 {kind: "stage", turn, stage}                      "heard"
                                 {kind: "step", turn, text, pace}                  + int16 samples, or none
                                 {kind: "end", turn, why}     {kind: "stop", turn}
                                 {kind: "question", turn, text}    {kind: "saved", text}
              page -> Python     {kind: "forget"}                                  "New conversation"
                                 {kind: "sounding", turn, ms}                      ms since the button's release
                                 {kind: "played", turn, samples, chunks, underruns, gap_ms}
                                 {kind: "stopped", turn, why, played_s}    {kind: "save", turn}

`released` and `asked_at` are the same moment on the page's clock, so Python's clock is never compared with it.
Without a page (nbval, nbconvert, a script) everything works without waiting, and nobody receives the messages.
"""

import base64
import html
import io
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
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

from omni_lite.assistant import Assistant, Reply
from omni_lite.audio import check_question, save_wav, to_int16
from omni_lite.fast import quick
from omni_lite.folder import ROOT
from omni_lite.generate import Step
from omni_lite.recording import load_question, prepare_question
from omni_lite.recording.speech import detector
from omni_lite.streams import Task
from omni_lite.threads import use_one_thread_if_small
from omni_lite.vocab import CODEC_RATE, EAR_RATE, FRAME_SECONDS, MAX_QUESTION_SECONDS

HERE = Path(__file__).parent
PACKAGED = ROOT / "data" / "audio" / "question.wav"   # the question if there is no recording
ERRORS = (OSError, ValueError)               # the library raises these, with one sentence each
NOTHING = "nothing heard"                    # why a turn has no answer


# --- the recorder -------------------------------------------------------------------------------------------


@dataclass
class Question:
    """One question.

    wav_16k:  (N,) float32
    source:   "microphone", a file's name, or "python"
    asked_at: the time of the button's release or the file's choice, ms on the page's clock; None from Python
    """

    wav_16k: Tensor
    source: str = "python"
    asked_at: float | None = None


class Recorder(anywidget.AnyWidget):
    """Push to talk with the mouse, Space or a finger, with a level meter; or choose a sound file.

    A recording without speech gives a quiet hint on the page instead of a question.

    question: the last valid question, or None
    error:    why the last question is not valid, or why the microphone does not work; ""
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
        """Call this, in any thread, when the user begins a question."""
        self._on_press.append(callback)

    def on_question(self, callback: Callable[[Question], object]) -> None:
        """Call this, in any thread, with every valid question."""
        self._on_question.append(callback)

    def wav_16k(self) -> Tensor:
        """The last question; without one, the packaged recording."""
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
        """Collect the pieces of one take; the last piece completes the question."""
        if message["seq"] == 0:
            self._take, self._pieces = message["take"], []
        if message["take"] != self._take:
            return                           # from another page, or from before this kernel's start
        self._pieces.append(piece)
        if not message["last"]:
            return
        pieces, self._take, self._pieces = self._pieces, None, []
        hint = False
        try:
            if len(pieces) != message["seq"] + 1:
                raise ValueError("A part of the question was lost on its way: ask again.")
            if message["kind"] == "file":
                wav_16k, source = read_question(b"".join(pieces), message["name"]), message["name"]
            else:
                samples, source, hint = np.frombuffer(b"".join(pieces), "<f4"), "microphone", True
                wav_16k = prepare_question(samples, message["rate"], "The recording")
        except ERRORS as error:
            self.error = str(error)
            self.send({"text": self.error, "hint": hint})    # a hint: the remedy is to speak once more
            return
        self.error, self.question = "", Question(wav_16k, source, message["released"])
        self.send({"text": "", "hint": False})
        for ask in self._on_question:
            ask(self.question)


def read_question(data: bytes, name: str) -> Tensor:
    """`load_question` for a sound file's bytes: (N,) float32 at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"question{Path(name).suffix}"
        path.write_bytes(data)
        try:
            return load_question(path)
        except ERRORS as error:
            raise ValueError(str(error).replace(str(path), name).replace(path.name, name)) from error


# --- the player ---------------------------------------------------------------------------------------------


class Talker(anywidget.AnyWidget):
    """Shows and plays an answer while the model makes it: words are grey until they are spoken.

        talker = Talker()
        talker                               # in one cell
        talker.play(assistant.ask(wav_16k))  # in the next

    reports: the page's measurements of each turn, by number; empty without a page.
             heard_ms, first_word_ms and first_sound_ms count from the question's end.
             samples, chunks, underruns and gap_ms describe the playback.
             why and played_s describe a stopped answer.
    """

    _esm = HERE / "talker.js"
    _css = HERE / "widgets.css"
    rate = traitlets.Int(CODEC_RATE).tag(sync=True)
    lead_ms = traitlets.Float(60.0).tag(sync=True)         # delay of the first chunk, to avoid gaps
    savable = traitlets.Bool(False).tag(sync=True)         # show the button "Save this turn"
    remembers = traitlets.Bool(False).tag(sync=True)       # show the button "New conversation"
    earlier: traitlets.List = traitlets.List().tag(sync=True)   # [number, question, answer] of all turns

    def __init__(self, **traits: Any) -> None:
        self.turn = 0
        self.reports: dict[int, dict[str, Any]] = {}
        self._stopped = threading.Event()
        self._on_save: list[Callable[[], object]] = []
        self._on_forget: list[Callable[[], object]] = []
        super().__init__(**traits)
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        return f"Talker({self.rate} Hz)"

    def on_forget(self, callback: Callable[[], object]) -> None:
        """Call this when the button "New conversation" is pressed."""
        self._on_forget.append(callback)

    def on_save(self, callback: Callable[[], object]) -> None:
        """Show the button "Save this turn"; a press calls this."""
        self._on_save.append(callback)
        self.savable = True

    def play(
        self, steps: Iterable[Step], asked_at: float | None = None, stopped: threading.Event | None = None
    ) -> bool:
        """Show every step and play its samples at once, in the calling thread.

        It returns after the last step, while the page may still play. The button, the next question and `stop` also
        close the steps, which ends the model's work.

        asked_at: the question's end on the page's clock; None: now
        stopped:  an event that ends the answer; the button sets it
        returns:  True unless the answer was stopped
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
        """Tell the page that the turn has reached a stage."""
        self.send({"kind": "stage", "turn": self.turn, "stage": stage})

    def show_question(self, text: str) -> None:
        """Show the question above the answer."""
        self.send({"kind": "question", "turn": self.turn, "text": text})

    def stop(self) -> None:
        """Stop the sound and end the model's work."""
        self._stopped.set()
        self.send({"kind": "stop", "turn": self.turn})

    def _receive(self, _: object, message: dict, buffers: list) -> None:
        """One message of the page."""
        kind, turn = message.pop("kind"), message.pop("turn", None)
        if kind in ("save", "forget"):
            for react in self._on_save if kind == "save" else self._on_forget:
                react()
        elif turn in self.reports:
            if kind == "stopped" and turn == self.turn:
                self._stopped.set()
            stages_ms = message.pop("ms", {})
            self.reports[turn].update({f"{stage}_ms": ms for stage, ms in stages_ms.items()}, **message)


# --- both together --------------------------------------------------------------------------------------------


@dataclass
class Turn(Reply):
    """A question, its answer and their timing. The text grows with each step; `wav_24k` is complete at the end.

    heard:      the transcript of the question; the lite preset makes it after the answer
    stages_ms:  times of heard, first_word, first_sound and end, in ms since Python got the question
    trace:      after every step the ms since then, the text and the seconds of sound so far
    page:       the page's measurements, see `Talker.reports`
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
        """Record the first time of a stage; returns ms since Python got the question."""
        now_ms = 1000 * (perf_counter() - self.began)
        self.stages_ms.setdefault(stage, now_ms)
        return now_ms

    def take(self, step: Step) -> None:
        """Add a step to the turn."""
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
        """End the turn: join the sound."""
        self.reach("end")
        if self.chunks:
            self.wav_24k = np.concatenate(self.chunks)
            self.chunks.clear()
        if self.stopped.is_set() and not self.reason:
            self.reason = "stopped"

    def save(self, folder: str | Path = ".") -> tuple[Path, Path]:
        """Write the question and the answer as wav files; returns their paths."""
        if not len(self.wav_24k):
            raise ValueError(f"The spoken answer of turn {self.number} is not finished: wait for its end or ask again.")
        paths = tuple(Path(folder) / f"turn-{self.number:02d}-{part}.wav" for part in ("question", "answer"))
        save_wav(paths[0], self.question.wav_16k, EAR_RATE)
        save_wav(paths[1], self.wav_24k, CODEC_RATE)
        return paths[0], paths[1]

    def _repr_html_(self) -> str:
        """The transcripts and two players, for a saved notebook."""
        rows = [("Asked", self.heard, self.question.wav_16k.numpy(), EAR_RATE),
                ("Answered", self.text, self.wav_24k, CODEC_RATE)]
        cells = "".join(
            f'<tr><th style="text-align:left">{who}</th><td style="text-align:left">{html.escape(text)}</td>'
            f"<td>{player(wave, rate)}</td></tr>" for who, text, wave, rate in rows)
        return f"<table>{cells}</table>"


def player(wave: np.ndarray, rate: int) -> str:
    """An HTML player with the sound inside, as mp3: a tenth of the size of a wav."""
    if not len(wave):
        return "(no sound)"
    encoded = io.BytesIO()
    soundfile.write(encoded, wave, rate, format="MP3")
    sound = base64.b64encode(encoded.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio>'


class LiveDemo(ipywidgets.VBox):
    """Ask by voice, then see and hear the answer while the model makes it.

    A chat model remembers the turns of its conversation, the lite preset none. The model runs in its own thread, so
    other cells can run meanwhile, also with the same assistant, see `Assistant.ask`. A press of the button while it
    talks stops the answer and begins the next question.

    history: every turn, in order
    """

    def __init__(self, assistant: Any, folder: str | Path = "turns", **how: Any) -> None:
        """A demo of one assistant, or of several to choose from.

        assistant: an `Assistant`, a `chat.assistant.ChatAssistant`, or name -> function that loads one of them; the
                   first is loaded at once
        folder:    for "Save this turn";  how: options of `ask`, for example seed=1
        """
        self.folder, self.how = Path(folder), how
        self.recorder, self.talker = Recorder(), Talker()
        self.history: list[Turn] = []
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="omni")
        self._choices: dict[str, Any] = dict(assistant) if isinstance(assistant, Mapping) else {"": assistant}
        self.choice = ipywidgets.Dropdown(options=list(self._choices), description="Model")
        self.assistant: Any = None
        self._use(next(iter(self._choices)))
        self.choice.observe(self._chosen, "value")
        self.recorder.on_press(self.hush)
        self.recorder.on_question(self._answer)
        self.talker.on_save(self._save)
        self.talker.on_forget(self.new_conversation)
        super().__init__([*([self.choice] if len(self._choices) > 1 else []), self.recorder, self.talker])
        self.add_class("omni-live")

    def __repr__(self) -> str:
        return f"LiveDemo(turns={len(self.history)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and a line of text for pages without a kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        return (bundle or {}) | {"text/html": "<p><em>The live demo appears here when this notebook is run.</em></p>"}

    def ask(self, question: Tensor | str | Path | None = None) -> Turn:
        """Ask from Python and wait for the whole answer; a page shows and plays it too.

        question: (N,) float32 at 16 kHz, or a sound file; None: `Recorder.wav_16k`
        """
        if question is None:
            question = self.recorder.wav_16k()
        elif not isinstance(question, Tensor):
            question = load_question(question)
        check_question(question, "The question")
        self._warm.result()                  # otherwise the first turn's times include the set-up
        return self._answer(Question(question)).result()

    def choose(self, name: str) -> None:
        """Answer the next question with another assistant; it is loaded when it is chosen for the first time."""
        if name not in self._choices:
            raise ValueError(f"There is no model {name!r} here: choose one of {', '.join(self._choices)}.")
        self.choice.value = name             # calls `_chosen` if it changes

    def new_conversation(self) -> None:
        """Forget the turns so far; they stay in `history`."""
        self.hush()
        self._worker.submit(self._forget)

    def hush(self) -> None:
        """Stop the current answer."""
        if self.history:
            self.history[-1].stopped.set()

    def save(self) -> tuple[Path, Path]:
        """Write question and answer of the last turn with a finished or stopped spoken answer as wav files.

        returns: the paths of both files
        """
        finished = [turn for turn in self.history if len(turn.wav_24k)]
        if not finished:
            raise ValueError("No turn has a finished spoken answer yet: ask something, or wait for the end.")
        return finished[-1].save(self.folder)

    def close(self) -> None:
        """Stop the answer and end the thread."""
        self.hush()
        self._worker.shutdown(wait=False, cancel_futures=True)
        for widget in self.children:
            widget.close()
        super().close()

    def _chosen(self, change: Any) -> None:
        """Load the chosen model in the worker thread."""
        self.hush()
        self._worker.submit(self._use, change["new"]).add_done_callback(self._tell_failure)

    def _use(self, name: str) -> None:
        """Load an assistant if it is not loaded yet, and begin with it."""
        chosen = self._choices[name]
        loaded = chosen if hasattr(chosen, "ask") else chosen()
        if isinstance(loaded, Assistant):
            use_one_thread_if_small(loaded.model)
        if not hasattr(loaded, "new_conversation"):
            loaded = quick(loaded)
        self._choices[name] = self.assistant = loaded
        self._forget()
        self._warm = self._worker.submit(self._warm_up, loaded)

    def _forget(self) -> None:
        """Begin a conversation."""
        self.talker.remembers = hasattr(self.assistant, "new_conversation")
        self.talker.earlier = []
        self._first = len(self.history)
        if self.talker.remembers:
            self.assistant.new_conversation()

    def _tell_failure(self, done: "Future[None]") -> None:
        """Show on the page why a model could not be loaded."""
        error = done.exception()
        if error is not None:
            self.talker.send({"kind": "saved", "text": str(error)})

    def _warm_up(self, assistant: Any) -> None:
        """Do the set-up before the first question."""
        detector()
        assistant.warm_up()

    def _save(self) -> None:
        """Handle the page's button: show the names of the files, or the error."""
        try:
            question, answer = self.save()
            self.talker.send({"kind": "saved", "text": f"Saved {question} and {answer.name}"})
        except ERRORS as error:
            self.talker.send({"kind": "saved", "text": str(error)})

    def _answer(self, question: Question) -> Future[Turn]:
        """Queue a new turn; the previous one ends with its next step."""
        self.hush()
        turn = Turn(number=len(self.history) + 1, question=question)
        self.history.append(turn)
        return self._worker.submit(self._take_turn, turn)

    def _take_turn(self, turn: Turn) -> Turn:
        """Answer, and show what was heard, in the worker thread."""
        try:
            self.talker.play(self._steps(turn), turn.question.asked_at, turn.stopped)
        finally:
            turn.finish()
        if not turn.heard and turn.reason != NOTHING:
            self._transcribe(turn)
        self.talker.earlier = [[t.number, t.heard, t.text] for t in self.history[self._first : turn.number]]
        return turn

    def _transcribe(self, turn: Turn) -> None:
        """Ask the model what it heard, after the answer, since this takes time."""
        heard = ""
        for step in self.assistant.ask(turn.question.wav_16k, Task.A1T1):
            heard += step.text
            if turn is not self.history[-1]:
                break                        # the next question is waiting
        turn.heard = heard
        self.talker.show_question(turn.heard)

    def _steps(self, turn: Turn) -> Iterator[Step]:
        """The model's steps; the turn records each one."""
        turn.page = self.talker.reports[self.talker.turn]
        if turn.stopped.is_set():
            return
        how = self.how
        try:
            heard = self.assistant.hear(turn.question.wav_16k)
        except ValueError as error:
            if not self.talker.remembers:    # only a chat model's ears say that they understood no word
                raise
            turn.reason = NOTHING
            self.recorder.send({"text": str(error), "hint": True})
            return
        turn.reach("heard")
        self.talker.reach("heard")
        if self.talker.remembers:
            turn.heard, how = heard, dict(remember=True) | how
            self.talker.show_question(heard)
        for step in self.assistant.ask(heard, **how):
            turn.take(step)
            yield step
