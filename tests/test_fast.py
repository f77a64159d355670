"""The fast decoder against the readable one: the same logits, tokens and sound, from tiny random models."""

import mmap
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from omni_lite import generate as loop
from omni_lite.config import CodecConfig, EarConfig, OmniConfig
from omni_lite.fast import FastDecoder
from omni_lite.fast.kernels import KERNELS, PRECISIONS, Plain, pack_linear, quantize_rows
from omni_lite.fast.memory import HUGE_PAGE, gather, huge_pages, untouched_zeros
from omni_lite.fast.stack import added, pair_up
from omni_lite.generate import Sampling, SlowDecoder, generate
from omni_lite.model import OmniModel
from omni_lite.streams import TASKS, Streams, Task, prompt
from omni_lite.vocab import Vocab
from tests.test_generate import FakeCodec

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 48}
TRUNKS = {
    "qwen2": {"model_type": "qwen2", **SIZES},
    "llama": {"model_type": "llama", **SIZES, "num_key_value_heads": 4},
    "llama, biases, wide heads, llama3 positions": {
        "model_type": "llama", **SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 16,
        "rope_parameters": LLAMA3},
    "mistral": {"model_type": "mistral", **SIZES, "sliding_window": None},
}
CONFIG = OmniConfig(
    name="tiny",
    vocab=Vocab(text_base=30, codebook=12),
    ear=EarConfig(whisper="tiny.en", width=16, stack=4, adapter="linear", hidden=0),
    codec=CodecConfig(kind="lite", codebook=12),
    trunk=TRUNKS["qwen2"],
)
V = CONFIG.vocab
FEATURES = torch.randn(1, 10, 16, generator=torch.Generator().manual_seed(5))
FORMS = {                                    # of the parts around the trunk
    "released": {},
    "tts": {"tts_blocks": 2},
    "tts reads text": {"tts_blocks": 2, "tts_reads_text": True},
    "tts before norm": {"tts_blocks": 1, "tts_before_norm": True},
    "own text head": {"tts_blocks": 1, "text_tied": False, "text_bias": True, "text_scale": 1.5},
}


def make(trunk: str = "qwen2", form: str = "tts", scale: float = 0.2) -> OmniModel:
    """A random model in which every part matters, its norms included."""
    torch.manual_seed(0)
    model = OmniModel(replace(CONFIG, trunk=TRUNKS[trunk], **FORMS[form])).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=scale)
        if "norm" in name:
            parameter.data.add_(1.0)
    return model


def asked(task: Task) -> tuple[Streams, torch.Tensor | None]:
    return (prompt(V, task, positions=3), FEATURES) if task.hears else (prompt(V, task, text=[3, 1, 4, 1, 5]), None)


