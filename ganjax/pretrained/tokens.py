"""CLIP's byte-pair tokens, from the vocabulary files of a checkpoint; and tokens of few words."""

import difflib
import gzip
import hashlib
import html
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import Regex, models, normalizers, pre_tokenizers

START, END = "<|startoftext|>", "<|endoftext|>"
PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
OPENAI_MERGES = 49152 - 256 - 2  # of the longer list in OpenAI's file
NAMES = ("tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz")
FILES = ("tokenizer.json", "vocab.json and merges.txt", "bpe_simple_vocab_16e6.txt.gz")


class Tokenizer:
    """Texts to ids: start, byte pairs, end, zeros.

    NOTE: OpenAI's code first mends texts by `ftfy` (broken encodings, curly quotes); this one only
    resolves HTML entities. Give `clean=ftfy.fix_text` where captions need it.

    Args:
        path: a tokenizer.json; bpe_simple_vocab_16e6.txt.gz; or the folder of one of them, or of
            vocab.json and merges.txt.
        length: of every row.
        clean: what happens to a text first.

    Attributes:
        fingerprint: of the vocabulary.

    Raises:
        ValueError: no such file.
    """

    def __init__(
        self, path: str | Path, length: int = 77, clean: Callable[[str], str] = lambda text: text
    ):
        self.length = length
        self._clean = clean
        self._model = _read(Path(path))
        self.fingerprint = hashlib.sha256(self._model.to_str().encode()).hexdigest()[:16]
        start, end = (self._model.token_to_id(token) for token in (START, END))
        if start is None or end is None:
            raise ValueError(f"{path} has no {START} and {END}; it is no vocabulary of CLIP")
        self.start, self.end = start, end

    def __call__(self, texts: Sequence[str], truncate: bool = True) -> Int[np.ndarray, "n length"]:
        """Ids, int32; the end token of a text that is too long takes the last place.

        Raises:
            ValueError: a text is too long, if it is not to be truncated.
        """
        rows = np.zeros((len(texts), self.length), np.int32)
        for row, text in zip(rows, texts):
            text = html.unescape(html.unescape(self._clean(text))).strip()
            ids = self._model.encode(text, add_special_tokens=False).ids
            if len(ids) > self.length - 2:
                if not truncate:
                    raise ValueError(
                        f"{text!r} has {len(ids)} tokens, there is room for {self.length - 2};"
                        " shorten it, or have it cut off by truncate=True"
                    )
                ids = ids[: self.length - 2]
            row[: len(ids) + 2] = [self.start, *ids, self.end]
        return rows


class WordTokenizer:
    """Texts of few words to ids: start, words, end, zeros; the end has the largest id, as in CLIP.

    Case and punctuation do not count.

    Args:
        words: all that are known, each once.
        length: of every row.

    Attributes:
        fingerprint: of the vocabulary.
        size: of the vocabulary, ids are 0 to size - 1.
    """

    def __init__(self, words: Sequence[str], length: int):
        self.length = length
        self.words = tuple(words)
        self.size = len(self.words) + 3
        self.start, self.end = self.size - 2, self.size - 1
        self.fingerprint = hashlib.sha256(" ".join(self.words).encode()).hexdigest()[:16]
        self._ids = {word: index + 1 for index, word in enumerate(self.words)}

    def __call__(self, texts: Sequence[str], truncate: bool = True) -> Int[np.ndarray, "n length"]:
        """Ids, int32; the end token of a text that is too long takes the last place.

        Raises:
            ValueError: unknown words, or none; a text is too long, if it is not to be truncated.
        """
        rows = np.zeros((len(texts), self.length), np.int32)
        for row, text in zip(rows, texts):
            words = re.findall(r"[^\W_]+", text.lower())
            unknown = [word for word in dict.fromkeys(words) if word not in self._ids]
            if unknown or not words:
                raise ValueError(self._what_is_known(text, unknown))
            if len(words) > self.length - 2 and not truncate:
                raise ValueError(
                    f"{text!r} has {len(words)} words, there is room for {self.length - 2};"
                    " shorten it, or have it cut off by truncate=True"
                )
            ids = [self._ids[word] for word in words[: self.length - 2]]
            row[: len(ids) + 2] = [self.start, *ids, self.end]
        return rows

    def _what_is_known(self, text: str, unknown: Sequence[str]) -> str:
        if not unknown:
            return f"{text!r} holds no words; there are {', '.join(self.words)}"
        near = {word: difflib.get_close_matches(word, self.words, 3, 0.5) for word in unknown}
        parts = [
            f"{word!r}" + (f" (near it: {', '.join(close)})" if close else "")
            for word, close in near.items()
        ]
        return (
            f"{text!r} has words that this small vocabulary does not know: {', '.join(parts)};"
            f" there are {', '.join(self.words)}"
        )


AnyTokenizer = Tokenizer | WordTokenizer


def has_vocabulary(folder: Path) -> bool:
    """Whether `Tokenizer` finds something to read in a folder."""
    return any((folder / name).is_file() for name in NAMES)


def _read(path: Path) -> tokenizers.Tokenizer:
    folder = path if path.is_dir() else path.parent
    names = [path.name] if path.is_file() else []
    if path.is_dir():
        names = [name for name in NAMES if (path / name).is_file()]
    for name in names:
        file = folder / name
        if name.endswith(".gz"):
            lines = gzip.decompress(file.read_bytes()).decode().splitlines()
            return _build(*_openai(lines[1 : OPENAI_MERGES + 1]))
        if name == "vocab.json" and (folder / "merges.txt").is_file():
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
            return _build(json.loads(file.read_text(encoding="utf-8")), merges)
        if name.endswith(".json") and name != "vocab.json":
            model = tokenizers.Tokenizer.from_file(str(file))
            model.no_truncation()
            model.no_padding()
            return model
    raise ValueError(
        f"{path}: found no vocabulary of CLIP; wanted one of {', '.join(FILES)}, which come with"
        " the checkpoint (Hugging Face: openai/clip-vit-large-patch14; the last one is in the"
        " repository openai/CLIP under clip/)"
    )


def _pair(line: str) -> tuple[str, str]:
    left, right = line.split()
    return left, right


def _openai(lines: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids in the order of OpenAI's list: bytes, bytes at the end of words, merges, marks."""
    merges = [_pair(line) for line in lines]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable]
    letters += [chr(256 + index) for index in range(len(others))]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [left + right for left, right in merges]
    return {word: index for index, word in enumerate([*words, START, END])}, merges


def _build(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    model = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=END,
        )
    )
    model.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    model.add_special_tokens([START, END])
    return model
