"""A fast `Decoder`: fused weights, a static cache, low precision on a CPU, a CUDA graph on a GPU.

`generate.SlowDecoder` defines the same step in readable form, with transformers' own blocks. What is faster here:

    slow                                          fast
    q, k, v and gate, up: 5 products a block      2, with the weights concatenated once
    rotary positions: 10 operations a block       one complex product, for queries, keys and values together
    a cache that grows by copying                 allocated once, written in place, kept between questions
    keys and values repeated for every head       the queries of a group read the same ones
    the prompt's last step as two more rows       one more position of the same pass
    a prompt's steps through all blocks           the last block computes only those that a head reads
    fp32 weights: 4 bytes each                    fp32, bf16 or int8: reading all weights is most of a step
    weights in pages of 4 kB                      of 2 MB, where the system has them: fewer addresses to look up
    on a GPU 16 kernels a block                   11: a product adds its residual, and torch.compile fuses
                                                  the operations between products

Letters, besides those of `vocab.py`:  R batch rows (1 or 2)   P steps of the question
H query heads   K key/value heads   G = H / K queries that share a key   d width of a head

Sources: pytorch-labs/gpt-fast model.py, generate.py (static cache, CUDA graph); arXiv 2104.09864 (rotary
positions as complex products); arXiv 2208.07339 (int8 with one scale for each row of activations).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omni_lite.config import OmniConfig
from omni_lite.fast.kernels import DTYPES, PRECISIONS, WEIGHT_BYTES, Linear, kernel_of_blocks, pack_linear
from omni_lite.fast.memory import huge_pages, lean_heap
from omni_lite.fast.stack import Block, Stack, head_sizes, pair_up, rms_norm, rotary_table
from omni_lite.generate import Logits
from omni_lite.interop import release
from omni_lite.model import OmniModel, TTSAdapter
from omni_lite.streams import Streams
from omni_lite.vocab import NUM_ROWS, NUM_STREAMS

Weights = Callable[[str], Tensor]            # a name of OmniModel.state_dict() -> that tensor
TRUNKS = ("qwen2", "llama", "mistral")       # model types whose blocks `Stack` can compute
ROTARY = ("default", "linear", "llama3", "yarn")  # kinds whose angles depend on the position alone
TABLES = ("text_embed.weight", "audio_embed.weight")
SHORTEST_REACH = 256                         # positions that the shortest CUDA graph attends to


def random_weight(shape: torch.Size | tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    """A matrix as at the start of training; a vector, of a norm or a bias, is all ones."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype, device=device)
    return torch.empty(shape, dtype=dtype, device=device).normal_(std=0.02)


def without_blocks(config: OmniConfig, dtype: torch.dtype, device: str) -> OmniModel:
    """A model whose embeddings and ASR adapter have memory, still to be filled; all other parts are shapes only.

    A `FastDecoder` needs no more of the model: it packs each block as it reads it, so the blocks are never in
    memory as float32. `forward` of such a model does not run.
    """
    with torch.device("meta"):
        model = OmniModel(config)
    for part in (model.text_embed, model.audio_embed, model.asr_adapter):
        part.to(dtype).to_empty(device=device)
    bands = torch.arange(NUM_STREAMS, device=device)[:, None] * config.vocab.audio_size
    model.register_buffer("bands", bands, persistent=False)
    return model.eval()


# --- the decoder ------------------------------------------------------------------------------------------


