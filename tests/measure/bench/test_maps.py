"""The bench of reward maps: that it measures what it says. No time is asserted."""

from __future__ import annotations

import pytest

from t2i_credit.api.parts import prepare
from t2i_credit.config.schema import load_config
from t2i_credit.measure.bench import command, maps
from t2i_credit.measure.bench.memory import can_measure

pytestmark = pytest.mark.weights


def test_every_map_is_timed_beside_its_reward_and_chunks_take_less_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maps, "TIMED", 4)
    monkeypatch.setattr(maps, "HELD", 32)
    told: list[tuple[int, int]] = []
    report = command.run(
        prepare(load_config("shapes/grpo", ["train.threads=1"])),
        parts=("maps",),
        repeats=2,
        progress=lambda done, of: told.append((done, of)),
    )
    names = [row["what"].split()[1] for row in report["rows"][:4]]
    assert names == ["clip", "aesthetic", "geneval", "geneval"]
    assert [row["unit"] for row in report["rows"]] == ["s"] * 4 + ["MiB"] * can_measure()
    assert all(row["ours"] > 0 and row["rival"] > 0 for row in report["rows"])
    assert told[-1] == (2 * maps.turns(), 2 * maps.turns())
    if can_measure():
        # the activations of 8 pictures against those of 32: a quarter, and what does not grow with them
        row = report["rows"][4]
        assert row["what"].endswith("of 32 images: 8 at a time, against all")
        assert row["ours"] < 0.7 * row["rival"]
