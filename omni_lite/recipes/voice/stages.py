"""The voice's recipe: its stages in order, from texts to weights (docs/recipe.md).

    texts          sentences of WordNet, numbers, names.
    answers        what SmolLM2 itself says.
    waves          4.4 hours of the teacher's speech, for the codec.
    codec          all of it, then `codec_decoder` the decoder alone.
    speech         codes and phoneme borders of all texts.
    voice          the voice, then weights/ with the codec beside it
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from omni_lite.audio import atomic_write
from omni_lite.folder import fill
from omni_lite.litesnac import LiteSNAC
from omni_lite.load import load_codec
from omni_lite.recipes.lite.codec import CodecPlan, train_codec
from omni_lite.recipes.progress import Place, Recipe, Stage
from omni_lite.recipes.voice import answers, speech, texts, wordnet
from omni_lite.recipes.voice.teacher import alphabet
from omni_lite.recipes.voice.train import VoicePlan, train_voice
from omni_lite.voice.folder import save_mouth
from omni_lite.voice.model import Voice, VoiceConfig

SHARES = texts.Shares()
QUESTIONS = 6_000                            # that SmolLM2 answers: about 30 hours
CODEC_TEXTS = 6_000                          # 4.4 hours
# One run for everything that codes mean, then the decoder alone on whole codes. Quantizer dropout moves the words to
# the coarse codes, wrong codes stand for the voice's errors.
CODEC_PLANS = (
    CodecPlan("codec", 8000, peak=2e-3, dropout=(0.1, 0.2, 0.7), wrong=(0.0, 0.02, 0.06)),
    CodecPlan("codec_decoder", 3000, peak=7e-4, reseed_until=0.0, trains=("decoder",), starts=0.15,
              wrong=(0.0, 0.02, 0.04)),
)
VOICE = VoicePlan()


def voice_recipe(data: Path, run: Path, device: str = "cpu") -> Recipe:
    """All stages; data: for the downloaded archive, run: for everything that is made."""
    stages = (
        Stage("texts", make_texts, plan=dict(shares=SHARES, wordnet=wordnet.SHA256)),
        Stage("answers", make_answers, plan=dict(questions=QUESTIONS, wordnet=wordnet.SHA256)),
        Stage("waves", make_waves, plan=dict(texts=CODEC_TEXTS), needs=("texts",)),
        *(Stage(plan.name, partial(make_codec, plan=plan), plan=plan, needs=("waves", *before))
          for plan, before in zip(CODEC_PLANS, ((), ("codec",)), strict=True)),
        Stage("speech", make_speech, needs=("texts", "answers", "codec")),
        Stage("voice", make_voice, plan=VOICE, needs=("speech", "codec_decoder")),
    )
    return Recipe("voice", stages, data, run, run / "weights", device)


def make_texts(place: Place) -> Sequence[Path]:
    """texts.txt: one text a line."""
    drawn = texts.draw_texts(wordnet.synsets(wordnet.fetch(place.data)), SHARES)
    target = place.run / "texts.txt"
    with atomic_write(target) as temporary:
        temporary.write_text("\n".join(text for _, text in drawn) + "\n", encoding="utf-8")
    return [target]


def make_answers(place: Place) -> Sequence[Path]:
    """answers.txt: what SmolLM2 says, one text a line."""
    questions = answers.draw_questions(list(wordnet.synsets(wordnet.fetch(place.data))), QUESTIONS)
    target = place.run / "answers.txt"
    answers.write_answers(questions, place.work, target, place.say)
    return [target]


def read_texts(place: Place, name: str = "texts.txt") -> list[str]:
    """What `make_texts` or `make_answers` wrote."""
    return (place.run / name).read_text(encoding="utf-8").splitlines()


def make_waves(place: Place) -> Sequence[Path]:
    """waves.npz: speech for the codec."""
    target = place.run / "waves.npz"
    hours = speech.write_waves(read_texts(place)[:CODEC_TEXTS], target)
    place.say(f"waves  {hours:.2f} h")
    return [target]


def make_codec(place: Place, plan: CodecPlan) -> Sequence[Path]:
    """weights/codec.safetensors after the plan."""
    torch.manual_seed(0)
    codec = LiteSNAC(speech.CODEC).to(place.device)
    if plan is not CODEC_PLANS[0]:
        fill(codec, place.run / f"{CODEC_PLANS[0].name}" / "codec.safetensors")
    with np.load(place.run / "waves.npz") as found:
        waves = np.split(found["waves"], np.cumsum(found["lengths"])[:-1])
    train_codec(codec, [torch.from_numpy(wave) for wave in waves], place.work, plan, place.say)
    target = place.run / plan.name / "codec.safetensors"
    tensors = {name: value.contiguous().cpu() for name, value in codec.state_dict().items()}
    with atomic_write(target) as temporary:
        save_file(tensors, temporary)
    return [target]


def make_speech(place: Place) -> Sequence[Path]:
    """speech/*.npz: codes and pointers of all texts; answers.txt has the first numbers."""
    both = read_texts(place, "answers.txt") + read_texts(place)
    return speech.write_codes(both, place.run / "speech", place.run / CODEC_PLANS[0].name, place.say)


def make_voice(place: Place) -> Sequence[Path]:
    """weights/: the trained voice with its codec."""
    torch.manual_seed(0)
    voice = Voice(VoiceConfig("".join(alphabet()), codebook=speech.CODEC.codebook)).to(place.device)
    utterances = speech.read_shards(sorted((place.run / "speech").glob("*.npz")))
    train_voice(voice, utterances, VOICE, place.work, place.say)
    return save_mouth(place.out, voice, load_codec(speech.CODEC, place.run / CODEC_PLANS[1].name), speech.CODEC)
