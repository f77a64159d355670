"""Time decoding steps at full size with random weights, compared with the release's code.

    python -m omni_lite bench                       # on this machine's CPU: a table and a JSON file
    python -m omni_lite bench --device cuda         # the same on a GPU
    python -m omni_lite bench --tiny                # a toy size, in seconds

It measures batch-parallel decoding of a spoken question with 150 prompt positions: the time of the prefill, and the
median and 95th percentile of 100 steps with their sampling. Every variant runs in its own process, so the peak memory
is its own. The floor of a step is the bytes of its weights over the measured memory bandwidth.

    release       the operations of gpt-omni/mini-omni, see `Release`
    readable      `generate.SlowDecoder`
    fp32 ...      `fast.FastDecoder` at a precision, after a slash its kernel
"""

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import snac
import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.model import AudioEncoder

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))                # the package need not be installed

from omni_lite.config import MINI_OMNI, CodecConfig, OmniConfig  # noqa: E402
from omni_lite.fast import FastDecoder, hears_in_bf16  # noqa: E402
from omni_lite.fast.decoder import random_weight  # noqa: E402
from omni_lite.generate import Decoder, Logits, Sampling, SlowDecoder, choose, generate  # noqa: E402
from omni_lite.hear import Ears  # noqa: E402
from omni_lite.interop.snac import SNAC_24KHZ, Snac  # noqa: E402
from omni_lite.interop.whisper import random_whisper  # noqa: E402
from omni_lite.load import build_codec  # noqa: E402
from omni_lite.model import OmniModel  # noqa: E402
from omni_lite.streams import Streams, Task, prompt  # noqa: E402
from omni_lite.talk import peak_rss_mb  # noqa: E402
from omni_lite.vocab import EAR_RATE, NUM_STREAMS, Vocab  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
CPU_VARIANTS = ("release", "readable", "fp32", "bf16", "int8", "int8/onednn")
GPU_VARIANTS = ("release", "readable", "fp32", "bf16")
PROMPT = 150                                 # positions of the question
QUESTION_SECONDS = 3                         # of the question for the time to first audio
MARKS = "<!-- bench -->", "<!-- /bench -->"          # around the tables of all machines
CODEC_FRAMES = 30                            # frames to time

TINY = replace(
    MINI_OMNI,
    name="tiny",
    vocab=Vocab(text_base=300, codebook=64),
    ear=replace(MINI_OMNI.ear, width=16, hidden=32),
    codec=CodecConfig(kind="snac", codebook=64),
    trunk=MINI_OMNI.trunk | dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2),
)


# --- Whisper and codec with random weights -----------------------------------------------------------------------


def parts(tiny: bool, device: str) -> tuple[Ears, Snac]:
    """Whisper-small's encoder and SNAC 24 kHz, or toys of the same classes."""
    if not tiny:
        codec = build_codec(MINI_OMNI.codec)
        assert isinstance(codec, Snac)
        return Ears(random_whisper("small"), whole_window=True).to(device), codec.to(device)
    sizes = SNAC_24KHZ | dict(encoder_dim=2, decoder_dim=32, codebook_size=TINY.codec.codebook)
    encoder = AudioEncoder(80, 1500, TINY.ear.width, 2, 1).eval()
    return Ears(encoder, whole_window=True).to(device), Snac(snac.SNAC(**sizes)).eval().to(device)


# --- the baseline -------------------------------------------------------------------------------------------


