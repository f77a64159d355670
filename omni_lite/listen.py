"""Any LLM can hear: an adapter puts speech where the user's words stand in the LLM's own chat.

    wav 16 kHz -> Whisper features, 50/s -> adapter, 12.5/s: what does each position sound like?
      training -> one soft word for each run of positions that sound alike, none for silence
      asked    -> some sentences that it may have been; the LLM says which of them a user is likeliest to say

    <|im_start|>user\\n   What is  six plus  eight ?   <|im_end|>\\n<|im_start|>assistant\\n     typed, or heard
    <|im_start|>user\\n   [ soft words, mixed embeddings ]   <|im_end|>\\n<|im_start|>assistant\\n  in training
    '----- before ----'  '--------- middle --------'  '------------ after ------------'

The LLM's weights are never touched, so whatever it could do with text it can still do, bit for bit. It
needs none of Mini-Omni's eight rows: it hears and writes. This is phase 1a of the paper alone, at an LLM
that is somebody else's.

Why not one vector every 80 ms, as in the paper? Most of those say nothing, and an LLM that is never touched cannot
learn to pass over them. And why let it choose? To ears of this size "What noise does a seal make?" and "What nose does
a sailor make?" sound alike. A large language model knows which of them is a question, and can say so untouched.
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
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from omni_lite.assistant import CHECKPOINTS, fill
from omni_lite.config import SMOLLM2, SPEECH, EarConfig, Instruction, ListenerConfig
from omni_lite.generate import Writer
from omni_lite.guide import ctc_loss
from omni_lite.hear import ASRAdapter, Ears
from omni_lite.train import next_token_loss
from omni_lite.weights import RESTORE, load_smollm2

CONFIG, ADAPTER = "config.json", "adapter.safetensors"
SHARPER = 2.0                                # how much less a second word is mixed in than it is likely
BEAM, TOKENS = 24, 12                        # sentences that are followed at once, and tokens tried at each position
FAINTEST = -9.0                              # log probability below which a token is not tried
CHOICES = 8                                  # sentences among which the LLM chooses
LM_SHARE = 0.7                               # how much its opinion counts beside that of the ears: of dev clips


class SpeechAdapter(ASRAdapter):
    """The ASR adapter, and what each of its positions sounds like: one of the LLM's tokens, or none.

    table: (n, D) embeddings of the tokens that it may hear. Their columns are brought to one size for the products,
           which is quicker to learn from
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
        """(B, T, D_whisper) -> log probability of each token, and last of none: (B, ceil(T / stack), n + 1)."""
        x = self.norm_out(super().forward(features, positions))
        return F.linear(x, torch.cat([self.directions, self.none[None]]), self.bias).float().log_softmax(-1)


def runs(log_probs: Tensor) -> list[Tensor]:
    """Positions that say something, in runs that say the same: (S, n + 1) -> the positions of each run.

    Where nothing is heard at all, the position that is nearest to saying something.
    """
    none = log_probs.shape[1] - 1
    says = (log_probs[:, none].exp() < 0.5).nonzero()[:, 0].tolist() or [int(log_probs[:, none].argmin())]
    likeliest = log_probs[:, :none].argmax(-1).tolist()
    found: list[list[int]] = []
    for s in says:
        if found and found[-1][-1] == s - 1 and likeliest[s] == likeliest[s - 1]:
            found[-1].append(s)
        else:
            found.append([s])
    return [torch.tensor(run, device=log_probs.device) for run in found]


def sentences(log_probs: Tensor, beam: int = BEAM, tokens: int = TOKENS) -> list[tuple[tuple[int, ...], float]]:
    """What may have been said, the likeliest first, each with its log probability over all ways to place its tokens.

    log_probs: (S, n + 1), the last of none;  beam, tokens: what is followed and tried
    Source: CTC prefix beam search, arXiv 1408.2873, Algorithm 1, without its language model
    """
    none, nothing = log_probs.shape[1] - 1, -math.inf
    likeliest = log_probs[:, :none].topk(min(tokens, none), dim=-1)
    known: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, nothing)}   # ways that end in none, and in a token
    for row, values, indices in zip(log_probs.tolist(), likeliest.values.tolist(), likeliest.indices.tolist(),
                                    strict=True):
        tried = [(token, value) for token, value in zip(indices, values, strict=True) if value > FAINTEST]
        rest: defaultdict[tuple[int, ...], float] = defaultdict(lambda: nothing)
        said: defaultdict[tuple[int, ...], float] = defaultdict(lambda: nothing)
        for text, (silent, loud) in known.items():
            both = logaddexp(silent, loud)
            rest[text] = logaddexp(rest[text], both + row[none])
            if text:                                                           # the last token goes on
                said[text] = logaddexp(said[text], loud + row[text[-1]])
            for token, value in tried:                                         # said twice: none stands between
                more = silent if text and text[-1] == token else both
                said[*text, token] = logaddexp(said[*text, token], more + value)
        ways = {text: (rest[text], said[text]) for text in rest.keys() | said.keys()}
        known = dict(sorted(ways.items(), key=lambda one: (-logaddexp(*one[1]), one[0]))[:beam])
    found = [(text, float(logaddexp(*two))) for text, two in known.items()]
    return [one for one in found if one[1] > nothing]                          # not what has no room


