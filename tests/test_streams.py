"""The layout of the eight rows: delay, layer shift, prompts, targets and masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_lite.config import MINI_OMNI
from omni_lite.streams import (
    IGNORE,
    TASKS,
    Task,
    answer,
    collate,
    delay_streams,
    example,
    prompt,
    shift_audio,
    undelay_streams,
    unshift_audio,
)
from omni_lite.vocab import NUM_STREAMS, Vocab

SMALL = Vocab(text_base=50, codebook=20)
texts = st.lists(st.integers(0, 49), max_size=12)
lengths = st.integers(0, 6)


def draw_codes(T: int, seed: int = 0, codebook: int = 20) -> torch.Tensor:
    return torch.randint(0, codebook, (NUM_STREAMS, T), generator=torch.Generator().manual_seed(seed))


def question_of(task: Task, question: list[int], positions: int) -> dict:
    return {"positions": positions} if task.hears else {"question_text": question}


# --- delay and shift ------------------------------------------------------------------------------------


def test_delay_looks_like_the_picture():
    codes = torch.arange(14).view(1, 7, 2)
    rows = delay_streams(codes, pad_id=-1)[0].tolist()
    assert rows == [
        [-1, 0, 1, -1, -1, -1, -1, -1, -1],
        [-1, -1, 2, 3, -1, -1, -1, -1, -1],
        [-1, -1, -1, 4, 5, -1, -1, -1, -1],
        [-1, -1, -1, -1, 6, 7, -1, -1, -1],
        [-1, -1, -1, -1, -1, 8, 9, -1, -1],
        [-1, -1, -1, -1, -1, -1, 10, 11, -1],
        [-1, -1, -1, -1, -1, -1, -1, 12, 13],
    ]


@given(T=lengths, batch=st.lists(st.integers(1, 3), max_size=2), seed=st.integers(0, 99))
def test_undelay_inverts_delay(T, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 20, (*batch, NUM_STREAMS, T), generator=generator)
    assert torch.equal(undelay_streams(delay_streams(codes, SMALL.pad_a)), codes)


@given(T=lengths)
def test_every_token_is_predicted_after_the_streams_before_it(T):
    """Cell by cell: step s of stream q holds token s - q - 1."""
    codes = draw_codes(T)
    delayed = delay_streams(codes, SMALL.pad_a)
    for q in range(NUM_STREAMS):
        for s in range(T + NUM_STREAMS):
            t = s - q - 1
            assert delayed[q, s] == (codes[q, t] if 0 <= t < T else SMALL.pad_a)


@given(T=lengths, seed=st.integers(0, 99))
def test_unshift_inverts_shift_and_bands_do_not_overlap(T, seed):
    audio = draw_codes(T, seed, SMALL.audio_size)
    shifted = shift_audio(SMALL, audio)
    assert torch.equal(unshift_audio(SMALL, shifted), audio)
    for stream in range(NUM_STREAMS):
        for token, big in zip(audio[stream].tolist(), shifted[stream].tolist(), strict=True):
            assert big == SMALL.shift(token, stream)
            assert 114 + 84 * stream <= big < 114 + 84 * (stream + 1)  # 50 + 64 text ids, 20 + 64 a band


def test_the_release_has_these_very_ids():
    """Numbers as gpt-omni/mini-omni inference.py and litgpt/config.py yield them."""
    vocab = MINI_OMNI.vocab
    text = [151_936, 151_937, 151_938, 151_939, 151_940]
    assert [vocab.eot, vocab.pad_t, vocab.input_t, vocab.answer_t, vocab.asr] == text
    assert vocab.total_size == 181_120
    heard = prompt(vocab, "A1A2", positions=2)
    assert heard.text.tolist() == [151_938, 151_937, 151_937, 151_936, 151_939]
    shifted = shift_audio(vocab, heard.audio)
    assert shifted[0].tolist() == [156_098, 156_097, 156_097, 156_096, 156_099]
    assert shifted[6].tolist() == [181_058, 181_057, 181_057, 181_056, 181_059]
    assert shifted[:, 0].tolist() == [4098 + 152_000 + 4160 * i for i in range(7)]
    read = prompt(vocab, "T1A2", text=[5, 6])
    assert read.text.tolist() == [151_938, 5, 6, 151_936, 151_939]
    assert shift_audio(vocab, read.audio)[3].tolist() == [168_577] * 4 + [168_579]


# --- prompts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [0, 1, 5])
def test_prompts_follow_the_table_of_the_paper(positions):
    v, T = SMALL, positions
    text, heard, silent = [7] * T, [v.pad_a] * T, [v.pad_t] * T
    expected = {
        "A1A2": ([v.input_a, *heard, v.eoa, v.answer_a], [v.input_t, *silent, v.eot, v.answer_t]),
        "A1T2": ([v.input_a, *heard, v.eoa, v.pad_a], [v.input_t, *silent, v.eot, v.answer_t]),
        "A1T1": ([v.input_a, *heard, v.eoa, v.pad_a], [v.input_t, *silent, v.eot, v.asr]),
        "T1A2": ([*[v.pad_a] * (T + 2), v.answer_a], [v.input_t, *text, v.eot, v.answer_t]),
        "T1T2": ([v.pad_a] * (T + 3), [v.input_t, *text, v.eot, v.answer_t]),
    }
    assert set(expected) == set(TASKS)
    for task, (audio_row, text_row) in expected.items():
        rows = prompt(v, task, positions=T) if task[0] == "A" else prompt(v, task, text=text)
        assert rows.text.tolist() == text_row, task
        assert rows.audio.tolist() == [audio_row] * 7, task
        assert len(rows) == T + 3


def test_rows_of_a_prompt_are_separate_memory():
    rows = prompt(SMALL, "A1A2", positions=1)
    rows.audio[0] = 0
    assert int(rows.audio[1, 0]) == SMALL.input_a


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: prompt(SMALL, "A1A2", text=[1]), "A1A2 hears its question"),
        (lambda: prompt(SMALL, "T1T2", positions=3), "T1T2 reads its question"),
        (lambda: prompt(SMALL, "A3", positions=3), "'A3' is not a valid Task"),
        (lambda: prompt(SMALL, "T1T2", text=[SMALL.eot]), "text tokens must lie in 0..49"),
        (lambda: answer(SMALL, [1], torch.full((7, 2), 20)), "codec ids must lie in 0..19"),
        (lambda: example(SMALL, "A1A2", positions=1, answer_text=[1]), "A1A2 needs answer_codes"),
        (
            lambda: example(SMALL, "A1T2", positions=1, answer_text=[1], answer_codes=draw_codes(1)),
            "A1T2 takes no answer_codes",
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


# --- examples -------------------------------------------------------------------------------------------


def slow_example(v: Vocab, task: str, question: list, positions: int, text: list, codes: torch.Tensor | None):
    """The layout again, cell by cell from its definition: rows (8, L) and where loss falls (8, L)."""
    n = positions if task[0] == "A" else len(question)
    P = n + 3
    A = len(text) + 1 if codes is None else max(len(text) + 1, codes.shape[1] + 8)
    rows = [[0] * (P + A) for _ in range(8)]
    loss = [[False] * (P + A) for _ in range(8)]
    for step in range(P + A):
        a = step - P
        # text row
        if step == 0:
            cell = v.input_t
        elif step <= n:
            cell = v.pad_t if task[0] == "A" else question[step - 1]
        elif step == n + 1:
            cell = v.eot
        elif step == n + 2:
            cell = v.asr if task == "A1T1" else v.answer_t
        elif a < len(text):
            cell = text[a]
        else:
            cell = v.eot if a == len(text) else v.pad_t
        rows[7][step], loss[7][step] = cell, a >= 0
        # audio rows
        for i in range(7):
            f = a - i - 1
            cell = v.pad_a
            if task[0] == "A" and step == 0:
                cell = v.input_a
            elif task[0] == "A" and step == n + 1:
                cell = v.eoa
            elif codes is not None and step == n + 2:
                cell = v.answer_a
            elif codes is not None and a >= 0 and 0 <= f < codes.shape[1]:
                cell = int(codes[i, f])
            elif codes is not None and a >= 0 and f == codes.shape[1]:
                cell = v.eoa
            rows[i][step] = cell
            loss[i][step] = codes is not None and a >= 0 and f <= codes.shape[1]
    return rows, loss


@settings(max_examples=60, deadline=None)
@given(
    task=st.sampled_from(TASKS),
    question=texts,
    positions=lengths,
    text=texts,
    T=lengths,
    seed=st.integers(0, 99),
)
def test_examples_equal_the_cell_by_cell_definition(task, question, positions, text, T, seed):
    codes = draw_codes(T, seed) if task.speaks else None
    one = example(SMALL, task, **question_of(task, question, positions), answer_text=text, answer_codes=codes)
    rows, loss = slow_example(SMALL, task, question, positions, text, codes)
    inputs = [*one.audio_in.tolist(), one.text_in.tolist()]
    targets = [*one.audio_target.tolist(), one.text_target.tolist()]
    assert len(one) == len(rows[0]) - 1
    for r in range(8):
        assert inputs[r] == rows[r][:-1]
        wanted = [cell if learnt else IGNORE for cell, learnt in zip(rows[r], loss[r], strict=True)]
        assert targets[r] == wanted[1:]


@settings(max_examples=40, deadline=None)
@given(task=st.sampled_from(TASKS), question=texts, positions=lengths, text=texts, T=lengths)
def test_masks_cover_exactly_the_answer(task, question, positions, text, T):
    """Reading the targets that carry loss gives back the answer, nothing more and nothing less."""
    codes = draw_codes(T) if task.speaks else None
    one = example(SMALL, task, **question_of(task, question, positions), answer_text=text, answer_codes=codes)
    learnt = one.text_target[one.text_target != IGNORE].tolist()
    assert learnt[: len(text) + 1] == [*text, SMALL.eot]
    assert set(learnt[len(text) + 1 :]) <= {SMALL.pad_t}
    first = (positions if task.hears else len(question)) + 2                    # the prompt's last step
    assert (one.text_target[:first] == IGNORE).all() and (one.text_target[first:] != IGNORE).all()
    for i in range(NUM_STREAMS):
        row = one.audio_target[i]
        spoken = [] if codes is None else [*[SMALL.pad_a] * (i + 1), *codes[i].tolist(), SMALL.eoa]
        assert row[row != IGNORE].tolist() == spoken
        assert (row[:first] == IGNORE).all()


def test_targets_are_the_inputs_one_step_later():
    one = example(SMALL, "A1A2", positions=3, answer_text=[1, 2], answer_codes=draw_codes(4))
    for row, target in ((one.text_in, one.text_target), (one.audio_in, one.audio_target)):
        later, now = row[..., 1:], target[..., :-1]
        assert torch.equal(later[now != IGNORE], now[now != IGNORE])


def test_all_streams_have_room_to_end():
    """Text longer or shorter than the speech: eoa of stream 6 comes 7 + T steps into the answer."""
    for words in (1, 40):
        one = example(SMALL, "T1A2", question_text=[3], answer_text=[2] * words, answer_codes=draw_codes(5))
        assert (one.audio_target == SMALL.eoa).sum(dim=1).tolist() == [1] * 7
        assert len(one) == 4 + max(words + 1, 5 + 8) - 1


def test_collate_pads_on_the_right():
    ones = [
        example(SMALL, "A1A2", positions=2, answer_text=[1, 2], answer_codes=draw_codes(3)),
        example(SMALL, "T1T2", question_text=[4], answer_text=[5]),
    ]
    batch = collate(ones, SMALL)
    S = max(len(one) for one in ones)
    assert batch.text_in.shape == batch.text_target.shape == (2, S)
    assert batch.audio_in.shape == batch.audio_target.shape == (2, 7, S)
    assert batch.lengths.tolist() == [len(one) for one in ones]
    for b, one in enumerate(ones):
        for name in ("text_in", "audio_in", "text_target", "audio_target"):
            padding = {"text_in": SMALL.pad_t, "audio_in": SMALL.pad_a}.get(name, IGNORE)
            row = getattr(batch, name)[b]
            assert torch.equal(row[..., : len(one)], getattr(one, name)), name
            assert (row[..., len(one) :] == padding).all(), name
    assert batch.to("cpu").lengths.tolist() == batch.lengths.tolist()
