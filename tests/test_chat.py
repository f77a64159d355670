"""Any chat model talks: the text is that of transformers' own generate, whatever the model."""

import json
import re
import shutil
import threading

import numpy as np
import pytest
import torch
import whisper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from omni_lite.chat import assistant as chat_assistant
from omni_lite.chat import talk as chat_talk
from omni_lite.chat.assistant import ChatAssistant
from omni_lite.chat.ears import Transcript, WordEars, load_word_ears
from omni_lite.chat.llm import ChatModel, load_chat_model
from omni_lite.cli import main
from omni_lite.config import CodecConfig
from omni_lite.folder import data_folder
from omni_lite.interop.baichuan import load_baichuan
from omni_lite.load import build_codec
from omni_lite.recording import load_question
from omni_lite.voice.folder import load_mouth, save_mouth
from omni_lite.voice.model import Voice, VoiceConfig
from omni_lite.voice.words import Reader
from tests import assert_one_sentence
from tests.test_baichuan import CARD_2, checkpoint, write

TEMPLATE = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
SIZES = dict(vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=400)
FEWER = dict(num_key_value_heads=2)
FAMILIES = dict(
    qwen2=lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, **FEWER)),
    qwen3=lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, **FEWER, head_dim=8)),
    llama=lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **FEWER)),
    mistral=lambda: MistralForCausalLM(MistralConfig(**SIZES, **FEWER, sliding_window=None)),
    sliding=lambda: MistralForCausalLM(MistralConfig(**SIZES, **FEWER, sliding_window=24)),
    gpt_neox=lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
)