def talk(decoder, task: Task, batch_parallel: bool, steps: int, seed: int = 0, unconditional: bool = False
         ) -> list[torch.Tensor]:
    """Logits of a prefill and `steps` steps of drawn ids; the text ends after two thirds of them."""
    question, features = asked(task)
    generator = torch.Generator().manual_seed(seed)
    answer = decoder.prefill(question, features, speaks=task.speaks, batch_parallel=batch_parallel,
                             unconditional=unconditional)
    found = []
    for step in range(steps + 1):
        found += [one.float().clone().flatten() for one in (answer.text, answer.audio, answer.unconditional)
                  if one is not None]
        if step == steps:
            break
        text_id = int(torch.randint(V.text_size, (), generator=generator))
        audio_ids = torch.randint(V.audio_size, (7,), generator=generator).tolist()
        writes = not task.speaks or step < 2 * steps // 3
        answer = decoder.step(text_id, audio_ids if task.speaks else None, writes=writes)
    return found


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-4) -> None:
    """Equal up to `tolerance` of the largest logit of each step; random models amplify rounding step by step."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


CASES = [(task, rows) for task in TASKS for rows in ((True, False) if task.speaks else (False,))]


# --- equal to the readable path -------------------------------------------------------------------------


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("form", ["released", "tts", "tts reads text"])
@torch.inference_mode()
def test_fp32_logits_over_60_steps(trunk, form):
    """All five tasks, two rows and one; the cache of one question is used again for the next."""
    model = make(trunk, form)
    fast, slow = FastDecoder(model), SlowDecoder(model)
    for task, batch_parallel in CASES:
        assert_same(talk(fast, task, batch_parallel, 60), talk(slow, task, batch_parallel, 60))


@pytest.mark.parametrize("static", [False, True])
@torch.inference_mode()
def test_the_voice_that_cannot_read_beside_the_one_that_can(static):
    """Guidance needs both; afterwards a question without it runs on the same caches."""
    model = make("qwen2", "tts reads text")
    fast, slow = FastDecoder(model, static=static), SlowDecoder(model)
    for unconditional in (True, False):
        for batch_parallel in (True, False):
            found = [talk(one, Task.A1A2, batch_parallel, 20, unconditional=unconditional) for one in (fast, slow)]
            assert_same(*found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("static", [False, True])
@torch.inference_mode()
def test_every_form_of_the_model(form, static):
    model = make(form=form)
    fast, slow = FastDecoder(model, static=static), SlowDecoder(model)
    for task, batch_parallel in CASES:
        assert_same(talk(fast, task, batch_parallel, 12), talk(slow, task, batch_parallel, 12))


@pytest.mark.parametrize("kernel", KERNELS["fp32"])
@torch.inference_mode()
def test_every_fp32_kernel(kernel):
    if kernel == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("needs oneDNN")
    model = make()
    ours = talk(FastDecoder(model, kernel=kernel), Task.A1A2, True, 12)
    assert_same(ours, talk(SlowDecoder(model), Task.A1A2, True, 12))


@torch.inference_mode()
def test_a_second_question_is_as_the_first_of_a_fresh_decoder():
    """A long conversation leaves nothing behind, to the last bit; nor does one that was broken off."""
    model = make()
    for static in (False, True):
        used = FastDecoder(model, static=static)
        talk(used, Task.A1A2, True, 80)
        for task, batch_parallel in ((Task.T1A2, True), (Task.A1T1, False), (Task.A1A2, True)):
            fresh = talk(FastDecoder(model, static=static), task, batch_parallel, 9, seed=1)
            for ours, theirs in zip(talk(used, task, batch_parallel, 9, seed=1), fresh, strict=True):
                assert torch.equal(ours, theirs)


# --- the loop around it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(text_temperature=1.0, audio_temperature=1.0, top_k=6)])
@pytest.mark.parametrize("form", ["released", "tts"])
def test_generate_gives_the_same_steps_and_sound(form, sampling, monkeypatch):
    monkeypatch.setattr(loop, "SHORTEST_CHUNK", 2)
    model = make(form=form)
    fast = FastDecoder(model)
    endings = set()
    for task in TASKS:
        question = {"features": FEATURES} if task.hears else {"text": [3, 1, 4, 1, 5]}
        for batch_parallel in (True, False):
            for seed in range(3):
                how = dict(task=task, **question, batch_parallel=batch_parallel, sampling=sampling, seed=seed)
                ours, theirs = (list(generate(model, FakeCodec(), **how, limit=40, decoder=decoder))
                                for decoder in (fast, None))
                assert len(ours) == len(theirs)
                for one, other in zip(ours, theirs, strict=True):
                    assert (one.index, one.text_id, one.reason) == (other.index, other.text_id, other.reason)
                    assert (one.tokens is None) == (other.tokens is None) and (one.pcm is None) == (other.pcm is None)
                    np.testing.assert_array_equal(one.tokens, other.tokens)
                    np.testing.assert_array_equal(one.pcm, other.pcm)
                endings.add((len(ours), ours[-1].reason))
    assert len(endings) > 2


def test_too_long_is_told_in_one_sentence():
    model = make()
    decoder = FastDecoder(model, context=20)
    assert decoder.context == 20 and FastDecoder(model, context=10_000).context == 96
    long = prompt(V, Task.T1A2, text=[1] * 30)
    with pytest.raises(ValueError, match="fills 33 of 20 steps: no room to answer"):
        decoder.prefill(long, None, speaks=True, batch_parallel=True)
    with pytest.raises(ValueError, match="fills 33 of 20 steps: no room to answer"):
        next(generate(model, None, task="T1A2", text=[1] * 30, decoder=decoder))
    with pytest.raises(ValueError, match="filled all 20 steps of the decoder"):
        talk(decoder, Task.A1A2, True, 15)
    assert talk(decoder, Task.A1A2, True, 14)                      # 6 + 14 fill it to the last one
    steps = list(generate(model, None, task="A1T1", features=FEATURES, limit=500, decoder=decoder))
    assert len(steps) <= 16


# --- fewer bits ---------------------------------------------------------------------------------------------


def needs_bf16(precision, kernel):
    if (precision, kernel) == ("bf16", "onednn") and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("needs oneDNN's bfloat16")


@pytest.mark.parametrize("kernel", KERNELS["bf16"])
@torch.inference_mode()
def test_bf16_is_close(kernel):
    needs_bf16("bf16", kernel)
    model = make(scale=0.15)
    for task in (Task.A1A2, Task.T1T2):
        ours = talk(FastDecoder(model, "bf16", kernel=kernel), task, task.speaks, 30)
        assert_same(ours, talk(SlowDecoder(model), task, task.speaks, 30), tolerance=0.06)


@pytest.mark.parametrize("kernel", KERNELS["int8"])
@torch.inference_mode()
def test_int8_is_close_and_the_kernels_agree(kernel):
    """A random model is the hard case: its logits lie close together and no layer is used to noise."""
    allowed = 0.06 if torch.cpu._is_vnni_supported() else 0.12    # activations of 8 bits, or of 7
    model = make(scale=0.15)
    for task in (Task.A1A2, Task.T1T2):
        ours = talk(FastDecoder(model, "int8", kernel=kernel), task, task.speaks, 30)
        theirs = talk(SlowDecoder(model), task, task.speaks, 30)
        for one, other in zip(ours, theirs, strict=True):
            assert float((one - other).norm() / other.norm()) < allowed


@pytest.mark.parametrize("kernel", KERNELS["int8"])
def test_int8_keeps_the_greedy_words_of_a_sure_model(kernel):
    """A model that has learnt its lines says them in int8 as well, word for word.

    What is shown: rounding stays below the margins that a minute of training gives. How often a really
    trained model's words agree has to be measured with its own weights and questions.
    """
    model = make(form="released", scale=0.15)
    lines = torch.randint(V.text_base, (4, 24), generator=torch.Generator().manual_seed(2))
    questions = [[i + 1, 7, i + 3] for i in range(4)]
    rows = [prompt(V, Task.T1T2, text=question) for question in questions]
    text = torch.stack([torch.cat([row.text, line[:-1]]) for row, line in zip(rows, lines, strict=True)])
    audio = torch.full((4, 7, text.shape[1]), V.pad_a)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        logits = model.text_logits(model.run(model.embed(text, audio)))[:, -24:]
        loss = F.cross_entropy(logits.flatten(0, 1), lines.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    agreed, decoder = 0, FastDecoder(model, "int8", kernel=kernel)
    for question, line in zip(questions, lines.tolist(), strict=True):
        steps = list(generate(model, None, task="T1T2", text=question, limit=24, decoder=decoder))
        agreed += sum(step.text_id == word for step, word in zip(steps, line, strict=False))
    assert agreed >= 0.99 * lines.numel()


@pytest.mark.parametrize("precision,kernel", [(p, k) for p in PRECISIONS for k in KERNELS[p]])
@pytest.mark.parametrize("bias", [True, False])
def test_pack_linear_is_about_a_linear(precision, kernel, bias):
    """At odd sizes too; a loud row beside a quiet one does not drown it; a row of zeros stays finite."""
    needs_bf16(precision, kernel)
    generator = torch.Generator().manual_seed(0)
    for out, width in ((64, 32), (37, 50), (1, 1)):
        weight = torch.randn(out, width, generator=generator) * torch.logspace(-2, 1, out)[:, None]
        offset = torch.randn(out, generator=generator) if bias else None
        x = torch.randn(3, width, generator=generator)
        x[1] *= 1000
        x[2] = 0
        packed = pack_linear(weight, offset, precision, kernel)
        allowed = {"fp32": 1e-6, "bf16": 0.02, "int8": 0.02}[precision]
        for rows in (x, x[:1]):
            y = packed(rows.bfloat16() if precision == "bf16" else rows).float()
            truth = F.linear(rows, weight, offset)
            assert y.shape == truth.shape == (len(rows), out)
            size = F.linear(rows.abs(), weight.abs(), None if offset is None else offset.abs())
            assert ((y - truth).abs() <= allowed * size + 1e-9).all()


@pytest.mark.parametrize("rows", [2, 40])
def test_bf16_on_a_cpu_without_its_instructions(rows, monkeypatch):
    """Few rows and many rows take two ways, and both are the product."""
    monkeypatch.setattr("omni_lite.fast.kernels.bf16_pays", lambda: False)
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(shape, generator=generator) for shape in ((37, 50), (37,), (rows, 50)))
    y = pack_linear(weight, bias, "bf16", "plain")(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert (y.float() - F.linear(x, weight, bias)).abs().max() <= 0.02 * F.linear(x.abs(), weight.abs()).max()


def test_quantize_rows_is_off_by_half_a_scale_at_most():
    weight = torch.randn(20, 30) * torch.logspace(-3, 2, 20)[:, None]
    weight[3] = 0
    codes, scales = quantize_rows(weight)
    assert codes.dtype == torch.int8 and codes.abs().max() == 127
    assert ((codes * scales[:, None] - weight).abs() <= 0.5001 * scales[:, None]).all()


def test_pair_up_puts_the_two_halves_of_each_head_side_by_side():
    rows = torch.arange(12)                                        # two heads of 6
    assert pair_up(rows, 6).tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    matrix = torch.randn(12, 5)
    assert torch.equal(pair_up(matrix, 6), matrix[pair_up(rows, 6)])


@pytest.mark.parametrize("precision,static", [("fp32", None), ("fp32", True), ("int8", None)])
@torch.inference_mode()
def test_a_fresh_decoder_has_the_same_weights_and_its_own_conversation(precision, static):
    model = make(form="tts reads text")
    decoder = FastDecoder(model, precision, static=static)
    alone = [talk(decoder, task, task.speaks, 12) for task in (Task.A1A2, Task.T1A2)]
    fresh = decoder.fresh()
    assert fresh.trunk.blocks is decoder.trunk.blocks and fresh.precision == precision
    for task, expected, first in ((Task.T1A2, alone[1], decoder), (Task.A1A2, alone[0], fresh)):
        question, features = asked(task)
        first.prefill(question, features, speaks=True, batch_parallel=True)        # one conversation begins
        other = fresh if first is decoder else decoder
        assert_same(talk(other, task, True, 12), expected, 0)                      # and does not change another
        assert first.length == len(question)
    assert not fresh.graph and fresh.graphs is not decoder.graphs


# --- what a graph needs -------------------------------------------------------------------------------------


class OnTheDeviceAlone(TorchDispatchMode):
    """Notes every operation with its shapes; complains about those that wait for a value on the host."""

    WAITS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique2", "allclose"}

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in self.WAITS, f"{name} waits for the device"
        out = function(*args, **(kwargs or {}))
        self.seen.append((name, *(tuple(one.shape) for one in args if isinstance(one, torch.Tensor))))
        return out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("form", ["released", "tts before norm"])
@torch.inference_mode()
def test_the_static_step_never_waits_and_keeps_its_shapes(form, precision):
    decoder = FastDecoder(make(form=form), precision, static=True)
    kinds = [(2, True, True), (1, True, False), (1, True, True), (1, False, True)]
    reads = decoder.tts_text is not None     # then the voice that cannot read may be asked for as well
    for unconditional, (rows, speaks, writes) in [(guided, kind) for guided in {False, reads} for kind in kinds]:
        notes = []
        for position in (5, 40):
            decoder.inputs[-1] = position
            with OnTheDeviceAlone() as device:
                logits = decoder._forward(rows, 96, speaks, writes, unconditional)
            notes.append(device.seen)
            assert (logits.text is None, logits.audio is None) == (not writes, not speaks)
        assert notes[0] == notes[1] and len(notes[0]) > 50


@torch.inference_mode()
def test_the_watcher_sees_a_wait():
    with OnTheDeviceAlone(), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(3).sum().item()


@torch.inference_mode()
def test_a_static_step_looks_at_a_power_of_two():
    model = OmniModel(replace(CONFIG, trunk={**TRUNKS["qwen2"], "max_position_embeddings": 3000})).eval()
    decoder = FastDecoder(model, static=True)
    assert decoder.context == 2048
    assert [decoder._reach(n) for n in (0, 255, 256, 511, 512, 1023, 1024, 2047)] == [
        256, 256, 512, 512, 1024, 1024, 2048, 2048]
    assert FastDecoder(make(), static=True)._reach(95) == 96


@pytest.mark.parametrize("form", ["released", "tts before norm"])
@torch.inference_mode()
def test_a_step_of_joined_operations_is_the_plain_one(form, monkeypatch):
    monkeypatch.setattr("omni_lite.fast.stack.compile_once", lambda function: function)
    found: list[list[torch.Tensor]] = [[], []]
    for join, logits in zip((True, False), found, strict=True):
        decoder = FastDecoder(make(form=form), static=True, compile=join)
        decoder.prefill(asked(Task.T1A2)[0], None, speaks=True, batch_parallel=True)
        for step in range(12):
            answer = decoder.step(step % 30, [step % 12] * 7, writes=step < 8)
            logits += [one.clone() for one in (answer.text, answer.audio) if one is not None]
    assert_same(found[0], found[1])


@torch.inference_mode()
def test_without_a_compiler_a_step_is_taken_as_it_is(monkeypatch):
    def no_compiler(function):
        raise RuntimeError("no C compiler was found")

    monkeypatch.setattr("omni_lite.fast.stack.compile_once", no_compiler)
    decoder = FastDecoder(make(), static=True, compile=True)
    decoder._try(1, 96, True, True, False)
    assert not decoder.trunk.compiled
    with pytest.raises((IndexError, RuntimeError)):                            # what fails without it is told
        decoder.inputs[0] = 10**6
        decoder._try(1, 96, True, True, False)


@torch.inference_mode()
def test_a_product_on_a_gpu_adds_to_what_is_there():
    weight, bias, x, y = (torch.randn(shape) for shape in ((6, 4), (6,), (2, 6), (2, 4)))
    for some in (None, bias):
        plain = Plain(weight, some)
        torch.testing.assert_close(added(x.clone(), plain, y), x + plain(y))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task,batch_parallel", CASES)
@torch.inference_mode()
def test_adding_in_place_leaves_what_others_read(task, batch_parallel, form, monkeypatch):
    model = make(form=form)
    expected = talk(SlowDecoder(model), task, batch_parallel, 8)
    monkeypatch.setattr("omni_lite.fast.decoder.pack_linear", lambda weight, bias, *_: Plain(weight, bias))  # a GPU's
    assert_same(talk(FastDecoder(model), task, batch_parallel, 8), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@torch.inference_mode()
def test_replayed_graphs_equal_the_plain_step(precision):
    model = make().to("cuda")
    on_device = {task: tuple(None if one is None else one.to("cuda") for one in (*vars(asked(task)[0]).values(),
                                                                               asked(task)[1])) for task in TASKS}
    decoders = [FastDecoder(model, precision, graph=graph) for graph in (True, False)]
    tolerance = 1e-4 if precision == "fp32" else 0.03                          # joined operations round less often
    for task, batch_parallel in CASES:
        text, audio, features = on_device[task]
        found: list[list[torch.Tensor]] = [[], []]
        for decoder, logits in zip(decoders, found, strict=True):
            answer = decoder.prefill(Streams(text, audio), features, speaks=task.speaks, batch_parallel=batch_parallel)
            for step in range(20):
                logits += [one.float().clone() for one in (answer.text, answer.audio) if one is not None]
                answer = decoder.step(step % 30, [step % 12] * 7 if task.speaks else None, writes=step < 15)
        assert_same(found[0], found[1], tolerance)


# --- what it refuses, and what it needs ---------------------------------------------------------------------


@pytest.mark.parametrize("changes,reason", [
    ({"model_type": "gpt_neox"}, "blocks of gpt_neox are not those of qwen2, llama, mistral"),
    ({"model_type": "qwen3"}, "blocks of qwen3"),
    ({"model_type": "gemma", "head_dim": 8}, "blocks of gemma"),
    ({"hidden_act": "gelu"}, "activation is gelu"),
    ({"model_type": "mistral", "sliding_window": 8}, "sliding window"),
    ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding window"),
    ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "of the kind dynamic"),
])
def test_other_trunks_are_refused_in_one_sentence(changes, reason):
    model = OmniModel(replace(CONFIG, trunk={**TRUNKS["qwen2"], **changes}))
    with pytest.raises(ValueError, match=f"cannot run this model, since .*{reason}.*: leave the precision out"):
        FastDecoder(model)


def test_unknown_precisions_and_kernels_are_refused():
    with pytest.raises(ValueError, match="no precision 'int4': choose one of fp32, bf16, int8"):
        FastDecoder(make(), "int4")
    with pytest.raises(ValueError, match="int8 has no kernel 'plain': choose one of dynamic, onednn"):
        FastDecoder(make(), "int8", kernel="plain")
    with pytest.raises(ValueError, match="int8 is for a CPU, not for meta"):
        pack_linear(torch.empty(2, 2, device="meta"), None, "int8")


@torch.inference_mode()
def test_weights_can_come_one_by_one():
    """A trunk on the meta device: its tensors are asked for by name, and the model never holds them."""
    model = make()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    theirs = talk(SlowDecoder(model), Task.A1A2, True, 9)
    asked_for = []

    def read(name: str) -> torch.Tensor:
        asked_for.append(name)
        return tensors[name]

    model.trunk.to("meta")
    model.tts_adapter.to("meta")
    assert_same(talk(FastDecoder(model, weights=read), Task.A1A2, True, 9), theirs)
    wanted = {name for name in tensors if name.startswith(("trunk.", "tts_adapter."))} | {"text_embed.weight"}
    assert set(asked_for) == wanted and len(asked_for) == len(wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_nobody_wrote_yet_are_zeros_that_can_be_written(dtype):
    some = untouched_zeros((3, 2, 5), dtype, torch.device("cpu"))
    assert torch.equal(some, torch.zeros(3, 2, 5, dtype=dtype)) and some.dtype == dtype
    some[1] = 7
    assert some[1].eq(7).all() and some[0].eq(0).all() and some[2].eq(0).all()


@pytest.mark.skipif(sys.platform != "linux", reason="the list of a process's memory is Linux's")
def test_new_memory_that_is_filled_is_gathered_and_no_other(monkeypatch):
    """Not what was there before, not what nobody wrote; and what was written stays."""

    def asked_for() -> torch.Tensor:
        return torch.frombuffer(mmap.mmap(-1, 4 * HUGE_PAGE, flags=mmap.MAP_PRIVATE), dtype=torch.int64)

    def pieces_of(some: torch.Tensor) -> set[int]:
        first = some.data_ptr() + -some.data_ptr() % HUGE_PAGE
        return set(range(first, some.data_ptr() + 3 * HUGE_PAGE + 1, HUGE_PAGE))

    done = set()
    monkeypatch.setattr("omni_lite.fast.memory.gather", lambda piece: (done.add(piece), gather(piece)))
    old = asked_for().fill_(7)
    with huge_pages():
        new, untouched = asked_for(), asked_for()
        new.copy_(torch.arange(len(new)))
    assert pieces_of(new) <= done and not done & (pieces_of(old) | pieces_of(untouched))
    assert torch.equal(new, torch.arange(len(new))) and old.eq(7).all() and untouched.eq(0).all()


@torch.inference_mode()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_drawn_decoder_runs_and_is_the_same_for_the_same_seed(precision):
    config, answers = make().config, []
    for _ in range(2):
        torch.manual_seed(3)
        decoder = FastDecoder.random(config, precision)
        answers.append(talk(decoder, Task.A1A2, True, 5))
    assert all(p.is_meta for p in decoder.model.trunk.parameters())
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))


@torch.inference_mode()
def test_a_step_reads_every_weight_once():
    model = make(form="tts")
    matrices = sum(p.numel() for name, p in model.named_parameters()
                   if p.dim() == 2 and not name.startswith(("asr_adapter.", "audio_embed.")))
    assert [FastDecoder(model, precision).step_bytes for precision in PRECISIONS] == [
        4 * matrices, 2 * matrices, matrices]
