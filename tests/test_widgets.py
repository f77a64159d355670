"""The live demo without a browser: the page's messages are sent by hand, the model is a script."""

import base64
import io
import re
import threading

import numpy as np
import pytest
import soundfile
import soxr
import torch

from omni_lite.audio import to_int16
from omni_lite.course.widgets import HERE, PACKAGED, LiveDemo, Question, Recorder, Talker, player, read_question
from omni_lite.generate import Step
from omni_lite.recording import load_question
from omni_lite.streams import Task
from omni_lite.vocab import FRAME_SAMPLES
from tests import assert_one_sentence

WORDS = ["Hello", " you", "."]


def sound(frame: int) -> np.ndarray:
    """A frame of noise of its own."""
    return np.random.default_rng(frame).uniform(-0.5, 0.5, FRAME_SAMPLES).astype(np.float32)


def script(frames: int = 3, words: list[str] = WORDS):
    """What `generate` might yield: a word a step, and one frame of sound from step 2 on."""
    for i in range(frames + 2):
        yield Step(i, None, 0, words[i] if i < len(words) else "", np.zeros(7), sound(i) if i >= 2 else None,
                   "end" if i == frames + 1 else None)


class Scripted:
    """An assistant that answers everything alike; `gate` holds its answers back, `began` says that one has begun."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.closed = 0

    decoder = "scripted"                                 # so that `quick` leaves this assistant as it is

    def warm_up(self): ...

    def hear(self, wav_16k):
        return torch.zeros(1, 4, 8)

    def ask(self, question, task=Task.A1A2, **how):
        if task == Task.A1T1:
            assert question.ndim == 1
            yield Step(0, 1, 1, "who <b>am</b> I?", None, None, "end")
            return
        assert question.shape == (1, 4, 8)
        try:
            for step in script():
                self.began.set()
                yield step
                assert self.gate.wait(10)
        finally:
            self.closed += 1


@pytest.fixture
def demo(tmp_path):
    demo = LiveDemo(Scripted(), folder=tmp_path / "turns")
    yield demo
    demo.close()


class Remembering(Scripted):
    """A chat model: its ears give words, and it knows its turns."""

    def __init__(self):
        super().__init__()
        self.turns = []

    def hear(self, wav_16k):
        if not wav_16k.abs().max() > 0.01:
            raise ValueError("No words were heard.")
        return "who am I?"

    def ask(self, question, task=Task.A1A2, remember=False, **how):
        assert question == "who am I?" and remember
        self.turns.append(question)
        yield from script()

    def new_conversation(self):
        self.turns = []


def listen(widget, monkeypatch) -> list[tuple[dict, list]]:
    """Everything that this widget sends to its page from now on."""
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append((content, buffers or [])))
    return sent


def page_says(widget, *buffers, **message):
    """A message of the page, as ipywidgets hands it on."""
    widget._handle_custom_msg(message, [memoryview(buffer) for buffer in buffers])


def speak(recorder, wave, rate=16_000, take=0.5, pieces=3):
    """The page records a question and sends it in pieces."""
    page_says(recorder, kind="press")
    for seq, piece in enumerate(np.array_split(np.asarray(wave, "<f4"), pieces)):
        page_says(recorder, piece.tobytes(), kind="sound", take=take, seq=seq, last=seq == pieces - 1, rate=rate,
                  released=1234.5)


VOICE = load_question(PACKAGED).numpy()                  # a recording without speech is not a question


# --- recorder -----------------------------------------------------------------------------------------------


def test_a_recording_arrives_whole(monkeypatch):
    recorder, asked, pressed = Recorder(), [], []
    recorder.on_question(asked.append)
    recorder.on_press(lambda: pressed.append(True))
    sent = listen(recorder, monkeypatch)
    speak(recorder, VOICE)
    (question,) = asked
    assert question.wav_16k.dtype == torch.float32 and np.array_equal(question.wav_16k, VOICE)
    assert (question.source, question.asked_at, recorder.question) == ("microphone", 1234.5, question)
    assert pressed == [True] and sent == [({"text": "", "hint": False}, [])]


def test_another_rate_is_resampled_and_long_silence_cut():
    recorder = Recorder()
    silence = np.zeros(2 * 48_000, np.float32)
    speak(recorder, np.concatenate([silence, soxr.resample(VOICE, 16_000, 48_000), silence]), rate=48_000)
    wav_16k = recorder.question.wav_16k.numpy()
    assert len(VOICE) / 16_000 - 0.3 < len(wav_16k) / 16_000 < len(VOICE) / 16_000 + 0.6
    match = np.correlate(wav_16k, VOICE[8_000:16_000], "valid")         # the words are those that were said
    where = int(match.argmax())
    assert np.corrcoef(wav_16k[where : where + 8_000], VOICE[8_000:16_000])[0, 1] > 0.99


@pytest.mark.parametrize("wave, sentence", [
    (np.zeros(16_000), "The recording is silent"),
    (np.ones(100), "The recording lasts 0.01 s"),
    (np.tile(VOICE, 20), "more than 30 s"),
    (np.full(16_000, np.nan), "NaN"),
    (0.1 * np.random.default_rng(0).standard_normal(32_000), "The recording holds no speech"),
])
def test_a_recording_that_is_not_a_question_becomes_a_quiet_hint(demo, monkeypatch, wave, sentence):
    sent = listen(demo.recorder, monkeypatch)
    speak(demo.recorder, wave)
    assert demo.history == [] and demo.recorder.question is None               # no turn begins
    error = demo.recorder.error
    assert sentence in error and error.endswith(".") and "\n" not in error
    assert sent == [({"text": error, "hint": True}, [])]
    speak(demo.recorder, VOICE)                                                 # the next one is answered
    assert len(demo.history) == 1 and demo.recorder.error == "" and sent[-1] == ({"text": "", "hint": False}, [])


def test_pieces_of_two_pages_do_not_mix_and_a_lost_piece_is_noticed(monkeypatch):
    recorder = Recorder()
    one = np.full(1600, 0.5, "<f4")
    one[::2] = -0.5
    page_says(recorder, one.tobytes(), kind="sound", take=1, seq=0, last=False, rate=16_000, released=0)
    page_says(recorder, one.tobytes(), kind="sound", take=2, seq=1, last=True, rate=16_000, released=0)
    assert recorder.question is None and recorder.error == ""
    sent = listen(recorder, monkeypatch)
    page_says(recorder, one.tobytes(), kind="sound", take=1, seq=2, last=True, rate=16_000, released=0)
    assert recorder.question is None and "lost" in recorder.error and sent[0][0]["hint"] is False


def test_a_file_is_read_as_from_the_disk():
    recorder, data = Recorder(), PACKAGED.read_bytes()
    for seq, (start, end) in enumerate([(0, 20_000), (20_000, None)]):
        page_says(recorder, data[start:end], kind="file", name="mine.wav", take=7, seq=seq, last=seq == 1, released=1.0)
    assert torch.equal(recorder.question.wav_16k, load_question(PACKAGED)) and recorder.question.source == "mine.wav"


@pytest.mark.parametrize("data, name", [(b"", "empty.wav"), (b"no sound", "notes.txt"), (b"no sound", "../../x.wav")])
def test_a_bad_file_is_one_sentence_with_its_own_name(data, name):
    with pytest.raises(ValueError) as caught:
        read_question(data, name)
    assert name in str(caught.value) and "tmp" not in str(caught.value) and "\n" not in str(caught.value)


def test_where_nobody_can_talk_the_packaged_recording_is_asked():
    recorder = Recorder()
    page_says(recorder, kind="refused", why="No microphone was found: plug one in, or ask from a file.")
    assert torch.equal(recorder.wav_16k(), load_question(PACKAGED)) and "microphone" in recorder.error
    assert repr(recorder) == "Recorder(16000 Hz)"


# --- talker -------------------------------------------------------------------------------------------------


def test_every_word_and_every_sample_is_sent_in_order(monkeypatch):
    talker = Talker()
    sent = listen(talker, monkeypatch)
    assert talker.play(script(), asked_at=99.0)
    kinds = [message["kind"] for message, _ in sent]
    assert kinds == ["begin", *["step"] * 5, "end"] and {message["turn"] for message, _ in sent} == {1}
    assert sent[0][0]["asked_at"] == 99.0 and sent[-1][0]["why"] == ""
    assert "".join(message["text"] for message, _ in sent[1:-1]) == "".join(WORDS)
    pcm = b"".join(buffer for _, buffers in sent for buffer in buffers)
    assert np.array_equal(np.frombuffer(pcm, "<i2"), to_int16(np.concatenate([sound(i) for i in (2, 3, 4)])))


def test_an_answer_that_was_cut_says_so(monkeypatch):
    talker = Talker()
    sent = listen(talker, monkeypatch)
    talker.play([Step(0, None, 0, "", np.zeros(7), sound(0), "length")])
    assert "too long" in sent[-1][0]["why"]


def test_the_stop_button_ends_the_models_work(monkeypatch):
    talker, closed = Talker(), []
    sent = listen(talker, monkeypatch)

    def steps():
        try:
            for step in script():
                yield step
                page_says(talker, kind="stopped", turn=talker.turn - 1, why="stop button", played_s=0.0)   # too old
                if step.index == 2:
                    page_says(talker, kind="stopped", turn=talker.turn, why="stop button", played_s=0.04)
        finally:
            closed.append(True)

    assert talker.play([]) and not talker.play(steps()) and closed == [True]
    assert [message["kind"] for message, _ in sent[2:]] == ["begin", "step", "step", "step", "end"]
    assert talker.reports == {1: {"why": "stop button", "played_s": 0.0}, 2: {"why": "stop button", "played_s": 0.04}}


def test_stop_from_python_silences_the_page(monkeypatch):
    talker, stopped = Talker(), threading.Event()
    sent = listen(talker, monkeypatch)

    def steps():
        yield from list(script())[:2]
        talker.stop()
        yield from script()

    assert not talker.play(steps(), stopped=stopped) and stopped.is_set()
    assert [message["kind"] for message, _ in sent] == ["begin", "step", "step", "stop", "end"]


def test_interrupting_the_cell_silences_the_page(monkeypatch):
    talker = Talker()
    sent = listen(talker, monkeypatch)

    def steps():
        yield from list(script())[:2]
        raise KeyboardInterrupt

    assert not talker.play(steps())
    assert [message["kind"] for message, _ in sent][-2:] == ["stop", "end"]


def test_a_failing_model_is_told_to_the_page(monkeypatch):
    talker = Talker()
    sent = listen(talker, monkeypatch)

    def steps():
        yield next(script())
        raise ValueError("The question fills 256 of 256 steps: no room to answer.")

    with pytest.raises(ValueError, match="no room"):
        talker.play(steps())
    assert sent[-1][0] == {"kind": "end", "turn": 1,
                           "why": "The model failed: The question fills 256 of 256 steps: no room to answer."}


def test_the_page_reports_what_it_measured():
    talker = Talker()
    talker.play(script())
    page_says(talker, kind="sounding", turn=1, ms={"heard": 50.0, "first_word": 60.0, "first_sound": 200.0})
    page_says(talker, kind="played", turn=1, samples=3 * FRAME_SAMPLES, chunks=3, underruns=0, gap_ms=0)
    page_says(talker, kind="played", turn=9, samples=1, chunks=1, underruns=0, gap_ms=0)
    assert talker.reports == {1: dict(heard_ms=50.0, first_word_ms=60.0, first_sound_ms=200.0,
                                      samples=3 * FRAME_SAMPLES, chunks=3, underruns=0, gap_ms=0)}


# --- both ---------------------------------------------------------------------------------------------------


def test_a_turn_without_a_page(demo):
    turn = demo.ask()
    assert demo.history == [turn] and repr(demo) == "LiveDemo(turns=1)"
    assert (turn.text, turn.heard, turn.reason, turn.page) == ("Hello you.", "who <b>am</b> I?", "end", {})
    assert torch.equal(turn.question.wav_16k, load_question(PACKAGED))
    assert np.array_equal(turn.wav_24k, np.concatenate([sound(i) for i in (2, 3, 4)]))
    stages = list(turn.stages_ms.items())
    assert [name for name, _ in stages] == ["heard", "first_word", "first_sound", "end"]
    assert [ms for _, ms in stages] == sorted(ms for _, ms in stages) and turn.first_audio_ms == stages[2][1]
    assert len(turn.trace) == turn.steps == 5 and turn.trace[-1][1:] == ("Hello you.", turn.audio_s)


def test_a_player_and_the_transcript_stay_in_the_notebook(demo):
    page = demo.ask()._repr_html_()
    assert "Hello you." in page and "who &lt;b&gt;am&lt;/b&gt; I?" in page
    sounds = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', page)
    lengths = [soundfile.info(io.BytesIO(base64.b64decode(data))).duration for data in sounds]
    assert len(lengths) == 2 and lengths[0] == pytest.approx(1.74, abs=0.15)
    assert "audio" not in player(np.zeros(0), 24_000)
    bundle = demo._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "when this notebook is run" in bundle["text/html"]


def test_the_next_question_ends_the_answer_before_it(demo):
    demo.assistant.gate.clear()                          # the first answer stands still after one step
    speak(demo.recorder, VOICE)
    first = demo.history[0]
    assert demo.assistant.began.wait(10)
    page_says(demo.recorder, kind="press")               # somebody talks over it
    assert first.stopped.is_set()
    demo.assistant.gate.set()
    speak(demo.recorder, VOICE)
    last = demo.ask(PACKAGED)
    assert first.reason == "stopped" and last.reason == "end"
    assert first.steps < last.steps == 5 and demo.assistant.closed >= 2
    assert [row[0] for row in demo.talker.earlier] == [1, 2, 3] and demo.talker.earlier[-1][2] == "Hello you."


def test_save_this_turn_writes_both_wavs(demo, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="No turn has a finished spoken answer"):
        demo.save()
    turn = demo.ask()
    sent = listen(demo.talker, monkeypatch)
    page_says(demo.talker, kind="save", turn=1)
    question, answer = (tmp_path / "turns" / f"turn-01-{part}.wav" for part in ("question", "answer"))
    assert sent[0][0]["text"] == f"Saved {question} and {answer.name}"
    assert np.array_equal(soundfile.read(question, dtype="int16")[0], to_int16(turn.question.wav_16k))
    pcm, rate = soundfile.read(answer, dtype="int16")
    assert rate == 24_000 and np.array_equal(pcm, to_int16(turn.wav_24k))
    assert demo.save() == (question, answer)
    demo.folder = answer                                 # a file where a folder should be
    page_says(demo.talker, kind="save", turn=1)
    assert "could not be written" in sent[-1][0]["text"]


def test_an_answer_that_is_still_being_made_is_not_saved(demo, tmp_path, monkeypatch):
    sent = listen(demo.talker, monkeypatch)
    demo.assistant.gate.clear()                          # the first answer stands still after one step
    speak(demo.recorder, VOICE)
    assert demo.assistant.began.wait(10)
    page_says(demo.talker, kind="save", turn=1)
    assert sent[-1][0] == {"kind": "saved", "text": "No turn has a finished spoken answer yet: ask "
                                                    "something, or wait for the end."}
    with pytest.raises(ValueError, match="The spoken answer of turn 1 is not finished"):
        demo.history[0].save(tmp_path / "turns")
    assert not (tmp_path / "turns").exists()
    demo.assistant.gate.set()
    demo.ask(PACKAGED)
    demo.assistant.gate.clear()
    demo.assistant.began.clear()
    speak(demo.recorder, VOICE)
    assert demo.assistant.began.wait(10)
    assert demo.save()[1].name == "turn-02-answer.wav"   # the last finished one
    demo.assistant.gate.set()


def test_what_cannot_be_asked_is_refused_at_once(demo):
    with pytest.raises(ValueError, match="The question is silent"):
        demo.ask(torch.zeros(16_000))
    with pytest.raises(FileNotFoundError, match="no audio file"):
        demo.ask("nowhere.wav")
    assert demo.history == []


def test_a_failing_turn_does_not_end_the_demo(demo, monkeypatch):
    monkeypatch.setattr(demo.assistant, "hear", lambda wav_16k: (_ for _ in ()).throw(ValueError("No ears.")))
    with pytest.raises(ValueError, match="No ears"):
        demo.ask()
    monkeypatch.undo()
    assert demo.ask().text == "Hello you."


def test_the_pages_half_is_packaged_and_fetches_nothing():
    for name in ("recorder.js", "talker.js", "widgets.css"):
        text = (HERE / name).read_text()
        assert not re.search(r"https?://|^import ", text, re.M), name


# --- chat models --------------------------------------------------------------------------------------------


def test_a_chat_model_remembers_until_a_new_conversation(tmp_path, monkeypatch):
    model = Remembering()
    demo = LiveDemo(model, folder=tmp_path)
    sent = listen(demo.talker, monkeypatch)
    first, second = demo.ask(), demo.ask()
    assert [first.heard, second.text] == ["who am I?", "Hello you."] and len(model.turns) == 2
    assert demo.talker.remembers and [row[0] for row in demo.talker.earlier] == [1, 2]
    kinds = [message["kind"] for message, _ in sent]
    assert kinds.index("question") < kinds.index("step"), "the words are shown before the answer"
    page_says(demo.talker, kind="forget")
    third = demo.ask()
    assert model.turns == ["who am I?"] and [row[0] for row in demo.talker.earlier] == [third.number] == [3]
    demo.close()


def test_a_question_without_words_becomes_a_hint(tmp_path, monkeypatch):
    demo = LiveDemo(Remembering(), folder=tmp_path)
    sent = listen(demo.recorder, monkeypatch)
    turn = demo._answer(Question(torch.zeros(16_000))).result()
    assert turn.steps == 0 and turn.text == "" and sent == [({"text": "No words were heard.", "hint": True}, [])]
    assert demo.ask().text == "Hello you."
    demo.close()


def test_one_page_offers_several_models(tmp_path, monkeypatch):
    loaded = []

    def load(kind):
        loaded.append(kind)
        return kind()

    def broken():
        raise OSError("There is no such model.")

    demo = LiveDemo({"lite": lambda: load(Scripted), "chat": lambda: load(Remembering), "lost": broken}, tmp_path)
    assert loaded == [Scripted] and demo.children[0] is demo.choice and demo.ask().heard == "who <b>am</b> I?"
    demo.choose("chat")
    assert demo.ask().heard == "who am I?" and loaded == [Scripted, Remembering]
    demo.choice.value = "lite"
    assert demo.ask().heard == "who <b>am</b> I?" and loaded == [Scripted, Remembering] and not demo.talker.remembers
    sent = listen(demo.talker, monkeypatch)
    demo.choose("lost")
    assert demo.ask().text == "Hello you." and sent[0][0] == {"kind": "saved", "text": "There is no such model."}
    with pytest.raises(ValueError) as found:
        demo.choose("other")
    assert_one_sentence(found)
    demo.close()
