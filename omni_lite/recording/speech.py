"""Speech in a recording: find it, and cut the silence before and after it.

The lite model answers any sound, noise included, so a recording is checked before the model hears it.
The check is Silero VAD, a voice activity detector of 309,000 weights (MIT licence).
The wheel `silero-vad` carries the weights, so nothing is downloaded.

Importing `silero_vad` sets torch to one thread, and its own loop calls the network once every 32 ms.
This module therefore reads only the weights and computes all windows of a recording together.

Source: https://github.com/snakers4/silero-vad, release 6.2
"""

import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omni_lite.vocab import EAR_RATE

WINDOW = 512                                 # samples: Silero gives one probability every 32 ms
CONTEXT = 64                                 # samples of the window before, which Silero sees too
BINS = 129                                   # frequencies of its spectrum, 0 to 8 kHz
THRESHOLD = 0.75                             # from this probability on, a window counts as speech
LONGEST_GAP = round(0.3 * EAR_RATE)          # samples: a shorter pause lies inside one segment
SHORTEST_SPEECH = round(0.25 * EAR_RATE)     # samples: a knock on a door can pass for shorter speech
LOUDNESS = 0.1                               # RMS of the loudest 0.2 s, as the detector hears it
MARGIN = round(0.3 * EAR_RATE)               # samples kept on either side of the speech
LONGEST_LEAD = round(0.45 * EAR_RATE)        # samples: the lite model mishears words that begin later
LONGEST_TAIL = round(1.0 * EAR_RATE)         # samples: silence after the speech disturbs it less


class SileroVAD(nn.Module):
    """The probability of speech in every window of 32 ms.

    A short-time Fourier transform and four convolutions describe each window; an LSTM carries what came before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 2 * BINS, kernel_size=256, stride=128, bias=False)  # cosines, then sines
        self.encoder = nn.ModuleList([
            nn.Conv1d(BINS, 128, kernel_size=3, padding=1),
            nn.Conv1d(128, 64, kernel_size=3, stride=2, padding=1),
            nn.Conv1d(64, 64, kernel_size=3, stride=2, padding=1),
            nn.Conv1d(64, 128, kernel_size=3, padding=1),
        ])
        self.lstm = nn.LSTM(128, 128)
        self.out = nn.Conv1d(128, 1, kernel_size=1)

    def forward(self, wav_16k: Tensor) -> Tensor:
        """wav_16k: (N,) float32 -> (ceil(N / 512),) between 0 and 1; the last window is filled with silence."""
        windows = -(-len(wav_16k) // WINDOW)
        padded = F.pad(wav_16k, (CONTEXT, windows * WINDOW - len(wav_16k)))
        x = F.pad(padded.unfold(0, CONTEXT + WINDOW, WINDOW)[:, None], (0, CONTEXT), mode="reflect")  # (W, 1, 640)
        x = self.stft(x)                                                                              # (W, 258, 4)
        x = (x[:, :BINS].square() + x[:, BINS:].square()).sqrt()
        for convolution in self.encoder:
            x = convolution(x).relu()
        hidden, _ = self.lstm(x.squeeze(-1))                                                          # (W, 128)
        return self.out(hidden.relu().T).sigmoid().flatten()


@cache
def detector() -> SileroVAD:
    """Silero VAD with the weights of the installed wheel, ready to use; later calls return the same one."""
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The package silero-vad is missing: install it with `pip install silero-vad`.")
    path = Path(spec.submodule_search_locations[0]) / "data" / "silero_vad.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load; the wheel's safetensors are older weights
        loaded = torch.jit.load(path, map_location="cpu").state_dict()
    weights = [tensor for name, tensor in loaded.items() if name.startswith("_model.")]  # "_model_8k.": for 8 kHz
    with torch.inference_mode(False):        # weights made in inference mode could not be used outside it
        model = SileroVAD().eval().requires_grad_(False)
        model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    return model


def same_loudness(wav_16k: Tensor) -> Tensor:
    """Remove a constant offset and scale the loudest 0.2 s to an RMS of 0.1.

    A quiet voice is then as loud as any other. A click is short, so it does not set the scale.
    """
    centred = wav_16k - wav_16k.mean()
    size = min(EAR_RATE // 5, len(centred))
    rms = centred[: len(centred) // size * size].view(-1, size).square().mean(dim=1).sqrt()
    return centred * (LOUDNESS / rms.max().clamp(min=1e-9))


@torch.no_grad()
def speech_probability(wav_16k: Tensor) -> Tensor:
    """How probably somebody speaks, every 32 ms, at any loudness.

    The network hears the recording twice, and the higher of both probabilities counts. In the second pass its
    LSTM knows the voice already. On 1,120 clips two passes find the first word at most 0.26 s late. One pass
    is up to 1.0 s late, and cuts the beginning of 8 clips.

    wav_16k: (N,) float32, N > 0
    returns: (ceil(N / 512),) float32 on the CPU, between 0 and 1
    """
    wav = same_loudness(wav_16k.detach().cpu().float())
    wav = F.pad(wav, (0, -len(wav) % WINDOW))
    return detector()(torch.cat([wav, wav])).view(2, -1).amax(dim=0)


def speech_segments(wav_16k: Tensor) -> list[tuple[int, int]]:
    """Where somebody speaks: the first sample of each segment and the one after its last.

    A pause of less than 0.3 s lies inside a segment. A segment holds at least 0.25 s of speech.

    wav_16k: (N,) float32; returns an empty list where nobody speaks
    """
    if len(wav_16k) == 0:
        return []
    is_speech = F.pad(speech_probability(wav_16k) >= THRESHOLD, (1, 1)).int()
    edges = is_speech.diff().nonzero().flatten() * WINDOW    # a run begins, ends, the next begins, ...
    segments: list[tuple[int, int, int]] = []                # first sample, end, samples of speech between them
    for first, end in edges.clamp(max=len(wav_16k)).view(-1, 2).tolist():
        if segments and first - segments[-1][1] <= LONGEST_GAP:
            before = segments.pop()
            segments.append((before[0], end, before[2] + end - first))
        else:
            segments.append((first, end, end - first))
    return [(first, end) for first, end, speech in segments if speech >= SHORTEST_SPEECH]


def only_speech(wav_16k: Tensor, name: str) -> Tensor:
    """Cut long silence before and after the speech; raise a ValueError of one sentence where nobody speaks.

    More than 0.45 s before the speech or 1.0 s after it is cut to 0.3 s. A shorter silence stays as it is,
    so a recording without long silence comes back unchanged. Pauses inside the speech stay too.

    The limits are measured on 60 held-out questions of the lite model: with 0.3 s before the words its
    transcripts have a WER of 6 %, with 0.6 s 14 %. Up to 0.8 s after the words change nothing.

    wav_16k: (N,) float32
    name: what the message calls the recording, for example its file name
    """
    segments = speech_segments(wav_16k)
    if not segments:
        raise ValueError(
            f"{name} holds no speech: speak closer to the microphone, or choose another recording."
        )
    first, end = segments[0][0], segments[-1][1]
    start = first - MARGIN if first > LONGEST_LEAD else 0
    stop = end + MARGIN if len(wav_16k) - end > LONGEST_TAIL else len(wav_16k)
    return wav_16k[start:stop]