class Listener(nn.Module):
    """A frozen LLM, its tokenizer with a chat template, ears, and the adapter between them.

    lm:   any causal language model of transformers; frozen here
    ears: may be missing where features come from a store
    """

    def __init__(self, lm: Any, tokenizer: Any, config: ListenerConfig, ears: Ears | None = None) -> None:
        super().__init__()
        self.lm = lm.requires_grad_(False).eval()
        self.tokenizer, self.config, self.ears = tokenizer, config, ears
        table = lm.get_input_embeddings().weight
        words = config.words or range(len(table))
        self.column = {token: column for column, token in enumerate(words)}
        self.words: Tensor
        self.register_buffer("words", torch.tensor(words), persistent=False)    # (n,) ids of what may be heard
        self.adapter = SpeechAdapter(config.ear, table[self.words])
        self.end = int(tokenizer.eos_token_id)
        self.chats = {name: self.chat(instruction) for name, instruction in
                      dict(transcribe=config.transcribe, answer=config.answer).items()}

    @classmethod
    def load(cls, folder: str | Path | None = None, device: str = "cpu") -> "Listener":
        """SmolLM2 with the ears that were trained for it.

        raises: OSError or ValueError of one sentence that names the file and the remedy
        """
        folder = Path(folder or CHECKPOINTS / SMOLLM2.name)
        config = load_config(folder)
        lm, tokenizer = load_smollm2()
        listener = cls(lm, tokenizer, config, Ears.from_pretrained(config.ear.whisper))
        fill(listener.adapter, folder / ADAPTER)
        return listener.to(device).eval()

    def train(self, mode: bool = True) -> "Listener":
        """The LLM stays in eval mode while the adapter learns."""
        super().train(mode)
        self.lm.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.adapter.norm_out.weight.device

    # --- the chat -----------------------------------------------------------------------------------

    def chat(self, instruction: Instruction) -> tuple[list[int], list[int]]:
        """Token ids of the template before and after the user's words."""
        if instruction.user.count(SPEECH) != 1:
            raise ValueError(f"An instruction needs {SPEECH} once, where the speech goes: {instruction.user!r}.")
        text = self.tokenizer.apply_chat_template(messages(instruction), add_generation_prompt=True, tokenize=False)
        parts = text.split(SPEECH)
        if len(parts) != 2:
            raise ValueError(f"The chat template shows the user's words {len(parts) - 1} times instead of once.")
        return self.ids(parts[0]), self.ids(parts[1])

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, no marks added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def embed(self, ids: Sequence[int]) -> Tensor:
        """(S,) ids -> (S, D)."""
        return self.lm.get_input_embeddings()(torch.tensor(ids, dtype=torch.int64, device=self.device))

    @torch.no_grad()
    def before(self, chat: str, batch: int, without: int = 0) -> DynamicCache:
        """The LLM's keys and values of what stands before the user's words; no gradient passes through them.

        without: how many of the last tokens are left to whoever asks what follows them
        """
        ids, cache = self.chats[chat][0], DynamicCache()
        ids = ids[: len(ids) - without]
        self.lm.base_model(inputs_embeds=self.embed(ids)[None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(batch)
        return cache

    # --- training -------------------------------------------------------------------------------------

    def sounds_like(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the adapter hears: features (B, T, D_whisper), lengths (B,) -> (B, S, n + 1), positions (B,)."""
        positions = torch.tensor([self.adapter.num_positions(length) for length in lengths.tolist()],
                                 device=features.device)
        return self.adapter(features, positions), positions

    def hearing_loss(self, features: Tensor, lengths: Tensor, said: Sequence[Sequence[int]]) -> Tensor:
        """CTC: the positions, read in order, shall say what was said; see `guide.ctc_loss`. The LLM need not run.

        said: token ids of each clip, all of them in `config.words`
        """
        log_probs, positions = self.sounds_like(features, lengths)
        return ctc_loss(log_probs, positions, [[self.column[token] for token in row] for row in said])

    def middle(self, features: Tensor, lengths: Tensor) -> list[Tensor]:
        """What stands in the place of the words: features (B, T, D_whisper), lengths (B,) -> B of (K, D).

        One soft word a run: the LLM's own embeddings of all that it may have been, the likeliest above all.
        Source of leaving out what says nothing: CTC-based compression, arXiv 2102.01578.
        """
        table = self.lm.get_input_embeddings().weight[self.words]
        out = []
        log_probs, positions = self.sounds_like(features, lengths)
        for row, count in zip(log_probs, positions.tolist(), strict=True):
            mixed = [SHARPER * row[run, :-1].logsumexp(0) for run in runs(row[:count].detach())]
            out.append(torch.stack(mixed).softmax(-1).to(table.dtype) @ table)
        return out

    def loss(self, chat: str, features: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
        """Mean cross-entropy of the targets' tokens, each after its own speech.

        features: (B, T, D_whisper), zeros after each one's length (B,)
        targets:  B lists of token ids

        All rows share the cached positions before the speech; they end at different steps, and what is
        filled up behind them is seen by nobody. Only hidden states that foretell a target pass the head.
        """
        after = self.embed(self.chats[chat][1])
        rows, says = [], []
        for middle, target in zip(self.middle(features, lengths), targets, strict=True):
            row = torch.cat([middle, after, self.embed(target[:-1])])
            rows.append(row)
            says.append(torch.arange(len(row), device=row.device) >= len(row) - len(target))
        hidden = self.lm.base_model(
            inputs_embeds=pad_sequence(rows, batch_first=True), past_key_values=self.before(chat, len(rows)),
            use_cache=True).last_hidden_state                                  # (B, S, D)
        wanted = torch.tensor([token for target in targets for token in target], device=self.device)
        logits = self.lm.get_output_embeddings()(hidden[pad_sequence(says, batch_first=True)])
        return next_token_loss(logits, wanted)

    # --- answering ------------------------------------------------------------------------------------

    @torch.no_grad()
    def greedy(self, chat: str, middle: Tensor, limit: int) -> Iterator[Tensor]:
        """The LLM's most likely continuation of several chats at once.

        middle: (B, S, D), of one length, so that nothing needs padding or masks
        yields: (B,) int64; a row that has said `end` goes on saying it; over when all have
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
        """What was said, as far as ears and LLM can tell: (N,) float32 at 16 kHz -> text.

        The ears give some sentences, and the LLM, which stays as it is, says how likely a user is to say each.
        Source: rescoring of the best hypotheses by a language model, as in arXiv 1408.2873 with a larger one
        """
        assert self.ears is not None, "give the Listener ears"
        features = self.ears.hear(wav_16k.to(self.device))
        log_probs, _ = self.sounds_like(features, torch.tensor([features.shape[1]]))
        found = [(text, score) for text, score in sentences(log_probs[0].cpu()) if text][:CHOICES]
        if not found:                                                          # hardly anything: the nearest token
            return self.text([int(log_probs[0, :, :-1].amax(0).argmax())])
        likely = self.likely([[int(self.words[column]) for column in text] for text, _ in found])
        best = max(range(len(found)), key=lambda i: found[i][1] + LM_SHARE * likely[i])
        return self.text(found[best][0])

    def text(self, columns: Sequence[int]) -> str:
        """What the adapter's tokens spell."""
        return str(self.tokenizer.decode(self.words[list(columns)].tolist())).strip()

    @torch.no_grad()
    def likely(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """How likely the LLM finds it that a user says just this: log probabilities of texts, each with its end.

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

        question: (N,) float32 at 16 kHz, which is first heard, or text
        chat:     "answer", or "transcribe", in which the LLM repeats the question
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
    """The chat as transformers' chat templates want it, with the user's words in their place."""
    out = [dict(role="system", content=instruction.system)]
    for said, answer in instruction.shown:
        out += [dict(role="user", content=instruction.user.replace(SPEECH, said)),
                dict(role="assistant", content=answer)]
    return [*out, dict(role="user", content=instruction.user.replace(SPEECH, words))]


def load_config(folder: Path) -> ListenerConfig:
    """The config of a trained adapter's folder; one sentence where there is none."""
    path = folder / CONFIG
    for needed in (path, folder / ADAPTER):
        if not needed.is_file():
            raise FileNotFoundError(
                f"There is no {needed}: these ears are not trained yet, run `python -m omni_lite train --preset "
                f"{SMOLLM2.name}`, or restore them with `git checkout`.")
    try:
        return ListenerConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no config of a listener ({error!r}): {RESTORE}.") from error


def digest(module: nn.Module) -> str:
    """sha256 over the bits of all parameters and buffers, in the order of their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()
