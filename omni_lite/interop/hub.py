"""Files of other people: download them, then read their pickles without running code."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import huggingface_hub
import torch

MAIN = "main"                                # the hub's newest commit


def split_revision(name: str, revision: str = MAIN) -> tuple[str, str]:
    """The id and the revision of "owner/name@revision"; `revision` if the name has none."""
    repository, _, own = name.partition("@")
    return repository, own or revision


def download(name: str, files: Sequence[str], own: str | Path | None = None, revision: str = MAIN) -> Path:
    """The folder that holds these files (or patterns) of a repository on the Hugging Face hub.

    name:     "owner/name", or "owner/name@revision"
    own:      the folder where a user can put the files instead, for the message
    revision: a branch, tag or commit. "main" is whatever the owner uploads next; only a commit always means
              the same files, so give one where results must be repeatable

    Only the first call needs the internet. Raises an OSError of one sentence if the download fails.
    """
    repository, revision = split_revision(name, revision)
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except Exception as error:               # many kinds: no internet, no such name, a gate, a full disk
        raise OSError(
            f"{name} is not on this machine and could not be fetched from the Hugging Face hub "
            f"({one_line(error)}): check the name and go online once, or download {', '.join(files)} "
            f"{f'into {own}' if own else 'and give their folder'}."
        ) from error


def one_line(error: BaseException) -> str:
    """The first sentence of an exception, or its name: short enough for a message of ours."""
    text = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    return re.split(r"(?<=[^.])\. ", text)[0].rstrip(".")


def load_pickle(path: str | Path) -> dict[str, Any]:
    """Read a file of `torch.save` on the CPU: tensors by name. Code in the file never runs.

    An archive is mapped: the system reads a tensor's bytes at their first use, and may drop them again.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: fetch it again, or give the folder that holds it.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        with open(path, "rb") as file:
            pickled = code or file.read(1) == b"\x80"
        if not pickled:
            raise ValueError(f"{path} is damaged or not a file of torch.save: fetch it again.") from error
        raise ValueError(
            f"{path} wants to run code{f' ({code[1]})' if code else ''} where there should only be tensors: "
            "nothing of it was run, get the file again from a source that you trust."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged or cut short ({one_line(error)}): fetch it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__} instead of tensors by name: fetch it again.")
    return found
