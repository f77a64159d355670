"""What a chat model itself would say: SmolLM2's answers to questions about WordNet's words."""

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from omni_lite.audio import atomic_write
from omni_lite.chat.llm import ChatModel, load_chat_model
from omni_lite.recipes.voice.texts import by_part, question
from omni_lite.recipes.voice.wordnet import Synset
from omni_lite.voice.words import plain_text

BATCH, PART = 48, 960                        # questions of a batch, and of a file
TOKENS = 72                                  # of an answer; a sentence that is cut is left out
TEMPERATURE, TOP_P = 0.9, 0.95


def draw_questions(meanings: Sequence[Synset], count: int, seed: int = 0, held_out: bool = False) -> list[str]:
    """Different questions, around words of the held-out meanings or of the others."""
    rng = random.Random(f"questions {seed} {held_out}")
    words = by_part([one for one in meanings if one.held_out == held_out])
    found: dict[str, None] = {}
    while len(found) < count:
        text = question(rng, words)
        if text.endswith("?"):
            found[text] = None
    return list(found)


def spoken_texts(answer: str) -> list[str]:
    """The texts of one answer, a line each, without Markdown and without a last sentence that was cut."""
    lines = [re.sub(r"\s+", " ", plain_text(line)).strip() for line in answer.split("\n")]
    whole = [re.sub(r"[^.!?]*$", "", line).strip() if re.search(r"[.!?]", line) else "" for line in lines]
    return [line for line in whole if len(line) > 2 and line.isascii()]


def write_answers(questions: Sequence[str], folder: Path, target: Path, say: Callable[[str], None] = print) -> None:
    """Answer all questions, in parts; parts that are there already are kept.

    folder: of the parts;  target: one text a line
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"answers-{first // PART:03d}.txt" for first in range(0, len(questions), PART)]
    if not all(part.exists() for part in parts):
        chat = load_chat_model()
        for number, part in enumerate(parts):
            if not part.exists():
                some = questions[number * PART : (number + 1) * PART]
                torch.manual_seed(number)
                batches = [some[i : i + BATCH] for i in range(0, len(some), BATCH)]
                texts = [text for batch in batches for answer in sample_answers(chat, batch)
                         for text in spoken_texts(answer)]
                with atomic_write(part) as temporary:
                    temporary.write_text("\n".join(texts) + "\n", encoding="utf-8")
                say(f"answers  {number + 1} of {len(parts)} parts")
    lines = [line for part in parts for line in part.read_text(encoding="utf-8").splitlines()]
    with atomic_write(target) as temporary:
        temporary.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")


def sample_answers(chat: ChatModel, questions: Sequence[str], tokens: int = TOKENS) -> list[str]:
    """Sampled answers to several questions at once."""
    prompts = [chat.prompt([dict(role="user", content=text)]) for text in questions]
    longest = max(map(len, prompts))
    pad = chat.tokenizer.pad_token_id or chat.tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (longest - len(one)) + one for one in prompts], device=chat.device)
    there = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts], device=chat.device)
    said = chat.lm.generate(ids, attention_mask=there, max_new_tokens=tokens, do_sample=True, temperature=TEMPERATURE,
                            top_p=TOP_P, pad_token_id=pad)
    return [str(one) for one in chat.tokenizer.batch_decode(said[:, longest:], skip_special_tokens=True)]
