"""Prompts as people give them: on the command line, or a file with one in each line."""

import hashlib
import os
import pathlib
import re
from collections.abc import Sequence


def gather(given: Sequence[str], file: str | os.PathLike | None = None) -> tuple[str, ...]:
    """The prompts that are given, then those of a file, whose empty lines do not count.

    Raises:
      ValueError: a prompt that is empty; a file that is not there, not UTF-8, or without a prompt.
    """
    prompts = [prompt.strip() for prompt in given]
    if not all(prompts):
        raise ValueError("A prompt is empty; give it some words: --prompt='a red circle'.")
    if file is None:
        return tuple(prompts)
    path = pathlib.Path(file)
    if not path.is_file():
        raise ValueError(f"--prompts={path}: there is no such file; one prompt a line is wanted.")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompts={path}: not UTF-8 ({error}); save it as such.") from None
    if not any(lines):
        raise ValueError(f"--prompts={path} is empty; one prompt a line is wanted.")
    return (*prompts, *filter(None, lines))


def short_name(prompts: Sequence[str]) -> str:
    """A name for a file, another for other prompts: the first one's words and a few digits."""
    words = re.sub(r"\W+", "_", prompts[0].lower()).strip("_")[:40].rstrip("_")
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:6]
    return f"{words}-{digest}" if words else digest
