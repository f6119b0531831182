"""What loading says of a prompt file that is wrong. Holds no test."""

from __future__ import annotations

from typing import Any

import pytest

from t2i_credit.errors import PromptError
from t2i_credit.prompts.files import load_prompts


def refusal(name: str, **options: Any) -> str:
    """The one line that `load_prompts` refuses a file with."""
    with pytest.raises(PromptError) as caught:
        load_prompts(name, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
