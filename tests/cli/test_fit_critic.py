"""The verb that fits a critic, as it is typed, on a toy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from toys import recipe
from typer.testing import CliRunner

from t2i_credit.cli.commands import app
from t2i_credit.errors import UserError


def test_a_critic_is_fitted_and_the_line_that_uses_it_is_said(tmp_path: Path) -> None:
    config = recipe(tmp_path, credit={"name": "value"}, critic={"width": 8})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    file = tmp_path / "critic.safetensors"
    words = ["fit-critic", str(tmp_path / "mine.yaml"), "critic.updates=1", "--out", str(file)]
    done = CliRunner().invoke(
        app, [*words, "--batches", "8", "--passes", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0 and file.is_file()
    said = " ".join(done.output.split())
    assert "sampling: 8 of 8" in said and "critic/explained" in said and "images" in said
    shown = dict(re.findall(r"(critic/\S+|seconds) +│ +(\S+)", done.output))
    assert len(shown) == 8
    assert all(len(v.replace(".", "").lstrip("-0")) <= 3 for v in shown.values()), shown
    unbelieved = "not above its standard error" in said
    assert unbelieved == (shown["critic/weight"] == "0")
    assert f"critic.file={file}" in done.output.replace("\n", "")
    with pytest.raises(UserError, match="never overwritten"):
        CliRunner().invoke(app, words, catch_exceptions=False)