class FastDecoder:
    """A `generate.Decoder` for models whose trunk has blocks of the Qwen2 and LLaMA kind.

    It holds one conversation at a time: `prefill` discards the one before. Logits are those of
    `generate.SlowDecoder` up to rounding. With CUDA graphs the next step overwrites them.

    model:     in eval mode, on the device to compute on. Its embeddings and ASR adapter stay in use, in their
               dtype; its other weights are copied (fp32 plain: if fused or small), so they can be deleted
    precision: "fp32", "bf16", or "int8": weights with one scale for each row, activations quantised at every step
    kernel:    see `pack_linear`
    context:   positions to allocate; None: all of the trunk's, at most 2048
    static:    a step of constant shapes, with its position as a tensor; None: only on a GPU
    graph:     capture such steps as CUDA graphs and replay them; None: only on a GPU
    compile:   let torch.compile fuse a step's small operations, if there is a compiler; None: only with graphs
    weights:   reads blocks, norms and heads by name; None: they are the model's. For a model on the meta device,
               which is then never in memory as a whole
    """

    def __init__(
        self,
        model: OmniModel,
        precision: str = "fp32",
        *,
        kernel: str | None = None,
        context: int | None = None,
        static: bool | None = None,
        graph: bool | None = None,
        compile: bool | None = None,
        weights: Weights | None = None,
    ) -> None:
        check_trunk(model)
        if precision not in PRECISIONS:
            raise ValueError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
        self.model, self.precision, self.kernel = model, precision, kernel
        self.device, self.dtype = model.bands.device, DTYPES[precision]
        on_gpu = self.device.type == "cuda"
        self.graph = on_gpu if graph is None else graph
        self.static = self.graph or (on_gpu if static is None else static)
        config = model.trunk.config
        positions = config.max_position_embeddings or 2048
        self.context = min(positions, 2048 if context is None else context)
        self.length, self.rows = 0, 1        # steps in the cache; batch rows in use
        self.unconditional = False           # whether the TTS blocks run a second batch row, which sees no text
        self.step_bytes = 0                  # of weights that a step of two batch rows reads
        self.read = weights or _reader(model)
        with lean_heap(), huge_pages() if self.device.type == "cpu" else nullcontext():
            self._pack(model, config)
        self.inputs = torch.zeros(2 * NUM_ROWS + 1, dtype=torch.int64, device=self.device)  # ids, position
        for stack in (self.trunk, self.tts):
            if stack is not None:
                stack.compiled = self.graph if compile is None else compile
        self.graphs: dict[tuple[int, int, bool, bool, bool], tuple[Any, Logits]] = {}
        self.pool: Any = None

    @classmethod
    @torch.no_grad()
    def from_release(cls, folder: Path, precision: str = "int8", device: str = "cpu") -> "FastDecoder":
        """The released checkpoint in a fraction of its memory: each matrix is read, packed, then dropped.

        Its `model` holds only embeddings and ASR adapter. On a CPU the embeddings stay in the file, and the system
        reads the few entries that a question needs. Errors as in `interop.release.load_release`.
        """
        config = release.read_config(folder)
        if (folder / release.TOKENIZER_FILE).is_file():
            release.read_tokenizer(folder, config.vocab)
        storage = torch.float32 if precision == "fp32" else torch.bfloat16
        model = without_blocks(config, storage, device)
        read = release.weight_reader(folder, config, model.state_dict())
        tables = {name: read(name) for name in TABLES}
        mapped = device == "cpu" and all(one.dtype == torch.float32 or precision != "fp32" for one in tables.values())
        if mapped:
            model.asr_adapter.to(tables["text_embed.weight"].dtype)
        for name, parameter in model.named_parameters():
            if name in tables and mapped:
                parameter.data = tables[name]
            elif not parameter.is_meta:
                parameter.copy_(read(name))
        return cls(model, precision, weights=read)

    @classmethod
    @torch.no_grad()
    def random(
        cls, config: OmniConfig, precision: str = "int8", device: str = "cpu", kernel: str | None = None
    ) -> "FastDecoder":
        """Random weights in as little memory as `from_release` needs, to measure a model of this size.

        The weights depend on torch's seed. On a CPU the embeddings are in a temporary file, whose name is gone
        once the decoder exists. Errors as in `FastDecoder`; kernel: one of KERNELS[precision], or None.
        """
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        model = without_blocks(config, dtype, device)
        shapes = {name: one.shape for name, one in model.named_parameters()}
        on_disk = TABLES if device == "cpu" else ()
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:

            def read(name: str) -> Tensor:
                if name not in on_disk:
                    return random_weight(shapes[name], dtype, device)
                size, path = math.prod(shapes[name]), Path(folder) / name
                if not path.exists():
                    random_weight(shapes[name], dtype, device).view(torch.uint8).numpy().tofile(path)
                return torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(shapes[name])

            for name, parameter in model.named_parameters():
                if not parameter.is_meta:
                    parameter.data = read(name)
            return cls(model, precision, kernel=kernel, weights=read)

    def fresh(self) -> "FastDecoder":
        """The same packed weights with an empty cache, for a second conversation at the same time.

        It uses no CUDA graphs: their capture takes longer than one answer.
        """
        other = copy(self)
        other.inputs = torch.zeros_like(self.inputs)
        other.trunk, other.tts = self.trunk.fresh(), None if self.tts is None else self.tts.fresh()
        other.length, other.rows, other.unconditional = 0, 1, False
        other.graph, other.graphs, other.pool = False, {}, None
        return other

    # --- weights ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _pack(self, model: OmniModel, config: Any) -> None:
        """Pack all weights, the heads first: they need the most memory while they are packed."""
        before = model.config.tts_before_norm
        self.norm = self._plain("trunk.text_norm.weight" if before else "trunk.norm.weight")
        self.spoken_norm = None if before else self.norm     # between the trunk and the audio side
        own = model.text_head
        self.text_head = self._linear(self.read("text_head.weight" if "weight" in own else "text_embed.weight"),
                                      self.read("text_head.bias") if "bias" in own else None)
        voice = model.tts_adapter if isinstance(model.tts_adapter, TTSAdapter) else None
        head = "audio_embed.weight" if voice is None else "tts_adapter.head.weight"
        self.audio_head = self._linear(self.read(head), None)
        rotary = rotary_table(model.trunk.rotary_emb, self.context, self.device)
        blocks = [self._block(f"trunk.layers.{i}", config) for i in range(config.num_hidden_layers)]
        self.trunk = Stack(config, rotary, blocks, 2, self.dtype)
        self.tts: Stack | None = None
        self.tts_text: Tensor | None = None  # (V_text, D), if the TTS blocks read the text stream
        if voice is not None:
            tts = voice.rotary.config
            rotary = rotary_table(voice.rotary, self.context, self.device)
            blocks = [self._block(f"tts_adapter.blocks.{i}", tts) for i in range(tts.num_hidden_layers)]
            self.tts_norm = self._plain("tts_adapter.norm.weight")
            if voice.text is not None:
                self.tts_text = self._plain("tts_adapter.text.weight")
            self.tts = Stack(tts, rotary, blocks, 1 if voice.text is None else 2, self.dtype)
        del self.read

    def _plain(self, name: str) -> Tensor:
        # A copy: a view of a mapped file would keep every page of it that was ever read.
        return self.read(name).detach().to(self.device, self.dtype, copy=True)

    def _linear(self, weight: Tensor, bias: Tensor | None, in_block: bool = False) -> Linear:
        self.step_bytes += weight.numel() * WEIGHT_BYTES[self.precision]
        weight, bias = weight.to(self.device), None if bias is None else bias.to(self.device)
        kernel = kernel_of_blocks(self.precision, weight.numel(), self.device) if in_block else None
        return pack_linear(weight, bias, self.precision, self.kernel or kernel)

    def _block(self, name: str, config: Any) -> Block:
        """One block's weights, fused; with the trunk's biases, if any (Qwen2: q, k, v; LLaMA: none)."""
        d = head_sizes(config)[2]
        parts = dict(self.model.named_parameters())

        def fused(*layers: str) -> tuple[Tensor, Tensor | None]:
            """The layers' weights concatenated, then their biases; the rows of q and k in pairs."""
            found: list[Tensor | None] = []
            for kind in ("weight", "bias"):
                names = [f"{name}.{layer}.{kind}" for layer in layers]
                if names[0] not in parts:
                    found.append(None)
                    continue
                pieces = [self.read(one) for one in names]
                pieces = [pair_up(piece, d) if one.endswith((f"q_proj.{kind}", f"k_proj.{kind}")) else piece
                          for piece, one in zip(pieces, names, strict=True)]
                found.append(torch.cat(pieces) if len(pieces) > 1 else pieces[0])
            weight, bias = found
            assert weight is not None, f"{name} has no {layers[0]}"
            return weight, bias

        return Block(
            norm_1=self._plain(f"{name}.input_layernorm.weight"),
            qkv=self._linear(*fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), in_block=True),
            out=self._linear(*fused("self_attn.o_proj"), in_block=True),
            norm_2=self._plain(f"{name}.post_attention_layernorm.weight"),
            gate_up=self._linear(*fused("mlp.gate_proj", "mlp.up_proj"), in_block=True),
            down=self._linear(*fused("mlp.down_proj"), in_block=True),
        )

    # --- what `generate` calls ----------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(
        self, question: Streams, features: Tensor | None = None, *, speaks: bool, batch_parallel: bool = False,
        unconditional: bool = False,
    ) -> Logits:
        """Run the whole question in one pass; see `generate.Decoder`."""
        P = len(question)
        if P >= self.context:
            raise ValueError(f"The question fills {P} of {self.context} steps: no room to answer.")
        x = self.model.embed(question.text[None], question.audio[None], features)
        if batch_parallel:                   # the last step of batch row 1 follows that of row 0
            silent = torch.full_like(question.audio[:, -1:], self.model.config.vocab.pad_a)
            x = torch.cat([x, self.model.embed(question.text[None, -1:], silent[None])], dim=1)
        # TTS blocks need all steps of the question, the heads only its last.
        x = self.trunk.prefill(x.to(self.dtype), twin=batch_parallel, ends=self.tts is None or not speaks)
        self.length, self.rows, self.unconditional = P, 1 + batch_parallel, unconditional
        audio: tuple[Tensor | None, ...] = (None,)
        if speaks:
            spoken = self._spoken(x[:, : x.shape[1] - batch_parallel], question.text[None], unconditional)
            audio = self._audio(spoken if self.tts is None else self.tts.prefill(spoken, twin=False, ends=True))
        return Logits(self._text(x[:, -1:]), *audio)

    @torch.inference_mode()
    def step(self, text_id: int, audio_ids: Sequence[int] | None, *, writes: bool = True) -> Logits:
        """Feed one step of the answer; see `generate.Decoder`."""
        if self.length >= self.context:
            raise ValueError(f"The answer has filled all {self.context} steps of the decoder: give it a limit.")
        if not writes:
            self.rows = 1
        pad, speaks = self.model.config.vocab.pad_a, audio_ids is not None
        spoken = [pad] * NUM_STREAMS if audio_ids is None else list(audio_ids)
        sent = [*spoken, text_id, *[pad] * NUM_STREAMS, text_id, self.length]
        self.inputs.copy_(torch.tensor(sent), non_blocking=True)                # one small copy, without a wait
        reach = self._reach(self.length) if self.static else self.length + 1
        self.length += 1
        key = (self.rows, reach, speaks, writes, self.unconditional)
        if not self.graph:
            return self._forward(*key)
        if key not in self.graphs:
            self.graphs[key] = self._capture(*key)
        graph, logits = self.graphs[key]
        graph.replay()
        return logits

    def _reach(self, length: int) -> int:
        """Positions that a static step attends to: a power of two above `length`, so that few graphs suffice."""
        return min(self.context, max(SHORTEST_REACH, 1 << length.bit_length()))

    # --- one step, on the device alone --------------------------------------------------------------------

    def _forward(self, rows: int, reach: int, speaks: bool, writes: bool, unconditional: bool) -> Logits:
        """The step in `inputs`. The host reads no value, and all shapes follow from the arguments."""
        ids, position = self.inputs[:-1].view(2, NUM_ROWS)[:rows], self.inputs[-1:]
        x = self.model.embed(ids[:, -1:], ids[:, :-1, None]).to(self.dtype)     # (R, 1, D)
        mask = None
        if self.static:
            later = torch.arange(reach, device=self.device) > position
            mask = torch.zeros(reach, dtype=self.dtype, device=self.device).masked_fill_(later, -torch.inf)
            mask = mask[None, None, None]
        x = self.trunk.step(x, position, reach, mask)
        audio: tuple[Tensor | None, ...] = (None,)
        if speaks:                                                              # batch row 0 speaks, the last writes
            spoken = self._spoken(x[:1], ids[:1, -1:], unconditional)
            audio = self._audio(spoken if self.tts is None else self.tts.step(spoken, position, reach, mask))
        return Logits(self._text(x[-1:]) if writes else None, *audio)

    def _spoken(self, x: Tensor, text_ids: Tensor, unconditional: bool) -> Tensor:
        """The input of the TTS blocks or the audio head: (1, S, D) of the trunk, (1, S) -> (1, S, D).

        unconditional: add a second batch row, (2, S, D), in which the text stream is silent
        """
        if self.spoken_norm is not None:
            x = rms_norm(x, self.spoken_norm, self.trunk.eps)
        if self.tts_text is None:
            return x
        if unconditional:
            text_ids = torch.cat([text_ids, torch.full_like(text_ids, self.model.config.vocab.pad_t)])
        return x + F.embedding(text_ids, self.tts_text)

    def _text(self, x: Tensor) -> Tensor:
        """(1, 1, D) of the trunk -> (V_text,)."""
        return self.text_head(rms_norm(x[0], self.norm, self.trunk.eps))[0]

    def _audio(self, x: Tensor) -> tuple[Tensor, ...]:
        """(1 or 2, 1, D) of the trunk or the TTS blocks -> one or two of (7, V_audio)."""
        x = x[:, 0]
        if self.tts is not None:
            x = rms_norm(x, self.tts_norm, self.tts.eps)
        return self.audio_head(x).unflatten(-1, (NUM_STREAMS, -1)).unbind(0)

    def _try(self, *key: Any) -> None:
        """A warm-up step; if nothing can be compiled, this step and all later ones run without."""
        try:
            self._forward(*key)
        except (RuntimeError, ImportError):
            stacks = [stack for stack in (self.trunk, self.tts) if stack is not None and stack.compiled]
            if not stacks:
                raise
            for stack in stacks:
                stack.compiled = False
            self._forward(*key)

    def _capture(self, *key: Any) -> tuple[Any, Logits]:
        """Record a step as a CUDA graph. Warm-up steps write the same keys and values to the same place."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._try(*key)
        torch.cuda.current_stream().wait_stream(side)
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            logits = self._forward(*key)
        return graph, logits


def _reader(model: OmniModel) -> Weights:
    tensors = dict(model.named_parameters())
    return lambda name: tensors[name]


def check_trunk(model: OmniModel) -> None:
    """Raise a ValueError of one sentence for a trunk whose blocks `Stack` cannot compute."""
    config = model.trunk.config
    rope = getattr(config, "rope_parameters", None) or {}
    reason = None
    if config.model_type not in TRUNKS:
        reason = f"the blocks of {config.model_type} are not those of {', '.join(TRUNKS)}"
    elif config.hidden_act != "silu":
        reason = f"its activation is {config.hidden_act}, not silu"
    elif rope.get("rope_type", "default") not in ROTARY:
        reason = f"its rotary positions are of the kind {rope['rope_type']}"
    elif _slides(config):
        reason = "its attention has a sliding window"
    if reason is not None:
        raise ValueError(f"The fast decoder cannot run this model, since {reason}: leave the precision out.")


def _slides(config: Any) -> bool:
    """Whether the window is narrower than the context; `layer_types`, if given, decides."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return "sliding_attention" in kinds
    window = getattr(config, "sliding_window", None)
    return window is not None and window < (config.max_position_embeddings or 2048)
