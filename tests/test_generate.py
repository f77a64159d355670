"""The talking loop against a slow reference, with a tiny random model and a codec that complains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from omni_lite import generate as room
from omni_lite.config import CodecConfig, EarConfig, OmniConfig
from omni_lite.generate import Delay, Logits, Sampling, Step, Writer, choose, generate, sample
from omni_lite.model import OmniModel
from omni_lite.streams import TASKS, Task, delay_streams, prompt, undelay_streams
from omni_lite.vocab import NUM_STREAMS, Vocab

CONFIG = OmniConfig(
    name="tiny",
    vocab=Vocab(text_base=30, codebook=12),
    ear=EarConfig(whisper="tiny.en", width=16, stack=4, adapter="linear", hidden=0),
    codec=CodecConfig(kind="lite", codebook=12),
    trunk={
        "model_type": "qwen2",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
    },
    tts_blocks=1,
    tts_reads_text=True,
)
V = CONFIG.vocab
FEATURES = torch.randn(1, 10, 16, generator=torch.Generator().manual_seed(5))
QUESTION = [3, 1, 4, 1, 5]
WARM = Sampling(text_temperature=1.0, audio_temperature=1.0)


class FakeStream:
    """Four samples a frame that tell its seven ids; one frame of delay, so that flush has work to do."""

    def __init__(self, codec: "FakeCodec") -> None:
        self.codec, self.held = codec, torch.zeros(1, 1, 0)

    def push(self, codes: torch.Tensor) -> torch.Tensor:
        assert codes.shape[:2] == (1, NUM_STREAMS) and codes.dtype == torch.int64
        assert codes.numel() and codes.min() >= 0 and codes.max() < V.codebook, "special id in the codec"
        self.codec.pushed.append(codes)
        sound = torch.cat([self.held, self.codec.decode(codes)], dim=2)
        self.held = sound[..., -4:]
        return sound[..., :-4]

    def flush(self) -> torch.Tensor:
        self.codec.flushed += 1
        return self.held


class FakeCodec:
    def __init__(self) -> None:
        self.pushed: list[torch.Tensor] = []
        self.flushed = 0

    def stream(self) -> FakeStream:
        return FakeStream(self)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        weights = 0.01 * torch.arange(1, 8)[:, None] ** torch.arange(4.0)       # (7, 4)
        return torch.einsum("bqt,qs->bts", codes.float(), weights).reshape(1, 1, -1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """The fake codec's frames have 4 samples: let them pass."""
    monkeypatch.setattr(room, "SHORTEST_CHUNK", 2)


def make(tts_blocks: int = 1, seed: int = 0, eoa: float = -5.0, eot: float = 0.0, scale: float = 0.6):
    """A random OmniModel with lively logits; `eoa` and `eot` set how soon it ends."""
    torch.manual_seed(seed)
    model = OmniModel(replace(CONFIG, tts_blocks=tts_blocks, text_bias=True)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=scale if "embed" in name or "head" in name else 0.4)
        model.text_head["bias"].zero_()
        model.text_head["bias"][V.eot] = eot
    heads = model.audio_head

    def biased(spoken: torch.Tensor) -> torch.Tensor:
        logits = heads(spoken).clone()
        logits[..., 0, V.eoa] += eoa
        return logits

    model.audio_head = biased
    return model


def asked(task: Task | str) -> dict:
    return {"task": task, "features": FEATURES} if Task(task).hears else {"task": task, "text": QUESTION}


def codes_of(steps: list[Step]) -> torch.Tensor:
    """(1, 7, T) of a finished answer, from its delayed rows; the step that ends stream 0 tells T."""
    rows = torch.from_numpy(np.stack([step.tokens for step in steps], axis=1))  # (7, S)
    ends = (rows[0] == V.eoa).nonzero()
    T = int(ends[0]) - 1
    return undelay_streams(rows)[None, :, :T] if T else torch.zeros(1, 7, 0, dtype=torch.int64)


def sound_of(steps: list[Step]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *[step.pcm for step in steps if step.pcm is not None]])


# --- the loop -------------------------------------------------------------------------------------------


