"""The bench of a Janus against transformers' own generation: that both do the work, not how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import write_tiny_janus
from toys import write_tiny_model

from t2i_credit import bench_janus
from t2i_credit.bench_statistics import table
from t2i_credit.errors import UserError


def test_both_generate_all_tokens_of_the_same_random_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_janus.SIZES, "tiny", (1, 32, 2, 48))
    model = bench_janus.random_janus("tiny", side=3, codes=16, vocabulary=64)
    assert model.grid == (3, 3) and not model.training
    runs: list[int] = []
    model.language_model.register_forward_hook(lambda *_: runs.append(1))
    report = bench_janus.rollout(model, name="tiny", group_size=2, repeats=3)
    # ours and theirs: a prompt and 8 tokens fed back, once to warm up and three times measured
    assert len(runs) == 2 * 4 * 9
    (row,) = report["rows"]
    assert row["ours"] > 0 and row["rival"] > 0 and row["repeats"] == 3
    speed = report["settings"]["ours_tokens_per_second"]
    assert speed == pytest.approx(2 * 9 / row["ours"])
    assert "JanusForConditionalGeneration.generate" in table(report)[0]["what"]


def test_a_saved_janus_is_measured_and_another_model_refused(tmp_path: Path) -> None:
    write_tiny_janus(tmp_path / "janus")
    loaded: Any = bench_janus.model_for(str(tmp_path / "janus"), random_init=False)
    assert loaded.grid == (4, 4)
    write_tiny_model(tmp_path / "other")
    with pytest.raises(UserError, match="is a EmbeddedModel; this bench takes a Janus"):
        bench_janus.model_for(str(tmp_path / "other"), random_init=False)
    with pytest.raises(UserError, match="known: janus-small, janus-pro-1b, janus-pro-7b"):
        bench_janus.model_for("shapes", random_init=True)
