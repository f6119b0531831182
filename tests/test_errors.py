"""What libraries say, as one line that a user can do something with."""

import pytest

from t2i_credit.errors import one_line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("a\n\tb  c", "a b c"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\0b", r"'a\x00b'"),
        (
            "Error(s) in loading state_dict for CLIP:\n"
            '\tMissing key(s) in state_dict: "a.weight", "b.weight", "c". \n'
            '\tUnexpected key(s) in state_dict: "d". ',
            "its tensors are not those of a CLIP: missing are a.weight and 2 more",
        ),
        (
            'Error(s) in loading state_dict for Linear:\n\tUnexpected key(s) in state_dict: "d". ',
            "its tensors are not those of a Linear: unexpected are d",
        ),
        (
            "Error(s) in loading state_dict for CLIP:\n"
            "\tsize mismatch for x: copying a param with shape [1] from checkpoint.\n\tsize mismatch for y",
            "its tensors are not those of a CLIP: size mismatch for x: copying a param with shape [1] from checkpoint.",
        ),
        (
            "We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.",
            "not in the local cache, and the Hugging Face hub cannot be reached",
        ),
        (
            "Failed to download file (x) for a/b. Last error: An error happened while trying to locate the file on the Hub "
            "and we cannot find the requested files in the local cache. Please check your connection",
            "not in the local cache, and the Hugging Face hub cannot be reached",
        ),
    ],
)
def test_what_a_library_says_is_one_line(said: str, line: str) -> None:
    assert one_line(said) == line
