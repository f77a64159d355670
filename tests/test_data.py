"""The schema, the tokenizer, the feature store, and batches."""

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_lite import data
from omni_lite.data import FeatureStore, Item
from omni_lite.streams import Task
from omni_lite.vocab import Vocab

VOCAB = Vocab(text_base=50, codebook=16)


def flac(seconds: float, rate: int) -> bytes:
    buffer = io.BytesIO()
    t = np.arange(int(seconds * rate)) / rate
    soundfile.write(buffer, 0.3 * np.sin(2 * np.pi * 440 * t), rate, format="FLAC")
    return buffer.getvalue()


def write(path, **changes):
    row = dict(split_name="train", index=7, round=1, question="What is it?",
               question_audio=dict(bytes=flac(0.5, 22_050), path="x.flac"), answer="A cat.",
               answer_snac="# 1 2 3 4 5 6 7 # 8 9 10 11 12 13 14") | changes
    pq.write_table(pa.Table.from_pylist([row]), path)
    return path


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 6), st.integers(0, 2**31))
def test_codes_survive_the_text_column(frames, seed):
    codes = torch.randint(0, 4096, (7, frames), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(data.codes_from_text(data.codes_to_text(codes)), codes)


def test_a_row_of_voiceassistant_400k_is_read(tmp_path):
    (row,) = data.read_rows([write(tmp_path / "a.parquet")])
    assert (row.split, row.index, row.question, row.answer, row.skill) == ("train", 7, "What is it?", "A cat.", "")
    assert row.question_wav.shape == (8000,)                 # 0.5 s at 16 kHz, from 22.05 kHz
    assert row.codes.tolist() == [[1, 8], [2, 9], [3, 10], [4, 11], [5, 12], [6, 13], [7, 14]]


def test_sound_is_not_decoded_when_only_text_counts(tmp_path):
    path = write(tmp_path / "a.parquet", question_audio=dict(bytes=b"no sound", path=""))
    (row,) = data.read_rows([path], sound=False)
    assert row.question_wav is None


@pytest.mark.parametrize("make, sentence", [
    (lambda p: None, "There is no data file"),
    (lambda p: p.write_bytes(b"PAR1 but no more"), "Parquet file"),
    (lambda p: pq.write_table(pa.table({"question": ["a"]}), p), "has no column 'answer'"),
    (lambda p: write(p, answer_snac="# 1 2 3"), "a frame without 7 codes"),
])
def test_bad_files_get_their_sentence(tmp_path, make, sentence):
    path = tmp_path / "bad.parquet"
    make(path)
    with pytest.raises((ValueError, OSError), match=sentence) as error:
        data.read_rows([path])
    assert "bad.parquet" in str(error.value) and "\n" not in str(error.value)


def test_tokenizer_gives_back_every_text(tmp_path):
    tokenizer = data.train_tokenizer(["What is six plus eight?", "Six plus eight is fourteen."] * 5, 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = data.load_tokenizer(tmp_path)
    for text in ("Six plus eight is fourteen.", "Zürich, 12 °C: never seen!"):
        assert again.decode(again.encode(text).ids) == " " + text
    assert again.get_vocab_size() <= 300


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        data.load_tokenizer(tmp_path)


def test_feature_store_gives_back_what_was_stored(tmp_path):
    clips = [torch.randn(n, 4) for n in (3, 1, 5)]
    padded = torch.zeros(3, 5, 4)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    data.store_features(tmp_path / "f.f16", iter([(padded[:2], torch.tensor([3, 1])), (padded[2:], torch.tensor([5]))]))
    store = FeatureStore(tmp_path / "f.f16", 4)
    assert len(store) == 3 and [store.length(i) for i in range(3)] == [3, 1, 5]
    for i, clip in enumerate(clips):
        assert torch.equal(store[i], clip.half())


def test_a_feature_store_that_is_cut_off_leaves_nothing_that_looks_whole(tmp_path):
    """The features appear last: who sees them finds their offsets, too, and an older store stays whole."""
    path = tmp_path / "f.f16"

    def broken():
        yield torch.ones(1, 2, 4), torch.tensor([2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.store_features(path, broken())
    assert not list(tmp_path.iterdir())
    data.store_features(path, iter([(torch.ones(1, 3, 4), torch.tensor([3]))]))
    with pytest.raises(KeyboardInterrupt):
        data.store_features(path, broken())
    store = FeatureStore(path, 4)
    assert len(store) == 1 and store.length(0) == 3 and store[0].sum() == 12


def test_batches_are_even_and_lose_nothing(tmp_path):
    lengths = [8, 12, 30]
    data.store_features(tmp_path / "f.f16", ((torch.full((1, n, 4), float(n)), torch.tensor([n])) for n in lengths))
    store = FeatureStore(tmp_path / "f.f16", 4)

    def draw():
        dice = random.Random(0)
        while True:
            if dice.random() < 0.5:
                yield Item(Task.T1T2, (1,) * dice.randint(1, 9), (2,) * dice.randint(1, 9))
            else:
                codes = torch.zeros(7, dice.randint(1, 6), dtype=torch.long)
                yield Item(Task.A1A2, (), (3, 4), dice.randrange(3), codes)

    random.seed(0)
    stream = data.batches(draw(), VOCAB, 4, store, 120)
    for _ in range(30):
        heard = next(stream)
        B, S = heard.batch.text_in.shape
        assert B * S <= 120
        if heard.features is None:
            continue
        for row, length in enumerate(heard.lengths.tolist()):
            assert (heard.features[row, :length] == length).all() and (heard.features[row, length:] == 0).all()
            hears = heard.batch.audio_in[row, 0, 0] == VOCAB.input_a
            assert bool(hears) == (length > 0)
