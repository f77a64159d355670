"""An ASR adapter for a frozen LLM: it transcribes speech to the LLM's tokens, and the LLM chooses among sentences.

    wav 16 kHz -> encoder features, 50/s -> ASR adapter, 12.5/s: log probabilities of the LLM's tokens
      -> CTC beam search: candidate sentences -> the LLM scores them as words of a user

    <|im_start|>user\\n   What is  six plus  eight ?   <|im_end|>\\n<|im_start|>assistant\\n     typed, or heard
    '----- before ----'  '--------- middle --------'  '------------ after ------------'

The LLM's weights stay frozen, so its text output does not change by one bit. It hears and writes, without Mini-Omni's
audio streams. This is only phase 1a of the paper, for an existing LLM.

Why not one vector every 80 ms, as in the paper? Most of these vectors hold no word, and a frozen LLM cannot learn to
skip them. Why does the LLM choose? For an adapter of this size "What noise does a seal make?" and "What nose does a
sailor make?" sound alike. The LLM knows which of them a user asks.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy import logaddexp
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from omni_lite.checkpoints import RESTORE
from omni_lite.config import EarConfig
from omni_lite.folder import CHECKPOINTS, fill
from omni_lite.generate import Writer
from omni_lite.hear import ASRAdapter, Ears
from omni_lite.interop.smollm2 import load_smollm2
from omni_lite.load import load_ears
from omni_lite.recipes.ctc import ctc_loss
from omni_lite.recipes.smollm2.config import SMOLLM2, SPEECH, Instruction, ListenerConfig

CONFIG, ADAPTER = "config.json", "adapter.safetensors"
BEAM, TOKENS = 24, 12                        # beam width, and candidate tokens of each position
FAINTEST = -9.0                              # least log probability of a candidate token
CHOICES = 8                                  # sentences that the LLM scores
LM_SHARE = 0.7                               # weight of the LLM's score beside the adapter's, chosen on dev clips


class SpeechAdapter(ASRAdapter):
    """The ASR adapter with a log probability of each of the LLM's tokens, or of none, at each position.

    table: (n, D) embeddings of the tokens that it can output; normalised columns make training faster
    """

    def __init__(self, config: EarConfig, table: Tensor) -> None:
        super().__init__(config, table.shape[1])
        self.width = table.shape[1]
        self.norm_out = nn.LayerNorm(self.width)
        self.none = nn.Parameter(torch.zeros(self.width))
        self.bias = nn.Parameter(torch.zeros(len(table) + 1))
        self.directions: Tensor
        directions = (table - table.mean(0)) / table.std(0) / self.width**0.5
        self.register_buffer("directions", directions.detach().float(), persistent=False)

    def forward(self, features: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, T, D_whisper) -> log probabilities of the tokens, then of none: (B, ceil(T / stack), n + 1)."""
        x = self.norm_out(super().forward(features, positions))
        return F.linear(x, torch.cat([self.directions, self.none[None]]), self.bias).float().log_softmax(-1)


def sentences(log_probs: Tensor, beam: int = BEAM, tokens: int = TOKENS) -> list[tuple[tuple[int, ...], float]]:
    """CTC prefix beam search: sentences with their log probability over all alignments, the most likely first.

    log_probs: (S, n + 1), the last column is the blank;  beam, tokens: width and candidates of each position
    Source: arXiv 1408.2873, Algorithm 1, without its language model
    """
    none, nothing = log_probs.shape[1] - 1, -math.inf
    likeliest = log_probs[:, :none].topk(min(tokens, none), dim=-1)
    known: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, nothing)}   # paths that end in a blank, in a token
    for row, values, indices in zip(log_probs.tolist(), likeliest.values.tolist(), likeliest.indices.tolist(),
                                    strict=True):
        tried = [(token, value) for token, value in zip(indices, values, strict=True) if value > FAINTEST]
        rest: defaultdict[tuple[int, ...], float] = defaultdict(lambda: nothing)
        said: defaultdict[tuple[int, ...], float] = defaultdict(lambda: nothing)
        for text, (silent, loud) in known.items():
            both = logaddexp(silent, loud)
            rest[text] = logaddexp(rest[text], both + row[none])
            if text:                                                           # the last token continues
                said[text] = logaddexp(said[text], loud + row[text[-1]])
            for token, value in tried:                                         # a repeated token needs a blank between
                more = silent if text and text[-1] == token else both
                said[*text, token] = logaddexp(said[*text, token], more + value)
        longer = {text: (rest[text], said[text]) for text in rest.keys() | said.keys()}
        known = dict(sorted(longer.items(), key=lambda one: (-logaddexp(*one[1]), one[0]))[:beam])
    found = [(text, float(logaddexp(*two))) for text, two in known.items()]
    return [one for one in found if one[1] > nothing]                          # without sentences that do not fit