@torch.inference_mode()
def slow_answer(model: OmniModel, task: str, batch_parallel: bool, limit: int, guidance: float = 1.0
                ) -> tuple[list, list]:
    """The definition: every step runs whole sequences from scratch, one per row, without any cache.

    Returns the delayed audio rows (steps, 7) and the text row (steps,).
    """
    twin = {"A1A2": "A1T2", "T1A2": "T1T2"}[task]
    said: list[list[int]] = []
    text_row: list[int] = []
    T = None
    while True:
        logits = []
        for row_task in (task, twin) if batch_parallel else (task,):
            if task == "A1A2":
                rows, features = prompt(V, row_task, positions=3), FEATURES
            else:
                rows, features = prompt(V, row_task, text=QUESTION), None
            text, audio = rows.text.tolist(), rows.audio.tolist()
            for tokens, word in zip(said, text_row, strict=True):
                text.append(word)
                for i in range(7):
                    audio[i].append(tokens[i] if row_task == task else V.pad_a)
            logits.append(list(model(torch.tensor([text]), torch.tensor([audio]), features)))
            if guidance != 1:
                hidden = model.run(model.embed(torch.tensor([text]), torch.tensor([audio]), features))
                silence = torch.full((1, len(text)), V.pad_t)
                unconditional = model.audio_logits(hidden, text_ids=silence)
                logits[-1][1] = unconditional + guidance * (logits[-1][1] - unconditional)
        text_logits, audio_logits = logits[-1][0][0, -1], logits[0][1][0, :, -1]
        word = V.pad_t if V.eot in text_row else int(text_logits[: V.eot + 1].argmax())
        step, tokens = len(said), []
        for i in range(7):
            frame = step - i - 1
            if frame < 0 or (T is not None and frame > T):
                tokens.append(V.pad_a)
            elif frame == T or (i == 0 and frame == limit):
                tokens.append(V.eoa)
            else:
                tokens.append(int(audio_logits[i, : V.eoa + (i == 0)].argmax()))
            if i == 0 and T is None and tokens[0] == V.eoa:
                T = frame
        said.append(tokens)
        text_row.append(word)
        if T is not None and (T == 0 or step == T + 6):
            return said, text_row


@pytest.mark.parametrize("tts_blocks, guidance", [(0, 1.0), (2, 1.0), (2, 1.7)])
@pytest.mark.parametrize("batch_parallel", [True, False])
@pytest.mark.parametrize("task", ["A1A2", "T1A2"])
def test_equals_the_slow_reference(task, batch_parallel, tts_blocks, guidance):
    """With several random models, some of which end their text or their speech early."""
    endings = set()
    for seed in range(2):
        for eoa, eot in ((-100.0, 4.0), (3.0, 5.0), (5.0, -100.0), (7.0, 3.0)):
            model = make(tts_blocks, seed, eoa, eot)
            how = Sampling(guidance=guidance)
            steps = list(generate(model, None, **asked(task), batch_parallel=batch_parallel, limit=12, sampling=how))
            said, text_row = slow_answer(model, task, batch_parallel, 12, guidance)
            assert [step.tokens.tolist() for step in steps] == said
            written = text_row[: text_row.index(V.eot)] if V.eot in text_row else text_row
            assert [step.text_token for step in steps if step.text_token is not None] == written
            endings.add((steps[-1].reason, V.eot in text_row))
    assert len(endings) >= 2, "these random models end too much alike"


def test_guidance_changes_nothing_where_the_voice_cannot_read():
    """The released form has no text table to lead away from."""
    model = make(0)
    plain, guided = (list(generate(model, None, **asked("A1A2"), limit=6, sampling=Sampling(guidance=scale)))
                     for scale in (1.0, 3.0))
    assert [step.tokens.tolist() for step in plain] == [step.tokens.tolist() for step in guided]


@pytest.mark.parametrize("task", ["A1T2", "A1T1", "T1T2"])
def test_written_answers_equal_the_slow_reference(task):
    for seed in range(3):
        model = make(seed=seed, eot=1.0)
        steps = list(generate(model, FakeCodec(), **asked(task), limit=15))
        question = prompt(V, task, positions=3) if task[0] == "A" else prompt(V, task, text=QUESTION)
        words: list[int] = []
        while len(words) < 15 and V.eot not in words:
            text = torch.cat([question.text, torch.tensor(words, dtype=torch.int64)])
            audio = torch.cat([question.audio, torch.full((7, len(words)), V.pad_a)], dim=1)
            with torch.inference_mode():
                logits, _ = model(text[None], audio[None], FEATURES if task[0] == "A" else None)
            words.append(int(logits[0, -1, : V.eot + 1].argmax()))
        assert [step.text_token for step in steps] == [None if word == V.eot else word for word in words]
        assert steps[-1].reason == ("end" if words[-1] == V.eot else "length")
        assert all(step.tokens is None and step.pcm is None for step in steps)


