import pytest

from ganjax.sampling.prompts import gather, short_name


def test_prompts_come_first_then_those_of_the_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa blue star\n\n  ein grüner Drache \r\n".encode())
    assert gather([" a red circle"], file) == ("a red circle", "a blue star", "ein grüner Drache")
    assert gather([]) == ()


@pytest.mark.parametrize(
    "content, said", [(b" \n\n", "is empty"), (b"\xff\xfe", "not UTF-8"), (None, "no such file")]
)
def test_a_file_that_holds_no_prompts_is_an_error(content, said, tmp_path):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"prompts.txt.*{said}"):
        gather([], file)


def test_an_empty_prompt_is_an_error():
    with pytest.raises(ValueError, match="A prompt is empty"):
        gather(["a star", " "])


def test_other_prompts_have_another_name():
    one, other = short_name(["A red circle!"]), short_name(["A red circle!", "a star"])
    assert one.startswith("a_red_circle-") and other.startswith("a_red_circle-") and one != other
    long = short_name(["word " * 50])
    assert len(long) <= 47 and "/" not in short_name(["a/b"]) and short_name(["!"])