class Listener(nn.Module):
    """A frozen LLM, its tokenizer with a chat template, Whisper's encoder, and the ASR adapter between them.

    lm:   any causal language model of transformers; this class freezes it
    ears: None if features come from a store
    """

    def __init__(self, lm: Any, tokenizer: Any, config: ListenerConfig, ears: Ears | None = None) -> None:
        super().__init__()
        self.lm = lm.requires_grad_(False).eval()
        self.tokenizer, self.config, self.ears = tokenizer, config, ears
        table = lm.get_input_embeddings().weight
        words = config.words or range(len(table))
        self.column = {token: column for column, token in enumerate(words)}
        self.words: Tensor
        self.register_buffer("words", torch.tensor(words), persistent=False)    # (n,) token id of each column
        self.adapter = SpeechAdapter(config.ear, table[self.words])
        self.end = int(tokenizer.eos_token_id)
        self.chats = {name: self.chat(instruction) for name, instruction in
                      dict(transcribe=config.transcribe, answer=config.answer).items()}

    @classmethod
    def load(cls, folder: str | Path | None = None, device: str = "cpu") -> "Listener":
        """SmolLM2 with its trained adapter; raises OSError or ValueError with one sentence."""
        folder = Path(folder or CHECKPOINTS / SMOLLM2.name)
        config = load_config(folder)
        lm, tokenizer = load_smollm2()
        listener = cls(lm, tokenizer, config, load_ears(config.ear.whisper))
        fill(listener.adapter, folder / ADAPTER)
        return listener.to(device).eval()

    def train(self, mode: bool = True) -> "Listener":
        """Set the adapter's mode; the LLM stays in eval mode."""
        super().train(mode)
        self.lm.eval()
        return self

    @property
    def device(self) -> torch.device:
        """The adapter's device."""
        return self.adapter.norm_out.weight.device

    # --- the chat -----------------------------------------------------------------------------------

    def chat(self, instruction: Instruction) -> tuple[list[int], list[int]]:
        """Token ids of the template before and after the user's words."""
        if instruction.user.count(SPEECH) != 1:
            raise ValueError(f"The instruction {instruction.user!r} does not contain {SPEECH} once: put it where the "
                             "speech goes.")
        text = self.tokenizer.apply_chat_template(messages(instruction), add_generation_prompt=True, tokenize=False)
        parts = text.split(SPEECH)
        if len(parts) != 2:
            raise ValueError(f"The chat template shows the user's words {len(parts) - 1} times: use a template that "
                             "shows them once.")
        return self.ids(parts[0]), self.ids(parts[1])

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def embed(self, ids: Sequence[int]) -> Tensor:
        """(S,) ids -> (S, D)."""
        return self.lm.get_input_embeddings()(torch.tensor(ids, dtype=torch.int64, device=self.device))

    @torch.no_grad()
    def before(self, chat: str, batch: int, without: int = 0) -> DynamicCache:
        """The LLM's keys and values of the chat before the user's words, without gradients.

        without: how many of the last tokens to leave out
        """
        ids, cache = self.chats[chat][0], DynamicCache()
        ids = ids[: len(ids) - without]
        self.lm.base_model(inputs_embeds=self.embed(ids)[None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(batch)
        return cache

    # --- training -------------------------------------------------------------------------------------

    def sounds_like(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, D_whisper), lengths (B,) -> log probabilities (B, S, n + 1), positions (B,)."""
        positions = torch.tensor([self.adapter.num_positions(length) for length in lengths.tolist()],
                                 device=features.device)
        return self.adapter(features, positions), positions

    def hearing_loss(self, features: Tensor, lengths: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
        """The CTC loss of the adapter, see `ctc.ctc_loss`; the LLM does not run.

        said: token ids of each clip, all in `config.words`
        """
        log_probs, positions = self.sounds_like(features, lengths)
        return ctc_loss(log_probs, positions, [[self.column[token] for token in row] for row in said])

    # --- answering ------------------------------------------------------------------------------------

    @torch.no_grad()
    def greedy(self, chat: str, middle: Tensor, limit: int) -> Iterator[Tensor]:
        """Greedy decoding of several chats at once.

        middle: (B, S, D), all of one length, so that padding and masks are not needed
        yields: (B,) int64 at each step, until all batch rows have ended; an ended row repeats `end`
        """
        B = len(middle)
        cache = self.before(chat, B)
        x = torch.cat([middle, self.embed(self.chats[chat][1]).expand(B, -1, -1)], dim=1)
        ended = torch.zeros(B, dtype=torch.bool, device=middle.device)
        for _ in range(limit):
            hidden = self.lm.base_model(inputs_embeds=x, past_key_values=cache, use_cache=True).last_hidden_state
            token = self.lm.get_output_embeddings()(hidden[:, -1]).argmax(-1)
            token = token.masked_fill(ended, self.end)
            yield token
            ended |= token == self.end
            if bool(ended.all()):
                return
            x = self.lm.get_input_embeddings()(token)[:, None]

    @torch.no_grad()
    def hear(self, wav_16k: Tensor) -> str:
        """The transcript of a question: (N,) float32 at 16 kHz -> text.

        The frozen LLM rescores the beam search's sentences by their probability as words of a user.
        Source: n-best rescoring by a language model, as in arXiv 1408.2873
        """
        assert self.ears is not None, "the Listener needs Whisper's encoder"
        features = self.ears.hear(wav_16k.to(self.device))
        log_probs, _ = self.sounds_like(features, torch.tensor([features.shape[1]]))
        found = [(text, score) for text, score in sentences(log_probs[0].cpu()) if text][:CHOICES]
        if not found:                                                          # no sentence: the most likely token
            return self.text([int(log_probs[0, :, :-1].amax(0).argmax())])
        likely = self.likely([[int(self.words[column]) for column in text] for text, _ in found])
        best = max(range(len(found)), key=lambda i: found[i][1] + LM_SHARE * likely[i])
        return self.text(found[best][0])

    def text(self, columns: Sequence[int]) -> str:
        """The text of the adapter's columns."""
        return str(self.tokenizer.decode(self.words[list(columns)].tolist())).strip()

    @torch.no_grad()
    def likely(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """The LLM's log probabilities of texts as the user's whole turn.

        texts: B lists of token ids;  returns: B, in nats
        """
        before, after = self.chats["answer"]
        B, longest = len(texts), max(map(len, texts))
        cache = self.before("answer", B, without=1)
        ids = torch.full((B, longest + 2), after[0], device=self.device)
        ids[:, 0] = before[-1]
        for row, text in zip(ids, texts, strict=True):
            row[1 : 1 + len(text)] = torch.tensor(text, device=self.device)
        x = self.lm.get_input_embeddings()(ids[:, :-1])
        hidden = self.lm.base_model(inputs_embeds=x, past_key_values=cache, use_cache=True).last_hidden_state
        logits = self.lm.get_output_embeddings()(hidden).float()
        scores = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]    # (B, longest + 1)
        lengths = torch.tensor([len(text) + 1 for text in texts], device=self.device)
        counted = torch.arange(longest + 1, device=self.device) < lengths[:, None]
        return (scores * counted).sum(1).tolist()

    def read(self, text: str) -> Tensor:
        """A typed question -> (1, S, D), the LLM's own embeddings."""
        return self.embed(self.ids(text))[None]

    def ask(self, question: Tensor | str, chat: str = "answer", limit: int | None = None) -> Iterator[str]:
        """Stream the answer's text, piece by piece.

        question: (N,) float32 at 16 kHz, or text
        chat:     "answer", or "transcribe": the LLM repeats the question
        """
        if chat not in self.chats:
            raise ValueError(f"There is no chat {chat!r}: choose one of {', '.join(self.chats)}.")
        middle = self.read(self.hear(question) if isinstance(question, Tensor) else question)
        writer = Writer(lambda tokens: self.tokenizer.decode(tokens, skip_special_tokens=True))
        limit = limit or self.config.limit
        for step, token in enumerate(self.greedy(chat, middle, limit)):
            ended = int(token) == self.end
            yield writer.add(None if ended else int(token), last=ended or step + 1 == limit)

    def answer(self, question: Tensor | str, chat: str = "answer", limit: int | None = None) -> str:
        """The whole text of `ask`."""
        return "".join(self.ask(question, chat, limit)).strip()


def messages(instruction: Instruction, words: str = SPEECH) -> list[dict[str, str]]:
    """The chat in the format of transformers' chat templates, with the user's words filled in."""
    out = [dict(role="system", content=instruction.system)]
    for said, answer in instruction.shown:
        out += [dict(role="user", content=instruction.user.replace(SPEECH, said)),
                dict(role="assistant", content=answer)]
    return [*out, dict(role="user", content=instruction.user.replace(SPEECH, words))]


def load_config(folder: Path) -> ListenerConfig:
    """The config of a trained adapter's folder; raises OSError or ValueError with one sentence."""
    path = folder / CONFIG
    for needed in (path, folder / ADAPTER):
        if not needed.is_file():
            raise FileNotFoundError(
                f"There is no {needed}: train the adapter with `python -m omni_lite train --preset {SMOLLM2.name}`, or "
                "restore it with `git checkout`.")
    try:
        return ListenerConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a config of a listener ({error!r}): {RESTORE}.") from error


def digest(module: nn.Module) -> str:
    """sha256 of all parameters and buffers, in the order of their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def config_json(config: ListenerConfig) -> str:
    """The content of `config.json`."""
    return json.dumps(config.to_dict(), indent=2) + "\n"
