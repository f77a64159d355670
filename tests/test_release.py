"""The release's checkpoint, read into OmniModel, against `release_layout.py`: the same numbers, the same ids."""

import pickle
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Tokenizer, models
from torch import Tensor

from omni_lite.config import MINI_OMNI
from omni_lite.fast import FastDecoder
from omni_lite.folder import load_model, save_model
from omni_lite.generate import Sampling, generate
from omni_lite.interop import release
from omni_lite.interop.release import load_release
from omni_lite.interop.release_decoding import ReleaseDelay
from omni_lite.model import OmniModel
from omni_lite.streams import Task, prompt, shift_audio
from omni_lite.vocab import Vocab
from tests import assert_one_sentence
from tests.release_layout import (
    FULL,
    TASKS,
    TINY,
    Reference,
    answer_as_released,
    question_rows,
    random_checkpoint,
    write_release,
)

KINDS = {
    "as released": {},
    "post_adapter": {"post_adapter": True},
    "linear adapter": {"asr_adapter": "mlp"},
}
T, TEXT = 9, [5, 17, 30, 2]
FEATURES = torch.randn(1, T, TINY["whisper_adapter_dim"], generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """The same random checkpoint twice: read by the library, and as the float64 reference."""
    sizes = TINY | KINDS[request.param]
    tensors = random_checkpoint(sizes)
    folder = write_release(tmp_path_factory.mktemp("release"), sizes, tensors)
    return load_release(folder), Reference(sizes, tensors)


@pytest.fixture
def folder(tmp_path):
    """A tiny release folder, to be spoilt."""
    return write_release(tmp_path / "release", TINY, random_checkpoint(TINY))


def question(task: str) -> dict:
    return {"T": T} if task.startswith("A1") else {"text": TEXT}


def said(model: OmniModel, task: str, two_rows: bool = False, steps: int = 200, **how) -> Tensor:
    """(8, up to `steps`) ids of our answer, seven streams and the text, without the step that ends it."""
    hears, out = task.startswith("A1"), []
    for step in generate(
        model,
        None,
        task=task,
        features=FEATURES if hears else None,
        text=None if hears else TEXT,
        batch_parallel=two_rows,
        **how,
    ):
        if step.reason == "end" or len(out) == steps:
            break
        audio = [model.config.vocab.pad_a] * 7 if step.tokens is None else step.tokens.tolist()
        out.append([*audio, step.text_id])
    return torch.tensor(out).T


# --- the same numbers -----------------------------------------------------------------------------------


def test_the_released_settings_are_the_preset(tmp_path):
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(FULL))
    assert release.read_config(tmp_path) == MINI_OMNI
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(FULL | {"post_adapter": True}))
    assert release.read_config(tmp_path) == replace(MINI_OMNI, tts_blocks=6, tts_before_norm=True)


def test_query_groups_are_taken_apart():
    heads = torch.tensor([0, 1, 100, 200, 2, 3, 101, 201])                      # q q k v, q q k v
    fused = heads.repeat_interleave(3)                                          # H = 3
    q, k, v = (one[::3].tolist() for one in release.split_groups(fused, heads=4, groups=2))
    assert (q, k, v) == ([0, 1, 2, 3], [100, 101], [200, 201])


@pytest.mark.parametrize("task", TASKS)
def test_logits_equal_float64(pair, task):
    model, reference = pair
    reference.forget()
    features = FEATURES if Task(task).hears else None
    rows = question_rows(reference.sizes, task, **question(task))
    wanted = reference(rows[None], features)
    ours = prompt(model.config.vocab, task, **({"positions": T} if Task(task).hears else {"text": TEXT}))
    assert torch.equal(torch.cat([shift_audio(model.config.vocab, ours.audio), ours.text[None]]), rows)
    with torch.no_grad():
        found = model(ours.text[None], ours.audio[None], features)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 2e-5 * other.abs().max()


# --- the same ids ---------------------------------------------------------------------------------------


def test_200_steps_of_batch_parallel_decoding_are_the_releases(pair):
    """Both rows; special ids that random weights say at any time; the text that ends and goes silent."""
    model, reference = pair
    rows = [question_rows(reference.sizes, task, T=T) for task in ("A1A2", "A1T2")]
    wanted = answer_as_released(reference, "A1A2", rows, FEATURES, steps=200)
    found = said(model, "A1A2", two_rows=True, delay=ReleaseDelay)
    assert wanted.shape == (8, 200) and torch.equal(found, wanted)
    shifted = shift_audio(model.config.vocab, found[:7])                        # what is fed to the one table
    assert shifted.min() >= 200 and all(len(set(row.tolist())) > 15 for row in found)