class Release:
    """A rewrite of the release's inference: the same operations in the same order and number, in fp32.

    Each question allocates a cache of 2048 positions for two batch rows, with keys and values expanded to all heads.
    Both batch rows run at all prompt positions. Every pass computes the logits of all 181,120 ids at all positions.
    Attention always covers 2048 positions through a mask. The eight tokens are sampled (top_k 1, temperature 0.9),
    copied to the host, and copied back one by one.

    Source: gpt-omni/mini-omni litgpt/model.py::GPT.forward, litgpt/generate/base.py::generate_TA_BATCH
    """

    def __init__(self, config: OmniConfig, device: str) -> None:
        self.vocab, self.device = config.vocab, device
        trunk = config.trunk
        D, M, self.L = trunk["hidden_size"], trunk["intermediate_size"], trunk["num_hidden_layers"]
        self.H, self.K, self.context = (
            trunk[name] for name in ("num_attention_heads", "num_key_value_heads", "max_position_embeddings"))
        self.d = D // self.H

        def drawn(*shape: int) -> Tensor:
            return random_weight(shape, torch.float32, device)

        self.table = drawn(config.vocab.total_size, D)                          # tied: embeddings and head
        width, hidden = config.ear.width, config.ear.hidden
        self.adapter = drawn(hidden, width), drawn(hidden, width), drawn(D, hidden)
        joint = (self.H + 2 * self.K) * self.d
        self.blocks = [
            dict(norm_1=drawn(D), qkv=drawn(joint, D), bias=drawn(joint),
                 out=drawn(D, D), norm_2=drawn(D), gate=drawn(M, D), up=drawn(M, D), down=drawn(D, M))
            for _ in range(self.L)
        ]
        self.norm = drawn(D)
        angles = torch.outer(torch.arange(self.context), trunk["rope_theta"] ** -(torch.arange(0, self.d, 2) / self.d))
        self.cos, self.sin = (turn(angles).repeat(1, 2).to(device) for turn in (torch.cos, torch.sin))
        self.step_bytes = 4 * sum(one.numel() for block in self.blocks for one in block.values() if one.dim() == 2)
        self.step_bytes += 4 * self.table.numel()

    def rms(self, x: Tensor, weight: Tensor) -> Tensor:
        """As in litgpt/model.py::RMSNorm."""
        return weight * (x.float() * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + 1e-6))

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """As in litgpt/model.py::apply_rope."""
        half = x.shape[-1] // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin

    def start(self) -> None:
        """As `set_kv_cache`, which the release calls before every question."""
        shape = (2, self.H, self.context, self.d)
        self.cache = [tuple(torch.zeros(shape, device=self.device) for _ in "kv") for _ in range(self.L)]
        self.mask = torch.ones(self.context, self.context, dtype=torch.bool, device=self.device).tril()[None, None]

    def forward(self, rows: list[Tensor], positions: Tensor, features: Tensor | None) -> Tensor:
        """Eight tensors (2, S) of shifted ids, (S,) positions, (2, T, D_ear) features -> (2, S, 181120)."""
        found = [F.embedding(row, self.table) for row in rows]
        if features is not None:
            gate, up, down = self.adapter
            heard = F.linear(F.silu(F.linear(features, gate)) * F.linear(features, up), down)
            for x in found[:NUM_STREAMS]:
                for b in range(2):
                    x[b, 1 : 1 + heard.shape[1]] = heard[b].clone()
        x = sum(found[1:], found[0]) / 8
        cos, sin = self.cos.index_select(0, positions), self.sin.index_select(0, positions)
        mask = self.mask.index_select(2, positions)
        B, S, D = x.shape
        H, K, G = self.H, self.K, self.H // self.K
        for block, (keys, values) in zip(self.blocks, self.cache, strict=True):
            qkv = F.linear(self.rms(x, block["norm_1"]), block["qkv"], block["bias"])
            qkv = qkv.view(B, S, K, G + 2, self.d).permute(0, 2, 3, 1, 4)
            q, k, v = qkv.split((G, 1, 1), dim=2)
            q, k, v = (one.expand(B, K, G, S, self.d).reshape(B, H, S, self.d) for one in (q, k, v))
            keys.index_copy_(2, positions, self.turn(k, cos, sin))
            values.index_copy_(2, positions, v)
            y = F.scaled_dot_product_attention(self.turn(q, cos, sin), keys, values, attn_mask=mask)
            x = F.linear(y.transpose(1, 2).reshape(B, S, D), block["out"]) + x
            y = self.rms(x, block["norm_2"])
            x = F.linear(F.silu(F.linear(y, block["gate"])) * F.linear(y, block["up"]), block["down"]) + x
        return F.linear(self.rms(x, self.norm), self.table)

    def draw_ids(self, logits: Tensor) -> list[int]:
        """Batch row 0's seven audio ids and batch row 1's text id, sampled and copied one by one."""
        V, A = self.vocab.text_size, self.vocab.audio_size
        found = [logits[:1, :, V + A * i : V + A * (i + 1)] for i in range(NUM_STREAMS)] + [logits[1:, :, :V]]
        ids = []
        for one in found:
            last = one[0, -1]
            top, index = torch.topk(last, 1)
            last = torch.full_like(last, -torch.inf).scatter_(-1, index, top) / 0.9
            ids.append(torch.multinomial(F.softmax(last, dim=-1), num_samples=1).to(torch.int32))
        bool(ids[6] == self.vocab.eoa), bool(ids[7] == self.vocab.eot)          # these tests wait for the device
        return [one.tolist()[0] for one in ids]

    def prefill(self, question: Streams, features: Tensor) -> list[int]:
        """Allocate a new cache, run both batch rows of the prompt, sample the first eight ids."""
        self.start()
        bands = torch.arange(NUM_STREAMS, device=self.device) * self.vocab.audio_size + self.vocab.text_size
        spoken, written = question.audio + bands[:, None], question.audio + bands[:, None]
        written[:, -1] = bands + self.vocab.pad_a                               # batch row 1 gives a written answer
        rows = [torch.stack(pair) for pair in zip(spoken, written, strict=True)]
        rows.append(question.text.expand(2, -1).contiguous())
        positions = torch.arange(len(question), device=self.device)
        return self.draw_ids(self.forward(rows, positions, features.expand(2, -1, -1)))

    def step(self, ids: list[int], position: int) -> list[int]:
        """Eight ids in, eight ids out; the input streams are built one by one."""
        rows = []
        for i in range(NUM_STREAMS):
            pair = [torch.tensor([self.vocab.shift(one, i)], device=self.device) for one in (ids[i], self.vocab.pad_a)]
            rows.append(torch.stack(pair))
        text = torch.tensor([ids[7]], device=self.device)
        rows.append(torch.stack([text.clone(), text.clone()]))
        return self.draw_ids(self.forward(rows, torch.tensor([position], device=self.device), None))