def byte_tokenizer(template=TEMPLATE):
    """One token a byte, and the four marks of the chat."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = template
    return fast


def chat_model(family="llama", template=TEMPLATE, seed=0, **how):
    torch.manual_seed(seed)
    lm = FAMILIES[family]()
    lm.generation_config.eos_token_id = 256
    for parameter in lm.parameters():        # far from each other: no two tokens are equally likely
        parameter.data = 0.4 * torch.randn_like(parameter)
    return ChatModel(lm, byte_tokenizer(template), **how)


def own_text(chat, messages, limit):
    """What transformers' generate writes, without this project's code."""
    messages = [dict(role="system", content=chat.system), *messages]
    text = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = chat.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    out = chat.lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False)
    return chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_that_of_generate_over_several_turns(family):
    chat, messages = chat_model(family, system="Be brief."), []
    for question in ("What is it?", "Why?", "And then?"):
        messages.append(dict(role="user", content=question))
        pieces = list(chat.reply(messages, limit=20))
        assert "".join(pieces) == own_text(chat, messages, 20)
        messages.append(dict(role="assistant", content="".join(pieces)))


def test_baichuan_chats(tmp_path):
    lm = load_baichuan(write(tmp_path, CARD_2 | dict(vocab_size=260, max_position_embeddings=400), checkpoint(260)))
    chat = ChatModel(lm, byte_tokenizer(), system="Be brief.")
    messages = [dict(role="user", content="Hi")]
    assert "".join(chat.reply(messages, limit=8)) == own_text(chat, messages, 8)


def test_a_closed_answer_ends_the_work_and_the_next_one_is_right():
    chat = chat_model()
    messages = [dict(role="user", content="Tell me a story.")]
    before = threading.active_count()
    pieces = chat.reply(messages, limit=60)
    begun = next(pieces)
    assert threading.active_count() == before + 1
    pieces.close()
    assert threading.active_count() == before
    whole = "".join(chat.reply(messages, limit=60))
    assert whole.startswith(begun) and whole == own_text(chat, messages, 60)


def test_the_end_of_the_answer_ends_the_text():
    for seed in range(20):                   # some model writes the end by itself
        chat = chat_model(seed=seed)
        messages = [dict(role="user", content="Hello")]
        tokens = list(chat.tokens(chat.prompt(messages), 100))
        assert "".join(chat.reply(messages, limit=100)) == own_text(chat, messages, 100)
        if tokens[-1] == 256:
            return
    pytest.fail("no model wrote the end")


def test_a_template_without_system_messages_gets_the_instruction_in_the_first_turn():
    chat = chat_model(template=NO_SYSTEM, system="Be brief.")
    text = chat.tokenizer.decode(chat.prompt([dict(role="user", content="Hi")]))
    assert text == "<|user|>Be brief.\n\nHi<|end|><|assistant|>"


def test_old_turns_go_when_the_chat_is_full():
    chat = chat_model(system="Be brief.")
    turn = [dict(role="user", content="q" * 60), dict(role="assistant", content="a" * 60)]
    ids = chat.fitting([*turn * 5, dict(role="user", content="now")], limit=100)
    assert len(ids) <= 300
    text = chat.tokenizer.decode(ids)
    assert text.startswith("<|system|>Be brief.<|end|><|user|>q") and text.count("<|user|>") == 3
    with pytest.raises(ValueError) as found:
        chat.fitting([dict(role="user", content="q" * 400)], limit=100)
    assert_one_sentence(found)


def test_an_error_of_the_model_reaches_the_reader():
    chat = chat_model()
    before = threading.active_count()
    chat.lm.forward = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(chat.reply([dict(role="user", content="Hi")], limit=4))
    assert threading.active_count() == before


def test_a_model_without_a_template_or_a_name_gives_one_sentence(tmp_path):
    with pytest.raises(ValueError) as found:
        ChatModel(FAMILIES["llama"](), byte_tokenizer(template=None))
    assert_one_sentence(found)
    with pytest.raises(OSError) as lost:
        load_chat_model(str(tmp_path / "nothing"))
    assert_one_sentence(lost)


def test_a_chat_model_is_read_from_a_folder(tmp_path):
    chat = chat_model("qwen2")
    chat.lm.save_pretrained(tmp_path)
    chat.tokenizer.save_pretrained(tmp_path)
    other, messages = load_chat_model(str(tmp_path)), [dict(role="user", content="Hi")]
    assert list(other.reply(messages, limit=9)) == list(chat.reply(messages, limit=9))


# --- ears, voice, and the command line --------------------------------------------------------------------


SIZES_OF_VOICE = dict(codebook=16, width=32, blocks=1, heads=2, hidden=32, text_width=16, text_blocks=1, window=8)
PHONEMES = sorted(set("abcdefghijklmnopqrstuvwxyz .,!?"))


@pytest.fixture(scope="module")
def mouth_folder(tmp_path_factory):
    """A tiny untrained voice of letters."""
    torch.manual_seed(0)
    folder, kind = tmp_path_factory.mktemp("voice"), CodecConfig("lite", codebook=16, width=32, codebook_dim=4)
    save_mouth(folder, Voice(VoiceConfig("".join(PHONEMES), **SIZES_OF_VOICE)), build_codec(kind), kind)
    return folder


def letters():
    """A reader whose phonemes are letters."""
    return Reader(str.lower, lambda text: re.findall(r"[^.!?]+[.!?]*", text))


@pytest.fixture
def assistant(mouth_folder, monkeypatch):
    monkeypatch.setattr(chat_assistant, "reader", letters)

    class Ears:
        def hear(self, wav):
            return "what did i say" if len(wav) > 100 else ""

    return ChatAssistant(Ears(), chat_model(system="Be brief."), load_mouth(mouth_folder))


def test_an_answer_is_the_chat_models_text_with_its_sound(assistant):
    wanted = own_text(assistant.llm, [dict(role="user", content="hello")], chat_assistant.TOKENS)
    steps = list(assistant.ask("hello", seed=1))
    assert "".join(step.text for step in steps) == wanted
    assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [step.index for step in steps] == list(range(len(steps)))
    sound = np.concatenate([step.pcm for step in steps if step.pcm is not None])
    offline = assistant.mouth.codec.decode(frame_codes(steps))[0, 0].numpy()
    assert sound.shape == offline.shape and np.abs(sound - offline).max() < 1e-5
    again = list(assistant.ask("hello", seed=1))
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(steps, again, strict=True))


def frame_codes(steps):
    """The undelayed codes of an answer: (1, 7, T)."""
    T = len(steps) - 6
    return torch.tensor(np.array([[steps[t + i].tokens[i] for t in range(T)] for i in range(7)]))[None]


def test_turns_are_remembered_also_a_cut_one_and_forgotten_on_demand(assistant):
    first = assistant.answer("hello", "T1T2", remember=True, limit=6).text
    assert assistant.history == [dict(role="user", content="hello"), dict(role="assistant", content=first.strip())]
    cut = assistant.ask("more", "T1T2", remember=True, limit=30)
    begun = next(cut).text + next(cut).text
    cut.close()
    assert len(assistant.history) == 4 and assistant.history[3]["content"].startswith(begun.strip())
    wanted = own_text(assistant.llm, [*assistant.history, dict(role="user", content="and?")], 8)
    assert assistant.answer("and?", "T1T2", remember=True, limit=8).text == wanted
    assistant.new_conversation()
    assert assistant.answer("hello", "T1T2", limit=6).text == first and assistant.history == []


def test_the_transcript_and_the_limits(assistant):
    assert assistant.answer(torch.zeros(16_000), "A1T1").text == "what did i say"
    short = assistant.answer("hello", limit=9)
    assert short.steps == 9 and short.reason == "length" and len(short.wav_24k) == 3 * 2048
    assert assistant.answer("hello", "T1T2", limit=2).text == own_text(
        assistant.llm, [dict(role="user", content="hello")], 2)


def test_a_text_is_read_aloud_and_one_without_words_is_only_shown(assistant):
    aloud = assistant.answer("one two.", "T1A2")
    alone = ChatAssistant(None, None, assistant.mouth).answer("one two.", "T1A2")
    assert alone.text == "one two." and len(alone.wav_24k) and aloud.text != alone.text
    silent = ChatAssistant(None, None, assistant.mouth).answer("🙂", "T1A2")
    assert silent.text == "🙂" and not len(silent.wav_24k) and silent.reason == "end"
    with pytest.raises(ValueError) as found:
        ChatAssistant(None, None, None).answer("one", "T1A2")
    assert_one_sentence(found)


def test_whisper_hears_the_packaged_question_and_no_words_in_noise():
    ears = load_word_ears()
    question = load_question(data_folder() / "audio" / "question.wav")
    assert ears.hear(question).lower().rstrip("?.").split()[0] in ("what", "what's", "how", "is", "can", "which")
    for wav in (torch.zeros(16_000), 0.05 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))):
        with pytest.raises(ValueError) as found:
            ears.hear(wav)
        assert_one_sentence(found)
    assert not Transcript("...", 0.0).is_speech and not Transcript("Thanks.", 0.9).is_speech


def test_full_padding_gives_whispers_own_transcript():
    ears = load_word_ears()
    question = load_question(data_folder() / "audio" / "question.wav")
    whole = WordEars(ears.whisper, padding=30 * 16_000).transcribe(question)
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(question))
    wanted = whisper.decode(ears.whisper, mel, whisper.DecodingOptions(
        language="en", without_timestamps=True, fp16=False))
    assert whole.text == wanted.text.strip() and whole.no_speech == pytest.approx(wanted.no_speech_prob, abs=1e-3)


@pytest.fixture
def commands(mouth_folder, monkeypatch, tmp_path, capsys):
    """The command line in an empty folder, with a tiny chat model in the place of SmolLM2."""
    monkeypatch.setattr(chat_assistant, "reader", letters)
    monkeypatch.setattr(chat_talk, "load_chat_model", lambda name, device: chat_model(system="Be brief."))
    monkeypatch.setattr(chat_talk, "VOICE_FOLDER", mouth_folder)
    monkeypatch.chdir(tmp_path)
    shutil.copy(data_folder() / "audio" / "question.wav", tmp_path / "q.wav")

    def run(*args):
        status = main(["talk", *args, "--weights", str(mouth_folder)])
        return status, *capsys.readouterr()

    return run


def test_a_question_is_answered_aloud(commands):
    status, out, err = commands("q.wav", "--preset", "smollm2", "--json", "--limit", "20")
    record = json.loads(out)
    assert (status, err) == (0, "") and record["first_audio_ms"] > 0 and record["heard"]
    assert record["audio_s"] == pytest.approx((record["steps"] - 6) * 2048 / 24_000, abs=1e-3)
    status, out, _ = commands("q.wav", "--llm", "any/model", "--limit", "9")
    assert status == 0 and "loading the any/model model" in out and "first audio after" in out


def test_a_text_is_read_aloud_by_command(commands, tmp_path):
    status, out, _ = commands("One two three.", "--voice-only", "--out", "said.wav", "--limit", "40")
    assert status == 0 and "One two three." in out and (tmp_path / "said.wav").exists()


def test_without_a_voice_the_answer_is_written(commands, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(chat_talk, "VOICE_FOLDER", tmp_path)
    assert main(["talk", "q.wav", "--preset", "smollm2", "--json", "--limit", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["audio_path"] is None
    assert main(["talk", "hello", "--voice-only"]) == 1
    err = capsys.readouterr().err
    assert "make voice" in err and len(err.strip().splitlines()) == 1


def test_a_spoilt_voice_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"voice": {}}')
    with pytest.raises(ValueError) as found:
        load_mouth(tmp_path)
    assert_one_sentence(found)
