"""What a model or a reward does not read of its prompts, told in one line. Counts no tokens itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_SHOWN = 60  # characters of a prompt


def prompts_cut(
    reader: str, texts: Sequence[str], tokens: Callable[[str], int], limit: int
) -> list[str]:
    """A line about the texts whose end nobody reads; none if there are none.

    Args:
        reader: who reads them, such as "reward clip (ViT-L-14)".
        texts: repeats count once.
        tokens: the length of a text, with what is put around it.
        limit: tokens that are read.
    """
    distinct = list(dict.fromkeys(texts))
    longer = {text: count for text in distinct if (count := tokens(text)) > limit}
    if not longer:
        return []
    longest = max(longer, key=longer.__getitem__)
    return [
        f"{reader} reads {limit} tokens of a prompt: the end of {len(longer)} of {len(distinct)} changes nothing; "
        f"the longest has {longer[longest]}: {shortened(longest)!r}"
    ]


def words_unknown(
    reader: str, texts: Sequence[str], unknown: Callable[[str], Sequence[str]]
) -> list[str]:
    """A line about the words that a reader cannot tell apart; none if there are none.

    Args:
        reader: who reads them.
        texts: repeats count once.
        unknown: a text's unknown words.
    """
    distinct = list(dict.fromkeys(texts))
    found = {text: words for text in distinct if (words := unknown(text))}
    if not found:
        return []
    words = list(dict.fromkeys(word for some in found.values() for word in some))
    more = f" and {len(words) - 5} other words" if len(words) > 5 else ""
    prompts = f" ({len(found)} of {len(distinct)} prompts)" if len(distinct) > 1 else ""
    return [f"{reader} has never seen {', '.join(words[:5])}{more}{prompts}"]


def shortened(text: str) -> str:
    """A text, or its beginning and three dots."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