@pytest.mark.parametrize("task", ["A1A2", "T1A2", "A1T2", "A1T1", "T1T2"])
def test_one_row_says_what_the_release_says(pair, task):
    model, reference = pair
    rows = [question_rows(reference.sizes, task, **question(task))]
    wanted = answer_as_released(reference, task, rows, FEATURES if Task(task).hears else None, steps=60)
    assert torch.equal(said(model, task, steps=60, delay=ReleaseDelay), wanted)


@pytest.mark.parametrize("seed, event", [(0, "text ends"), (2, "sound ends"), (416, "eot first")])
def test_ends_are_where_the_release_ends(tmp_path, seed, event):
    tensors = random_checkpoint(TINY, seed)
    model, reference = load_release(write_release(tmp_path, TINY, tensors)), Reference(TINY, tensors)
    rows = [question_rows(TINY, task, T=T) for task in ("A1A2", "A1T2")]
    wanted = answer_as_released(reference, "A1A2", rows, FEATURES, steps=60)
    found = said(model, "A1A2", two_rows=True, steps=60, delay=ReleaseDelay)
    assert torch.equal(found, wanted)
    eot, pad_t, text = 136, 137, wanted[7].tolist()
    if event == "text ends":
        assert text[text.index(eot) + 1 :] == [pad_t] * (59 - text.index(eot))
    elif event == "sound ends":
        assert len(text) < 60
    else:
        assert text[0] == eot and text[1] != pad_t


def test_our_own_rules_differ_only_where_they_say(pair):
    """`choose` and `Delay`, once more as a plain loop over the reference's logits."""
    model, reference = pair
    sizes, vocab = reference.sizes, model.config.vocab
    rows = torch.stack([question_rows(sizes, task, T=T) for task in ("A1A2", "A1T2")])
    reference.forget()
    text, audio = reference(rows, FEATURES.expand(2, -1, -1))
    wanted, text_ended, end = [], False, None
    for step in range(100):
        text_id = vocab.pad_t if text_ended else int(text[1, -1, : vocab.eot + 1].argmax())
        text_ended = text_ended or text_id == vocab.eot
        ids = [int(audio[0, i, -1, : vocab.eoa + (i == 0)].argmax()) for i in range(7)]
        end = step if end is None and step and ids[0] == vocab.eoa else end     # where stream 0 ends
        ids = [vocab.pad_a if step <= i or (end is not None and step > end + i) else
               vocab.eoa if end is not None and step == end + i else one for i, one in enumerate(ids)]
        if end is not None and step == end + 5:                                 # the last frame is complete
            break
        wanted.append([*ids, text_id])
        following = torch.tensor([wanted[-1], [vocab.pad_a] * 7 + [text_id]])
        following[:, :7] = shift_audio(vocab, following[:, :7, None])[..., 0]
        text, audio = reference(following[..., None])
    found = said(model, "A1A2", two_rows=True, steps=100)
    assert torch.equal(found, torch.tensor(wanted).T)


def test_without_a_limit_the_answer_fills_the_releases_context(tmp_path):
    """2048 positions there, 40 here: a question of T + 3 steps leaves 40 - T - 3 to be said."""
    sizes = TINY | {"block_size": 40}
    model = load_release(write_release(tmp_path, sizes, random_checkpoint(sizes)))
    assert said(model, "A1T1", delay=ReleaseDelay).shape[1] <= 40 - T - 3
    assert said(model, "A1A2", two_rows=True, delay=ReleaseDelay).shape[1] == 40 - T - 3