# --- timing -------------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Milliseconds of one call, with the device's work, and its result."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 1000 * (perf_counter() - began), result


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def bandwidth(tiny: bool, device: str) -> float:
    """Memory bandwidth of reading in bytes a second: the best of ten sums over half a gigabyte."""
    numbers = torch.ones((4 if tiny else 512) * 2**20 // 4, device=device)
    return numbers.numel() * 4 / min(timed(numbers.sum, device)[0] for _ in range(10)) * 1000


def question_of(config: OmniConfig, positions: int, device: str) -> tuple[Streams, Tensor]:
    """A spoken question with so many prompt positions, and its features."""
    T = positions - 3                        # input_a, features, eoa, answer_a
    rows = prompt(config.vocab, Task.A1A2, positions=T)
    features = torch.randn(1, T * config.ear.stack, config.ear.width, generator=torch.Generator().manual_seed(0))
    return Streams(rows.text.to(device), rows.audio.to(device)), features.to(device)


def time_release(config: OmniConfig, steps: int, device: str) -> dict[str, Any]:
    """The baseline's prefill and steps."""
    model = Release(config, device)
    question, features = question_of(config, PROMPT, device)
    prefills, times = [], []
    for _ in range(3):
        ms, ids = timed(lambda: model.prefill(question, features), device)
        prefills.append(ms)
    for s in range(steps + 3):
        ms, ids = timed(lambda ids=ids, s=s: model.step(ids, PROMPT + s), device)
        times.append(ms)
    return figures(prefills[1:], times[3:], model.step_bytes)


def time_decoder(decoder: Decoder, config: OmniConfig, steps: int, device: str, step_bytes: int) -> dict[str, Any]:
    """A decoder's prefill and steps, each with its sampling."""
    question, features = question_of(config, PROMPT, device)
    prefills, times = [], []

    def chosen(logits: Logits) -> tuple[int, list[int]]:
        return choose(config.vocab, logits, Sampling())

    def first() -> tuple[int, list[int]]:
        return chosen(decoder.prefill(question, features, speaks=True, batch_parallel=True))

    for _ in range(6):
        ms, (text, audio) = timed(first, device)
        prefills.append(ms)
    for _ in range(steps + 3):
        ms, (text, audio) = timed(lambda t=text, a=audio: chosen(decoder.step(t, a, writes=True)), device)
        times.append(ms)
    return figures(prefills[1:], times[3:], step_bytes)


def figures(prefills: list[float], steps: list[float], step_bytes: int) -> dict[str, Any]:
    """The figures of a row of the table."""
    return dict(prefill_ms=median(prefills), step_ms=median(steps), step_p95_ms=percentile(steps, 0.95),
                steps=len(steps), step_bytes=step_bytes)


@dataclass
class Timed:
    """A decoder that times the calls of `generate`."""

    decoder: Decoder
    device: str
    prefill_ms: float = 0.0
    steps_ms: float = 0.0

    @property
    def context(self) -> int:
        return self.decoder.context

    def fresh(self) -> "Timed":
        return Timed(self.decoder.fresh(), self.device)

    def prefill(self, *args: Any, **how: Any) -> Logits:
        self.prefill_ms, logits = timed(lambda: self.decoder.prefill(*args, **how), self.device)
        return logits

    def step(self, *args: Any, **how: Any) -> Logits:
        ms, logits = timed(lambda: self.decoder.step(*args, **how), self.device)
        self.steps_ms += ms
        return logits


@torch.inference_mode()
def first_audio(model: OmniModel, decoder: Decoder, ears: Ears, codec: Snac, device: str) -> dict[str, float]:
    """Time from the end of a 3 s question to first audio, in stages; the median of three after a warm-up."""
    wav = 0.1 * torch.randn(QUESTION_SECONDS * EAR_RATE, generator=torch.Generator().manual_seed(0))
    bf16 = hears_in_bf16(decoder, ears)
    runs = []
    for seed in range(40):                   # with random weights an answer may end before its first audio
        watch = Timed(decoder, device)
        began = perf_counter()
        hear_ms, features = timed(lambda: ears.hear(wav.to(device), bf16), device)
        answer = generate(model, codec, task=Task.A1A2, features=features, decoder=watch, seed=seed, limit=20,
                          sampling=Sampling(audio_temperature=1.0))
        step = next((step for step in answer if step.pcm is not None), None)
        total_ms = 1000 * (perf_counter() - began)
        answer.close()
        if step is not None and step.index >= NUM_STREAMS:
            rest = total_ms - hear_ms - watch.prefill_ms - watch.steps_ms
            runs.append(dict(total_ms=total_ms, hear_ms=hear_ms, prefill_ms=watch.prefill_ms, steps_ms=watch.steps_ms,
                             choose_and_codec_ms=rest, steps=step.index + 1))
        if len(runs) == 4:
            break
    return {key: median(run[key] for run in runs[1:]) for key in runs[0]} if len(runs) > 1 else {}


@torch.inference_mode()
def codec_frames(codec: Snac, device: str) -> dict[str, float]:
    """Streaming decoding: milliseconds for a frame of 85 ms."""
    stream, generator = codec.stream(), torch.Generator().manual_seed(0)
    times = []
    for _ in range(CODEC_FRAMES + 3):
        codes = torch.randint(codec.codebook_size, (1, NUM_STREAMS, 1), generator=generator).to(device)
        times.append(timed(lambda codes=codes: stream.push(codes), device)[0])
    return dict(frame_ms=median(times[3:]), frame_p95_ms=percentile(times[3:], 0.95))


# --- one variant ----------------------------------------------------------------------------------------------


@torch.inference_mode()
def measure(name: str, tiny: bool, device: str, steps: int) -> dict[str, Any]:
    """All figures of one variant; "machine": those of the memory and the codec."""
    config = TINY if tiny else MINI_OMNI
    torch.manual_seed(0)
    if name == "machine":
        _, codec = parts(tiny, device)
        return dict(bandwidth_gb_s=bandwidth(tiny, device) / 1e9, codec=codec_frames(codec, device))
    if name == "release":
        return time_release(config, steps, device) | memory(device)
    decoder: Decoder
    if name == "readable":
        model = OmniModel(config).eval().to(device)
        step_bytes = 4 * sum(p.numel() for key, p in model.named_parameters()
                             if p.dim() == 2 and not key.startswith("asr_adapter"))
        decoder = SlowDecoder(model)
    else:
        precision, _, kernel = name.partition("/")
        fast = FastDecoder.random(config, precision, device, kernel or None)
        decoder, model, step_bytes = fast, fast.model, fast.step_bytes
    found = time_decoder(decoder, config, steps, device, step_bytes) | memory(device)
    ears, codec = parts(tiny, device)
    found["first_audio"] = first_audio(model, decoder, ears, codec, device)
    return found | {f"talk_{key}": value for key, value in memory(device).items()}


def memory(device: str) -> dict[str, float]:
    """Peak memory so far, in MB of 10^6 bytes."""
    if device.startswith("cuda"):
        return dict(peak_mb=peak_rss_mb(), peak_gpu_mb=torch.cuda.max_memory_allocated() / 1e6)
    return dict(peak_mb=peak_rss_mb())


def measure_apart(name: str, tiny: bool, device: str, steps: int, threads: int) -> dict[str, Any]:
    """`measure` in a new process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--only", name, "--device", device,
               "--steps", str(steps), "--threads", str(threads), *["--tiny"] * tiny]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"The variant {name} stopped with status {done.returncode}: see its message above.")
    return json.loads(done.stdout.splitlines()[-1])


# --- the whole ----------------------------------------------------------------------------------------------


def device_name(device: str) -> str:
    """The device's name; for a CPU with its family, model and widest vector instructions.

    Clouds use one name for several kinds: an "AMD EPYC" of family 25 is a Zen 3 or 4, of family 26 a Zen 5.
    """
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    known = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""

    def first(key: str) -> str:
        found = re.search(rf"^{key}\s*:\s*(.+)$", known, re.M)
        return found[1] if found else ""

    name = first("model name") or platform.processor() or platform.machine()
    family = f" family {first('cpu family')} model {first('model')}" if first("cpu family") else ""
    return f"{name}{family}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"


def table(report: dict[str, Any]) -> str:
    """The figures of all variants, one row each."""
    rows = ["| variant | prefill ms | step ms | p95 ms | release / step | step / floor | first audio ms | peak MB |",
            "|---|---|---|---|---|---|---|---|"]
    baseline = report["variants"].get("release", {}).get("step_ms")
    for name, one in report["variants"].items():
        faster = f"{baseline / one['step_ms']:.1f}" if baseline else ""
        floor_ms = one["step_bytes"] / report["bandwidth_gb_s"] / 1e6
        sound = one.get("first_audio", {}).get("total_ms")
        rows.append(f"| {name} | {one['prefill_ms']:.1f} | {one['step_ms']:.2f} | {one['step_p95_ms']:.2f} | "
                    f"{faster} | {one['step_ms'] / floor_ms:.2f} | {'' if sound is None else f'{sound:.0f}'} | "
                    f"{one.get('peak_gpu_mb', one['peak_mb']):.0f} |")
    return "\n".join(rows)


def stages(report: dict[str, Any]) -> str:
    """The stages of the time to first audio."""
    rows = ["| first audio, ms | hear | prefill | steps | choose, codec | all |", "|---|---|---|---|---|---|"]
    for name, one in report["variants"].items():
        if part := one.get("first_audio"):
            rows.append(f"| {name} | {part['hear_ms']:.0f} | {part['prefill_ms']:.0f} | {part['steps_ms']:.0f} | "
                        f"{part['choose_and_codec_ms']:.0f} | {part['total_ms']:.0f} |")
    return "\n".join(rows)


def described(report: dict[str, Any]) -> str:
    """One machine's figures as Markdown."""
    return (f"{report['device']}, {report['threads']} threads, {report['size']}: memory reads "
            f"{report['bandwidth_gb_s']:.1f} GB/s, SNAC {report['codec']['frame_ms']:.1f} ms a frame of 85 ms\n\n"
            f"{table(report)}\n\n{stages(report)}")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, save the figures, and put the tables of all machines into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a toy size, in this process")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help=f"default: {' '.join(CPU_VARIANTS)}")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's default")
    parser.add_argument("--out", type=Path, help="the folder of the JSON (default: benchmarks/results; --tiny: none)")
    parser.add_argument("--only", help=argparse.SUPPRESS)                       # one variant, in this process
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.only:
        print(json.dumps(measure(args.only, args.tiny, args.device, args.steps)))
        return 0
    variants = args.variants or (GPU_VARIANTS if args.device.startswith("cuda") else CPU_VARIANTS)

    def run(name: str) -> dict[str, Any]:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        if args.tiny:
            return measure(name, args.tiny, args.device, args.steps)
        return measure_apart(name, args.tiny, args.device, args.steps, args.threads)

    name = device_name(args.device)
    report: dict[str, Any] = dict(device=name, torch=torch.__version__, threads=torch.get_num_threads(),
                                  size="tiny" if args.tiny else MINI_OMNI.name, prompt=PROMPT)
    report |= run("machine")
    report["variants"] = {variant: run(variant) for variant in variants}
    print(described(report))
    folder = args.out or (None if args.tiny else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        slug = re.sub(r"[^a-z0-9]+", "-", f"{name} {'tiny' if args.tiny else ''}".lower()).strip("-")
        (folder / f"{slug}.json").write_text(json.dumps(report, indent=1) + "\n")
    if folder == RESULTS:
        from omni_lite.recipes.lite.evaluate import (
            put_between,  # not at the top: it would add to the measured memory
        )

        reports = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
        kept = [described(one) for one in reports if one.get("size") == MINI_OMNI.name]
        put_between(ROOT / "docs" / "performance.md", "\n\n".join(kept), MARKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
