"""`omni-lite talk --preset smollm2`, `--llm NAME`, `--voice-only`: a chat model answers aloud."""

import argparse
from collections.abc import Callable

from omni_lite.assistant import check_device
from omni_lite.chat.assistant import ChatAssistant, HearsWords
from omni_lite.chat.ears import load_word_ears
from omni_lite.chat.llm import SMOLLM2, load_chat_model
from omni_lite.streams import Task
from omni_lite.talk import say_nothing, talk
from omni_lite.voice.folder import CONFIG, VOICE_FOLDER, load_mouth


def talk_as_chat(args: argparse.Namespace, read: Callable, adapter: Callable[[str], HearsWords]) -> None:
    """Answer every file of the command line, or read its texts aloud.

    read: gives a file's question;  adapter: loads the ears of `--ears adapter`
    """
    if args.voice_only:
        args.task = Task.T1A2
    task, name = Task(args.task), args.llm or SMOLLM2
    args.preset = "voice" if args.voice_only else name
    check_options(args)
    device = check_device(args.device)
    if task.speaks and not (args.weights or args.voice_only or (VOICE_FOLDER / CONFIG).exists()):
        (say_nothing if args.json else print)(f"There is no voice in {VOICE_FOLDER}: {name} answers in writing.")
        args.task = Task.A1T2 if task.hears else Task.T1T2

    def load() -> ChatAssistant:
        llm = None if args.voice_only else load_chat_model(name, device)
        ears: HearsWords | None = None
        if task.hears:
            ears = adapter(device) if args.ears == "adapter" else load_word_ears(args.ears, device)
        return ChatAssistant(ears, llm, load_mouth(args.weights) if Task(args.task).speaks else None)

    talk(args, load, read)


def check_options(args: argparse.Namespace) -> None:
    """Refuse, in one sentence, what only one of this project's own models can do."""
    given = {"--precision": args.precision, "--no-batch-parallel": not args.batch_parallel}
    for name in filter(given.get, given):
        raise ValueError(f"{name} is for the presets lite and mini-omni: leave it out with {args.preset}.")