def test_frames_of_special_ids_are_not_played():
    vocab = Vocab(text_base=9, codebook=20)
    delay = ReleaseDelay(vocab, limit=4)
    frames = []
    for step in range(12):
        drawn = [step] * 7 if step != 3 else [step, vocab.answer_a, *[step] * 5]
        assert delay.place(drawn) == drawn
        frames.append(delay.frame())
        if delay.done:
            break
    complete = [[k + 1 + i for i in range(7)] for k in range(4)]                # stream i of frame k: step k + i + 1
    assert frames == [None] * 7 + [complete[0], None, *complete[2:]]            # frame 1 holds answer_a
    assert delay.cut and delay.frames == 4


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bfloat16", "one by one", "before torch 1.6"])
def test_other_ways_of_saving_are_read_too(tmp_path, kind):
    tensors = random_checkpoint(TINY)
    if kind == "bfloat16":
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    elif kind == "one by one":                                                  # the table really twice
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    folder = write_release(tmp_path, TINY, tensors)
    if kind == "before torch 1.6":
        torch.save(tensors, folder / "lit_model.pth", _use_new_zipfile_serialization=False)
    model = load_release(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} and not model.training
    assert torch.equal(model.audio_embed.weight, tensors["transformer.wte.weight"][200:].float())
    assert torch.equal(model.trunk.layers[1].mlp.up_proj.weight, tensors["transformer.h.1.mlp.fc_2.weight"].float())


def test_the_model_is_independent_of_its_file_and_saves_as_ours(folder, tmp_path):
    model = load_release(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = folder / "lit_model.pth"
    weights.write_bytes(bytes(weights.stat().st_size))                          # overwritten where it lies
    save_model(tmp_path / "ours", model)
    again = load_model(tmp_path / "ours")
    assert again.config == model.config
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in before.items())