def spy(model: OmniModel) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Note the ids of every `embed`, so that what was fed can be asserted."""
    fed: list[tuple[torch.Tensor, torch.Tensor]] = []
    embed = model.embed

    def noted(text_ids, audio_ids, *rest):
        fed.append((text_ids, audio_ids))
        return embed(text_ids, audio_ids, *rest)

    model.embed = noted
    return fed


def test_text_is_fed_to_both_rows_and_audio_to_the_first():
    model = make()
    heads, drawn = model.text_logits, []

    def four_words(hidden: torch.Tensor) -> torch.Tensor:
        drawn.append(1)
        logits = heads(hidden).clone()
        logits[V.eot] = 100 if len(drawn) == 5 else -100
        return logits

    model.text_logits = four_words
    fed = spy(model)
    steps = list(generate(model, None, **asked("A1A2"), limit=20))
    written = [step.text_token for step in steps if step.text_token is not None]
    assert len(written) == 4 and len(drawn) == 5 and len(steps) > 10
    fed = fed[2:]                                                  # after the prompt and its twin
    assert len(fed) == len(steps) - 1
    for s, (text, audio) in enumerate(fed):
        rows = 2 if s < len(written) else 1                        # row 1 leaves once all is written
        word = written[s] if s < len(written) else V.eot if s == len(written) else V.pad_t
        assert text.tolist() == [[word]] * rows
        assert audio[0, :, 0].tolist() == steps[s].tokens.tolist()
        if rows == 2:
            assert audio[1, :, 0].tolist() == [V.pad_a] * 7


def test_the_question_is_run_once_for_both_rows():
    model = make()
    shapes = []
    model.trunk.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(kwargs["inputs_embeds"].shape), with_kwargs=True
    )
    generator = generate(model, None, **asked("A1A2"))
    next(generator), next(generator)
    assert [tuple(shape) for shape in shapes] == [(1, 5, 32), (2, 1, 32), (2, 1, 32)]


@pytest.mark.parametrize("chunk_frames", [1, 3, 100])
@pytest.mark.parametrize("eoa", [-9.0, 2.0])
def test_streamed_sound_equals_the_whole_and_no_special_id_reaches_the_codec(chunk_frames, eoa):
    codec = FakeCodec()
    for seed in range(4):
        steps = list(
            generate(make(seed=seed, eoa=eoa), codec, **asked("A1A2"), sampling=WARM, seed=seed, limit=11,
                     chunk_frames=chunk_frames)
        )
        codes = codes_of(steps)
        T = codes.shape[2]
        assert len(steps) == (T + 7 if T else 2)
        sound = sound_of(steps)
        assert sound.dtype == np.float32 and sound.shape == (4 * T,)
        np.testing.assert_allclose(sound, codec.decode(codes)[0, 0].numpy(), rtol=1e-6)
        first = next((step.index for step in steps if step.pcm is not None), None)
        assert T == 0 or first == min(max(8, 6 + chunk_frames), T + 6)  # the fake holds one frame back
    assert all(codes.shape[2] <= chunk_frames for codes in codec.pushed)


def test_a_chunk_too_short_to_play_waits_for_the_next(monkeypatch):
    monkeypatch.setattr(room, "SHORTEST_CHUNK", 9)
    codec = FakeCodec()
    steps = list(generate(make(eoa=-9.0), codec, **asked("A1A2"), limit=8))
    chunks = [step.pcm for step in steps if step.pcm is not None]
    assert all(len(chunk) >= 9 for chunk in chunks[:-1])
    np.testing.assert_allclose(sound_of(steps), codec.decode(codes_of(steps))[0, 0].numpy(), rtol=1e-6)


def test_ends_on_eoa_even_at_once():
    codec = FakeCodec()
    steps = list(generate(make(eoa=100.0), codec, **asked("A1A2")))
    assert [step.reason for step in steps] == [None, "end"]
    assert steps[1].tokens.tolist() == [V.eoa] + [V.pad_a] * 6
    assert codec.pushed == [] and sound_of(steps).size == 0


@pytest.mark.parametrize("limit", [1, 6, 9])
def test_ends_at_the_limit(limit):
    codec = FakeCodec()
    steps = list(generate(make(eoa=-100.0), codec, **asked("T1A2"), limit=limit))
    assert len(steps) == limit + 7 and [step.reason for step in steps] == [None] * (limit + 6) + ["length"]
    assert codes_of(steps).shape == (1, 7, limit) and sound_of(steps).size == 4 * limit
    assert not steps[-2].done and steps[-1].done


@pytest.mark.parametrize("task", TASKS)
def test_never_runs_beyond_the_positions_of_the_trunk(task):
    model = make(eoa=-100.0, eot=-100.0)
    seen = []
    model.trunk.register_forward_hook(lambda _, args, out: seen.append(out.past_key_values.get_seq_length()))
    steps = list(generate(model, None, **asked(task), limit=10_000))
    assert steps[-1].reason == "length" and seen[-1] == 96
    with pytest.raises(ValueError, match="no room to answer"):
        next(generate(model, None, task="T1A2", text=[1] * 90))
    with pytest.raises(ValueError, match="limit must leave room"):
        next(generate(model, None, task="T1A2", text=[1], limit=0))


def test_closing_stops_the_model():
    model = make(eoa=-100.0)
    calls = []
    model.trunk.register_forward_hook(lambda *_: calls.append(1))
    codec = FakeCodec()
    generator = generate(model, codec, **asked("A1A2"))
    for _ in range(9):
        step = next(generator)
    assert not step.done
    before = len(calls)
    generator.close()
    assert list(generator) == [] and len(calls) == before and codec.flushed == 0
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_seed_decides_everything():
    model = make(scale=0.2)

    def run(seed: int) -> list:
        state = torch.get_rng_state()
        steps = list(generate(model, None, **asked("A1A2"), sampling=WARM, seed=seed, limit=12))
        assert torch.equal(torch.get_rng_state(), state), "the global generator was touched"
        return [(step.text_token, step.tokens.tolist()) for step in steps]

    assert run(1) == run(1) != run(2)


def test_delay_places_what_streams_delays():
    """Feeding a known answer through the speaking side gives the rows that training saw."""
    codes = torch.randint(0, V.codebook, (7, 5))
    ended = torch.cat([codes, torch.full((7, 1), V.eoa)], dim=1)
    delay, frames = Delay(V, limit=99), []
    for step in range(12):
        drawn = [int(ended[i, min(max(step - i - 1, 0), 5)]) for i in range(7)]
        assert not delay.done
        delay.place(drawn)
        frames.append(delay.frame())
    assert delay.done and not delay.cut
    assert torch.equal(torch.tensor(delay.said).T, delay_streams(ended, V.pad_a)[:, :12])
    assert frames[:7] == [None] * 7 and frames[7:] == codes.T.tolist()


# --- text and sampling ----------------------------------------------------------------------------------


def test_text_comes_in_pieces_and_waits_for_whole_characters():
    raw = "né!".encode()
    writer = Writer(lambda tokens: bytes(tokens).decode(errors="replace"))
    pieces = [writer.add(byte, last=False) for byte in raw] + [writer.add(None, last=False)]
    assert pieces == ["n", "", "é", "!", ""]
    cut = Writer(lambda tokens: bytes(tokens).decode(errors="replace"))
    assert [cut.add(raw[0], False), cut.add(raw[1], True)] == ["n", "\ufffd"]
    decode_text = lambda ids: "".join(f"<{i}>" for i in ids)  # noqa: E731
    steps = list(generate(make(), None, **asked("A1A2"), limit=5, decode_text=decode_text))
    written = [step.text_token for step in steps if step.text_token is not None]
    assert "".join(step.text for step in steps) == "".join(f"<{i}>" for i in written)


def test_only_ids_with_a_place_in_an_answer_are_chosen():
    text, audio = torch.zeros(V.text_size), torch.zeros(7, V.audio_size)
    text[V.eot + 1 :], audio[:, V.eoa + 1 :] = 50, 50
    audio[:, V.eoa] = 20
    words, tokens = choose(V, Logits(text, audio), Sampling())
    assert words <= V.eot and tokens[0] == V.eoa and max(tokens[1:]) < V.codebook
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        words, tokens = choose(V, Logits(text, audio), WARM, generator)
        assert words <= V.eot and tokens[0] <= V.eoa and max(tokens[1:]) < V.codebook
    assert choose(V, Logits(None, audio), Sampling())[0] == V.pad_t
    assert choose(V, Logits(text, None), Sampling())[1] == [V.pad_a] * 7


def test_sample_follows_the_distribution_and_its_cuts():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    many, generator = logits.expand(20_000, -1), torch.Generator().manual_seed(0)

    def shares(**how) -> list[float]:
        return (sample(many, generator=generator, **how).bincount(minlength=4) / 20_000).tolist()

    assert sample(logits).item() == 0
    assert shares(temperature=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)
    assert shares(temperature=1.0, top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.015)
    assert shares(temperature=1.0, top_p=0.81) == pytest.approx([0.526, 0.316, 0.158, 0], abs=0.015)
    assert shares(temperature=1.0, top_p=0.1) == [1, 0, 0, 0]
    assert shares(temperature=0.5) == pytest.approx([0.685, 0.247, 0.062, 0.007], abs=0.015)
    assert shares(temperature=1.0, top_k=1) == [1, 0, 0, 0]
    shuffled = logits[[2, 0, 3, 1]].expand(500, -1)
    assert set(sample(shuffled, 1.0, top_p=0.6, generator=generator).tolist()) == {1, 3}
