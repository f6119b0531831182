"""The bench: its arithmetic on hand-made numbers, and that it measures what it says. No time is asserted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import PROMPTS, WideConfig, tiny_model, write_tiny_model
from typer.testing import CliRunner

from t2i_credit.advantages import ADVANTAGES
from t2i_credit.api.memory import PROMPT
from t2i_credit.api.parts import Parts
from t2i_credit.cli.commands import app
from t2i_credit.config.schema import Config, parse_config
from t2i_credit.errors import UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.bench import command, update
from t2i_credit.measure.bench.memory import MemorySize, can_measure, peak
from t2i_credit.measure.bench.rollout import bytes_read, reading_time
from t2i_credit.measure.bench.timing import alone, compared, interleaved, table
from t2i_credit.measure.intervals import median_interval
from t2i_credit.models.embedded_model import EmbeddedModel
from t2i_credit.rollout.sampling import decode_batch, sampling_noise

SMALL = MemorySize(tokens=2048, codes=4096, width=16, chunk=128)


def brightness(images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, Tensor]]:
    """A reward that needs no detector."""
    found = images.mean((1, 2, 3))
    return found, {"brightness": found}


def measured(model: EmbeddedModel, chosen: Config, **changed: Any) -> dict[str, Any]:
    advantage, credit = ADVANTAGES["group_normalized"], chosen.credit.entry
    return command.run(
        Parts(chosen, model, None, brightness, PROMPTS, advantage, credit),
        {"brightness": brightness},
        **{"repeats": 2, "memory": SMALL, "parts": command.PARTS[:-1], **changed},
    )


# Statistics -------------------------------------------------------------------------------------------------------


def test_variants_take_turns_and_each_goes_first_in_every_other_repeat() -> None:
    calls: list[tuple[str, int]] = []

    def ours(repeat: int) -> float:
        calls.append(("ours", repeat))
        return 10.0 + repeat

    def rival(repeat: int) -> float:
        calls.append(("rival", repeat))
        return 20.0 + repeat

    finished: list[None] = []
    assert interleaved(ours, rival, 3, lambda: finished.append(None)) == (
        [10.0, 11.0, 12.0],
        [20.0, 21.0, 22.0],
    )
    assert calls == [
        ("ours", 0), ("rival", 0), ("rival", 1), ("ours", 1), ("ours", 2), ("rival", 2),
    ]  # fmt: skip
    assert len(finished) == 3


def test_the_ratio_is_the_median_of_the_paired_ratios() -> None:
    # ratios 2, 1, 3: their median is 2, while the medians 4 and 3 have a ratio of 4/3
    row = compared("a against b", "s", [2.0, 4.0, 9.0], [1.0, 4.0, 3.0])
    assert (row["ours"], row["rival"], row["ratio"], row["repeats"]) == (4.0, 3.0, 2.0, 3)
    # three draws from 1, 2, 3 have the median 1 with probability 3 (1/3)^2 (2/3) + (1/3)^3 = 0.26, and so has 3:
    # both lie within the middle 95%
    assert row["interval"] == [1.0, 3.0]


def test_the_interval_leaves_out_medians_that_are_too_rare() -> None:
    # seven draws from 1..7 have the median 1 if at least four are 1: 35 6^3/7^7 + 21 6^2/7^7 + 7 6/7^7 + 1/7^7
    # = 0.010, less than 2.5%; at most 2 has 0.105. From above likewise.
    assert median_interval([4, 7, 1, 6, 2, 5, 3]) == [2.0, 6.0]


def test_one_outlier_in_fifteen_does_not_move_the_interval() -> None:
    # it would have to be drawn at least eight times of fifteen: below 15!/(8! 7!) / 15^8 = 3e-6
    assert median_interval([1.0] * 14 + [100.0]) == [1.0, 1.0]


def test_a_measurement_without_a_rival_has_the_interval_of_its_own_median() -> None:
    row = alone("tokens", "tokens/s", [5.0, 5.0, 5.0])
    assert row == {
        "what": "tokens", "unit": "tokens/s", "ours": 5.0, "rival": None, "ratio": None,
        "interval": [5.0, 5.0], "repeats": 3,
    }  # fmt: skip


def test_the_table_shows_units_and_which_number_an_interval_belongs_to() -> None:
    rows = [
        compared("a against b", "s", [2.0, 4.0, 9.0], [1.0, 4.0, 3.0]),
        alone("rate", "tokens/s", [12_345.6] * 3),
    ]
    assert table({"rows": rows}) == [
        {
            "what": "a against b", "ours": "4.000 s", "rival": "3.000 s", "ratio": "2.000",
            "interval": "1.000 to 3.000", "repeats": "3",
        },
        {
            "what": "rate", "ours": "12,346 tokens/s", "rival": "none", "ratio": "none",
            "interval": "12,346 to 12,346", "repeats": "3",
        },
    ]  # fmt: skip


# What is measured -------------------------------------------------------------------------------------------------


def test_a_report_has_finite_numbers_fit_for_json_and_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # processes are slow to start: those of the memory measurement have a test of their own
    asked: list[tuple[str, int]] = []
    peaks = {"chunked": 3 * 2.0**20, "held": 9 * 2.0**20}

    def peak_of(way: str, size: MemorySize, seed: int) -> dict[str, float]:
        asked.append((way, seed))
        return {"peak": peaks[way], "seconds": 0.5}

    monkeypatch.setattr(command, "can_measure", lambda: True)
    monkeypatch.setattr(update, "peak", peak_of)
    model = tiny_model(WideConfig)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [p.requires_grad for p in model.parameters()]
    threads, told = torch.get_num_threads(), []
    chosen = parse_config({"prompts": {"per_step": 2}, "rollout": {"group_size": 2}})
    report = measured(model, chosen, progress=lambda done, of: told.append((done, of)))

    rows = report["rows"]
    units = ["MiB", "s", "s", "s", "s", "tokens/s", "tokens/s", "images/s"]
    assert [row["unit"] for row in rows] == units
    assert [row["rival"] is None for row in rows] == [False] * 5 + [True] * 3
    assert asked == [("chunked", 0), ("held", 0), ("held", 1), ("chunked", 1)]
    assert [(row["ours"], row["rival"]) for row in rows[:2]] == [(3.0, 9.0), (0.5, 0.5)]
    assert "brightness: images of 16 x 24 pixels" in rows[7]["what"]
    assert report["passes"] == {"counted": 4.0, "expected": 4.0}
    for row in rows:
        numbers = [row[n] for n in ("ours", "rival", "ratio") if row[n] is not None]
        assert all(math.isfinite(n) and n > 0 for n in [*numbers, *row["interval"]]), row
        assert row["interval"][0] <= row["interval"][1]
        assert row["repeats"] == 2
    assert len({row["what"] for row in rows}) == len(rows)
    assert len(table(report)) == len(rows)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["settings"]["grid"] == [2, 3]

    assert told == [(done, 10) for done in range(11)]  # five measurements of two repeats
    assert model.logits_at_once == EmbeddedModel.logits_at_once
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == trained
    assert all(p.grad is None for p in model.parameters())


def test_sampling_that_keeps_nothing_draws_the_same_tokens() -> None:
    model = tiny_model(WideConfig)
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    settings: dict[str, Any] = {"cfg_scale": 2.0, "temperature": 0.9, "top_k": 0, "top_p": 1.0}
    noise = sampling_noise(3, 0, 2 * len(PROMPTS), 6)
    kept = decode_batch(model, condition, 2, noise, **settings)
    bare = decode_batch(model, condition, 2, noise, **settings, keep=False)
    assert set(bare) == {"tokens"}
    assert {"logprobs", "negative_logprobs", "guided_logprobs", "entropy"} < set(kept)
    assert torch.equal(bare["tokens"], kept["tokens"])


def test_a_configuration_without_guidance_is_refused() -> None:
    with pytest.raises(UserError, match=r"rollout\.cfg_scale: 1\.0"):
        measured(tiny_model(), parse_config({"rollout": {"cfg_scale": 1.0}}))


def test_only_the_parts_that_are_asked_for_are_measured() -> None:
    chosen = parse_config({"prompts": {"per_step": 2}, "rollout": {"group_size": 2}})
    report = measured(tiny_model(), chosen, parts=("rollout",))
    assert [row["what"].split()[0] for row in report["rows"]] == ["sampling"]
    assert report["passes"] == {}
    with pytest.raises(UserError, match="'steps' is no part; known: rollout, update, step, rewar"):
        measured(tiny_model(), chosen, parts=("steps",))


@pytest.mark.gpu
def test_on_a_gpu_replayed_steps_are_measured_beside_ordinary_ones() -> None:
    chosen = parse_config({"prompts": {"per_step": 2}, "rollout": {"group_size": 2}})
    told: list[tuple[int, int]] = []
    report = measured(
        tiny_model(WideConfig).cuda(),
        chosen,
        parts=("rollout",),
        progress=lambda done, of: told.append((done, of)),
    )
    assert report["settings"]["decoding"] == "captured"
    _, replayed, limit = report["rows"]
    assert "replayed as CUDA graphs, against steps one by one" in replayed["what"]
    assert replayed["ours"] > 0 and replayed["rival"] > 0
    assert "copy bandwidth" in limit["what"]
    assert told[-1] == (4, 4)


def test_the_limit_of_decoding_reads_weights_and_the_filled_cache_at_every_step() -> None:
    model = tiny_model(WideConfig)
    weights = sum(p.numel() for p in model.language_model.layers.parameters())
    # five steps that feed a token back, with PROMPT + 1 to PROMPT + 5 positions in the cache: keys and values of two
    # layers of width 32 in each of 3 rows
    filled = 5 * PROMPT + 15
    assert bytes_read(model, 3) == 4 * (5 * weights + filled * 2 * 2 * 32 * 3)
    spent, bandwidth = reading_time(model, 3)
    assert spent * bandwidth == pytest.approx(bytes_read(model, 3))


# Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not can_measure(), reason="needs Linux's account of peak memory")
def test_chunked_logprobs_equal_held_ones_and_the_memory_of_a_process_is_measured() -> None:
    # (N, V) is 2048 x 4096 x 4 bytes = 32 MiB: held as log-probs, and once or twice more in the backward pass. How much
    # less the chunked ones take is asked of the tensors themselves in test_logprobs.py: what a system gives a process
    # hangs on what else it does.
    held = peak("held", SMALL, 0)
    chunked = peak("chunked", SMALL, 0)
    assert held["peak"] > 2 * 32 * 2**20
    assert chunked["peak"] > 0
    assert chunked["mean"] == pytest.approx(held["mean"], rel=1e-5)
    assert chunked["gradient"] == pytest.approx(held["gradient"], rel=1e-4)


def test_the_measured_chunk_is_the_one_that_a_model_of_so_many_codes_takes() -> None:
    assert MemorySize().chunk == EmbeddedModel.logits_at_once // MemorySize().codes


@pytest.mark.skipif(not can_measure(), reason="needs Linux's account of peak memory")
def test_a_measuring_process_that_fails_is_reported_in_one_line() -> None:
    with pytest.raises(UserError, match="measuring the memory of sideways log-probs") as caught:
        peak("sideways", SMALL, 0)
    assert "\n" not in str(caught.value)


# The command ------------------------------------------------------------------------------------------------------


def test_the_command_measures_the_parts_and_saves_the_report(tmp_path: Path) -> None:
    folder, file = str(write_tiny_model(tmp_path / "model")), tmp_path / "bench.json"
    words = ["step", "rewards", "prompts.per_step=2", "rollout.group_size=2"]
    asked = ["bench", *words, "--model", folder, "--repeats", "3", "--json", str(file)]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "forward passes per trained image token: 4 counted by hooks, 4 expected" in shown.output
    report = json.loads(file.read_text())
    assert report["settings"]["model"] == folder and report["settings"]["group_size"] == 2
    judged = [row["what"].split()[1] for row in report["rows"] if row["unit"] == "images/s"]
    assert judged == ["geneval:", "clip:", "aesthetic:"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "none/bench.json"], "--json: there is no folder none"),
        (["sampling"], "bench: 'sampling' is no part; known: rollout, update, step, rewards"),
        (["rollout.group_siz=2"], "rollout.group_siz"),
        (["--model", "janus-pro-2b", "--random-init"], "known: janus-small, janus-pro-1b"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_loaded(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load_model", lambda name: pytest.fail("it loaded"))
    shown = CliRunner().invoke(app, ["bench", *words])
    assert isinstance(shown.exception, UserError)
    assert said in str(shown.exception)