def test_an_id_is_downloaded(folder, monkeypatch):
    asked = []

    def snapshot(name: str, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    files = ["lit_model.pth", "model_config.yaml", "tokenizer.json"]
    for source, revision in (("gpt-omni/mini-omni", "main"), ("gpt-omni/mini-omni@0a1b2c3", "0a1b2c3")):
        assert load_release(source).config.vocab.text_size == 200
        assert asked.pop() == ("gpt-omni/mini-omni", revision, files)


def test_an_id_that_cannot_be_fetched(monkeypatch):
    def offline(name: str, revision: str, allow_patterns: list[str]) -> str:
        raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot. Check your connection.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(OSError) as error:
        load_release("gpt-omni/mini-omni")
    assert_one_sentence(error, "gpt-omni/mini-omni", "lit_model.pth", "online once", "appropriate cached snapshot)")
    for source in ("nowhere", "/no/such/folder"):
        with pytest.raises(FileNotFoundError) as missing:
            load_release(source)
        assert_one_sentence(missing, source, "is not a folder", "lit_model.pth")


class Evil:
    """Pickles as a command that would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def spoil_weights(folder: Path, how: str) -> None:
    path = folder / "lit_model.pth"
    tensors = torch.load(path, weights_only=True)
    bias = "transformer.h.1.attn.attn.bias"
    if how == "a missing key":
        del tensors[bias]
    elif how == "an extra key":
        tensors["transformer.h.2.norm_1.weight"] = torch.ones(48)
    elif how == "a wrong shape":
        tensors[bias] = tensors[bias][:-1]
    elif how == "no tensor":
        tensors[bias] = [0.0] * 80
    elif how == "another head":
        tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    elif how == "code in an archive":
        tensors[bias] = Evil(folder / "trace")
    torch.save(tensors, path)
    if how == "bare code":
        path.write_bytes(pickle.dumps(Evil(folder / "trace")))
    elif how == "no dict":
        torch.save([1, 2], path)
    elif how in ("cut short", "cut to nothing"):
        path.write_bytes(path.read_bytes()[: -100 if how == "cut short" else 0])
    elif how == "a pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif how == "no file":
        path.unlink()


BAD_WEIGHTS = {
    "a missing key": "lacks transformer.h.1.attn.attn.bias",
    "an extra key": "unknown transformer.h.2.norm_1.weight",
    "a wrong shape": "transformer.h.1.attn.attn.bias as (79,), the model wants (80,)",
    "no tensor": "transformer.h.1.attn.attn.bias as list instead of a tensor",
    "another head": "another lm_head.weight than transformer.wte.weight",
    "code in an archive": "wants to run code",
    "bare code": "wants to run code",
    "no dict": "holds a list",
    "cut short": "damaged",
    "cut to nothing": "damaged",
    "a pointer": "damaged",
    "no file": "There is no ",
}


@pytest.mark.parametrize("how", BAD_WEIGHTS)
def test_bad_weights_are_one_sentence(folder, how):
    spoil_weights(folder, how)
    with pytest.raises((ValueError, OSError)) as error:
        load_release(folder)
    assert_one_sentence(error, "lit_model.pth", BAD_WEIGHTS[how], " again")
    assert not (folder / "trace").exists()                                      # no code was run


def test_nothing_is_handed_out_before_all_was_checked(folder):
    config = release.read_config(folder)
    own = load_release(folder).state_dict()
    spoil_weights(folder, "a wrong shape")
    with pytest.raises(ValueError, match="attn.attn.bias"):
        release.read_weights(folder, config, own)                               # before the first `next`


@pytest.mark.parametrize("changes, words", [
    ({"parallel_residual": True}, "parallel_residual: True, but only False"),
    ({"norm_class_name": "LayerNorm"}, "norm_class_name: LayerNorm"),
    ({"bias": True}, "bias: True"),
    ({"head_size": 16}, "head_size: 16"),
    ({"n_query_groups": 4}, "n_query_groups: 4"),
    ({"asr_adapter": "conv"}, "asr_adapter: conv"),
    ({"n_layer": "two"}, "the size n_layer"),
    ({"n_embd": None}, "the size n_embd"),
    ({"text_vocab_size": 64}, "64 special ids"),
])
def test_settings_that_are_not_qwen2s(folder, changes, words):
    (folder / "model_config.yaml").write_text(yaml.safe_dump(TINY | changes))
    with pytest.raises(ValueError) as error:
        load_release(folder)
    assert_one_sentence(error, "model_config.yaml", words)


@pytest.mark.parametrize("content, words", [("a: [", "is not valid YAML"), ("", "no settings"), (None, "There is no ")])
def test_a_settings_file_that_is_none(folder, content, words):
    path = folder / "model_config.yaml"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises((ValueError, OSError)) as error:
        load_release(folder)
    assert_one_sentence(error, "model_config.yaml", words, "fetch the release again")


def test_sizes_of_another_model(folder):
    (folder / "model_config.yaml").write_text(yaml.safe_dump(TINY | {"intermediate_size": 65}))
    with pytest.raises(ValueError) as error:
        load_release(folder)
    assert_one_sentence(error, "lit_model.pth", "mlp.fc_1.weight as (64, 48), the model wants (65, 48)")


@pytest.mark.parametrize("how, words", [
    ("too many", "ids up to 136, but the model has text ids up to 135"),
    ("broken", "is not a tokenizer"),
])
def test_a_tokenizer_that_does_not_fit(folder, how, words):
    path = folder / "tokenizer.json"
    if how == "too many":
        Tokenizer(models.WordLevel({f"w{i}": i for i in range(137)}, unk_token="w0")).save(str(path))
    else:
        path.write_text("{")
    with pytest.raises(ValueError) as error:
        load_release(folder)
    assert_one_sentence(error, "tokenizer.json", words)


def test_a_small_tokenizer_beside_the_full_size(folder):
    with pytest.raises(ValueError, match="ids up to 135, but the model has text ids up to 151935"):
        release.read_tokenizer(folder, MINI_OMNI.vocab)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        release.read_tokenizer(folder, MINI_OMNI.vocab)
    assert isinstance(load_release(folder), OmniModel)                # a model alone needs none


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_packed_as_it_is_read_it_is_the_same_model(kind, tmp_path):
    """Blocks that never lie in memory as a model's own give the logits of those that do."""
    sizes = TINY | KINDS[kind]
    folder = write_release(tmp_path, sizes, random_checkpoint(sizes))
    for precision in ("fp32", "int8"):
        whole = FastDecoder(load_release(folder), precision)
        lean = FastDecoder.from_release(folder, precision)
        assert all(one.is_meta for one in lean.model.trunk.parameters())
        assert torch.equal(lean.model.text_embed.weight, whole.model.text_embed.weight)         # the file's own numbers
        rows = prompt(lean.model.config.vocab, Task.A1A2, positions=T)
        ours, theirs = (one.prefill(rows, FEATURES, speaks=True, batch_parallel=True) for one in (lean, whole))
        for _ in range(3):
            for a, b in ((ours.text, theirs.text), (ours.audio, theirs.audio)):
                assert torch.equal(a, b)
            ours, theirs = (one.step(7, list(range(7)), writes=True) for one in (lean, whole))


def test_sampling_is_free_as_well(pair):
    """With a temperature the special ids stay possible, and a seed repeats."""
    how = dict(delay=ReleaseDelay, sampling=Sampling(1.0, 1.0), seed=3, two_rows=True, steps=30)
    assert torch.equal(said(pair[0], "A1A2", **how), said(pair[0], "A1A2", **how))
