"""CLIP's tokens against byte-pair encoding written out, for each kind of vocabulary file."""

import gzip
import itertools
import json

import numpy as np
import pytest
import tokenizers

from ganjax.pretrained.tokens import Tokenizer, WordTokenizer

MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "Ã ©</w>", "i n", "in g</w>", "! !</w>"]
START, END = "<|startoftext|>", "<|endoftext|>"


def letters():
    """The 256 bytes as characters, in the order of the vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in plain}
    hidden = (byte for byte in range(256) if byte not in plain)
    return table | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


def vocabulary():
    words = list(letters().values())
    words += [f"{word}</w>" for word in words] + ["".join(merge.split()) for merge in MERGES]
    return {word: index for index, word in enumerate([*words, START, END])}


def encode(words):
    """Ids of words, by the definition: of all pairs, the one of the lowest rank is joined first."""
    ranks = {tuple(merge.split()): rank for rank, merge in enumerate(MERGES)}
    ids = []
    for word in words:
        parts = [letters()[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while pairs := [pair for pair in itertools.pairwise(parts) if pair in ranks]:
            best = min(pairs, key=ranks.__getitem__)
            index = list(itertools.pairwise(parts)).index(best)
            parts[index : index + 2] = ["".join(best)]
        ids += [vocabulary()[part] for part in parts]
    return ids


@pytest.fixture(params=["openai", "pair", "json"])
def folder(request, tmp_path):
    if request.param == "openai":
        text = "\n".join(["#version: 0.2", *MERGES])
        (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(text.encode()))
        return tmp_path
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary()))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    if request.param == "json":
        model = Tokenizer(tmp_path)._model
        model.enable_padding(length=9)
        model.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "vocab.json").unlink()
    return tmp_path


CASES = {
    "The   CAT\n": ["the", "cat"],
    "it's 42 singing!!": ["it", "'s", "4", "2", "singing", "!!"],
    "café, 你好": ["café", ",", "你好"],
    "a &amp;amp; b": ["a", "&", "b"],
    "": [],
}


def test_ids(folder):
    tokenize = Tokenizer(folder, length=24)
    for text, words in CASES.items():
        ids = [vocabulary()[START], *encode(words), vocabulary()[END]]
        expected = np.array([*ids, *[0] * (24 - len(ids))], np.int32)
        np.testing.assert_array_equal(tokenize([text])[0], expected, err_msg=repr(text))


def test_the_end_token_of_a_long_text_comes_last(folder):
    tokenize = Tokenizer(folder, length=6)
    (row,) = tokenize(["the cat the cat the cat"])
    the, cat = vocabulary()["the</w>"], vocabulary()["cat</w>"]
    assert list(row) == [tokenize.start, the, cat, the, cat, tokenize.end]
    with pytest.raises(ValueError, match="has 6 tokens, there is room for 4"):
        tokenize(["the cat the cat the cat"], truncate=False)


def test_texts_can_be_mended_first(folder):
    tokenize = Tokenizer(folder, clean=lambda text: text.replace("\u2019", "'"))
    np.testing.assert_array_equal(tokenize(["it\u2019s"]), tokenize(["it's"]))


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match="no vocabulary of CLIP; wanted one of tokenizer.json"):
        Tokenizer(tmp_path)
    with pytest.raises(ValueError, match="no vocabulary of CLIP"):
        Tokenizer(tmp_path / "absent.json")
    other = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[]))
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="has no <|startoftext|>"):
        Tokenizer(tmp_path)


def test_words_become_ids_between_marks():
    words = WordTokenizer(("a", "circle", "red"), 6)
    assert (words.size, words.start, words.end) == (6, 4, 5)
    rows = words(["A red circle.", "red", "red red red red red"])
    np.testing.assert_array_equal(
        rows, [[4, 1, 3, 2, 5, 0], [4, 3, 5, 0, 0, 0], [4, 3, 3, 3, 3, 5]]
    )
    assert (rows.argmax(1) == [4, 2, 5]).all(), "the end has the largest id"
    with pytest.raises(ValueError, match="has 5 words, there is room for 4"):
        words(["red red red red red"], truncate=False)
    assert words.fingerprint != WordTokenizer(("a", "circle"), 6).fingerprint


def test_unknown_words_are_named_with_those_near():
    words = WordTokenizer(("a", "circle", "red"), 6)
    said = r"'a rod dragon' has words .*'rod' \(near it: red\), 'dragon'; there are a, circle, red"
    with pytest.raises(ValueError, match=said):
        words(["a rod dragon"])
    with pytest.raises(ValueError, match="holds no words"):
        words([" - "])
