"""What the app shows, without a server: payloads, figures, words, errors; the numbers are the run's own."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import threading

import numpy as np
import pytest
from app_toys import (
    HEIGHT,
    PROBE,
    PROMPT,
    WIDTH,
    G,
    H,
    V,
    W,
    floats,
    notice_of,
    say_state,
    write_toy_run,
    write_toy_step,
)
from gradio.state_holder import SessionState
from PIL import Image

from t2i_credit.app import (
    charts,
    compare,
    credit_maps,
    evaluation,
    figures,
    studio,
    training,
    words,
)
from t2i_credit.app.page import build_page
from t2i_credit.app.payload import encode, located, outline, palettes, picture_url
from t2i_credit.app.playground import MODES, asked
from t2i_credit.app.runs import Recorded, RunShelf, liveliest
from t2i_credit.app.server import check_login, free_port, is_loopback, start
from t2i_credit.errors import RunError, UserError
from t2i_credit.run_folder.layout import encode_mask
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.status import RunStatus
from t2i_credit.run_folder.writer import RunWriter


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    root = tmp_path_factory.mktemp("shelf")
    write_toy_run(root / "one")
    return RunShelf(root)


@pytest.fixture
def fresh(tmp_path):
    write_toy_run(tmp_path / "one")
    return RunShelf(tmp_path)


# ---- credit maps


def test_the_browser_gets_the_numbers_of_the_arrays_file(shelf):
    value = credit_maps.show(shelf, "one", {"step": 5})
    group = value["group"]
    arrays = RunReader(shelf.root / "one").step(5).arrays
    assert group["step"] == 5 and group["grid"] == [H, W] and group["codebook"] == V
    for sample in group["samples"]:
        codes = np.frombuffer(base64.b64decode(sample["tokens"]), "<i4")
        np.testing.assert_array_equal(codes, arrays["tokens"][sample["place"]])
        for name in ("logprobs", "negative_logprobs", "credit", "token_advantages"):
            shown = floats(sample["arrays"][name])
            np.testing.assert_array_equal(shown, arrays[name][sample["place"]])


def test_a_group_comes_best_reward_first_and_on_one_scale(shelf):
    group = credit_maps.show(shelf, "one", {"step": 5, "prompt": PROMPT})["group"]
    assert [sample["reward"] for sample in group["samples"]] == [3.0, 2.0, 1.0, 0.0]
    values = np.concatenate([floats(s["arrays"]["token_advantages"]) for s in group["samples"]])
    assert 0 < group["scale"]["advantage"] <= np.abs(values).max()


def test_a_step_that_is_not_recorded_gives_the_one_next_to_it(shelf):
    assert credit_maps.show(shelf, "one", {"step": 6})["group"]["step"] == 5
    assert credit_maps.show(shelf, "one", {})["group"]["step"] == 9


def test_another_step_keeps_the_prompt_where_it_was_recorded(shelf):
    for prompt in (PROMPT, PROBE):
        assert (
            credit_maps.show(shelf, "one", {"step": 1, "prompt": prompt})["group"]["prompt"]
            == prompt
        )


def test_a_film_shows_one_prompt_at_every_recorded_step_on_one_scale(shelf):
    film = credit_maps.film(shelf, "one", PROBE)
    assert [frame["step"] for frame in film["frames"]] == [1, 5, 9]
    assert film["grid"] == [H, W] and film["scale"]["advantage"] > 0


def test_a_film_of_a_prompt_recorded_once_names_one_that_comes_back(tmp_path):
    run = RunWriter(write_toy_run(tmp_path / "one", steps=(1, 5)))
    write_toy_step(run, 9, ("a green ring", PROBE))
    film = credit_maps.film(RunShelf(tmp_path), "one", "a green ring")
    assert "1 step(s)" in film["notice"][1] and PROBE in film["notice"][1]


def test_the_table_holds_every_token_of_the_group_exactly(shelf):
    asked_for = {"run": "one", "kind": "csv", "step": 5, "prompt": PROMPT}
    made = credit_maps.save(shelf, asked_for)
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(made["data"]).decode())))
    arrays = RunReader(shelf.root / "one").step(5).arrays
    assert made["name"] == "one-step5.csv" and len(rows) == G * H * W
    row = rows[
        H * W + 7
    ]  # the second sample's eighth token: row 1, column 2 of a grid of 5 columns
    assert (row["sample"], row["token"], row["row"], row["column"]) == ("1", "7", "1", "2")
    assert int(row["code"]) == arrays["tokens"][1, 7]
    for name in ("logprobs", "negative_logprobs", "credit", "token_advantages"):
        assert np.float32(row[name]) == arrays[name][1, 7], name


def test_a_prompt_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    write_toy_run(tmp_path / "one", prompts=("=HYPERLINK(1)", PROBE))
    made = credit_maps.save(
        RunShelf(tmp_path), {"run": "one", "kind": "csv", "prompt": "=HYPERLINK(1)"}
    )
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(made["data"]).decode())))
    assert rows[0]["prompt"] == "'=HYPERLINK(1)"


def test_the_picture_and_the_film_can_be_opened(shelf):
    for kind, frames in (("png", 1), ("gif", 3)):
        made = credit_maps.save(shelf, {"run": "one", "kind": kind, "step": 5, "prompt": PROBE})
        with Image.open(io.BytesIO(base64.b64decode(made["data"]))) as picture:
            assert getattr(picture, "n_frames", 1) == frames
            assert picture.width > 600


@pytest.mark.parametrize("asked_for", [{"kind": "exe"}, {"kind": "png", "place": "../1"}, {}])
def test_what_cannot_be_downloaded_is_said(shelf, asked_for):
    assert credit_maps.save(shelf, {"run": "one", **asked_for})["error"]


# ---- outlines and where the credit lies


def test_an_outline_walks_around_the_mask_on_pixel_edges():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    assert sorted(outline(mask).replace("M", " M").split()) == sorted(
        ["M2", "1H5", "M2", "3H5", "M2", "1V3", "M5", "1V3"]
    )


def test_an_outline_goes_along_the_border_of_the_picture_too():
    assert outline(np.ones((2, 3), dtype=bool)) == "M0 0H3M0 2H3M0 0V2M3 0V2"


def test_credit_on_objects_counts_each_token_by_the_share_that_is_covered():
    # 2 x 4 pixels, 1 x 2 tokens of 2 x 2 pixels; the object covers half of the first token and nothing else
    mask = np.zeros((2, 4), dtype=bool)
    mask[0, 0:2] = True
    entry = [{"prompted": True, "mask": encode_mask(mask)}]
    found = located(np.array([1.6, 0.4], np.float32), entry, (1, 2), (2, 4))
    assert found == {"on_objects": pytest.approx(1.6), "area": pytest.approx(0.25)}


def test_objects_that_the_prompt_does_not_name_do_not_count():
    entry = [{"prompted": False, "mask": encode_mask(np.eye(2, dtype=bool))}]
    assert located(np.ones(4, np.float32), entry, (2, 2), (2, 2)) is None


def test_every_palette_has_a_middle_and_a_diverging_one_is_neutral_there():
    for kind, known in palettes().items():
        for name, text in known.items():
            lut = np.frombuffer(base64.b64decode(text), np.uint8).reshape(257, 3)
            if (
                kind != "sequential"
            ):  # almost without colour in the middle, and different at the ends
                assert np.ptp(lut[128].astype(int)) <= 3, name
                assert np.abs(lut[0].astype(int) - lut[256]).sum() > 100, name


def test_numbers_that_are_not_finite_stay_so_and_the_order_of_bytes_is_fixed():
    values = np.array([np.nan, np.inf, 0.5], np.float32)
    np.testing.assert_array_equal(floats(encode(values)), values)
    np.testing.assert_array_equal(floats(encode(values.astype(">f8"))), values)


def test_large_pictures_are_sent_smaller_and_small_ones_exactly():
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 10, 3), dtype=np.uint8))
    kind, _, text = picture_url(small).partition(",")
    with Image.open(io.BytesIO(base64.b64decode(text))) as back:
        assert kind == "data:image/png;base64" and back.tobytes() == small.tobytes()
    _, _, text = picture_url(Image.new("RGB", (2000, 1000))).partition(",")
    with Image.open(io.BytesIO(base64.b64decode(text))) as back:
        assert back.size == (512, 256)


# ---- training


def test_an_unchanged_run_has_the_same_signs(shelf):
    assert training.signs(shelf, "one") == training.signs(shelf, "one")
    strip, curves = training.numbers(shelf, "one")
    assert "finished" in strip and curves["figures"] and training.newest(shelf, "one")["groups"]


def test_a_new_step_changes_the_sign_of_the_curves_and_a_new_record_that_of_the_pictures(fresh):
    begun = training.signs(fresh, "one")
    run = RunWriter(fresh.root / "one")
    before = len(training.numbers(fresh, "one")[1]["figures"][0]["data"][-1]["x"])
    with (fresh.root / "one" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "reward": 1.0}\n')
    longer = training.signs(fresh, "one")
    assert longer[0] != begun[0] and longer[1] == begun[1]
    assert len(training.numbers(fresh, "one")[1]["figures"][0]["data"][-1]["x"]) == before + 1
    write_toy_step(run, 10)
    recorded = training.signs(fresh, "one")
    assert recorded[0] == longer[0] and recorded[1] != longer[1]
    assert "step 10" in training.newest(fresh, "one")["groups"][0]["says"]


def test_another_state_of_a_run_is_another_sign(fresh):
    begun = training.signs(fresh, "one")
    say_state(fresh.root / "one", "running", pid=2**22 - 3)  # no such process
    assert training.signs(fresh, "one")[0] != begun[0]


def test_a_group_that_is_all_alike_shows_its_credit_and_says_so(fresh):
    run = RunWriter(fresh.root / "one")
    write_toy_step(run, 11)
    lively = training.newest_group(RunReader(run.path), [11])
    assert lively["map"] == "token_advantages" and "alike" not in lively["groups"][0]["says"]
    write_toy_step(run, 12, alike=True)
    flat = training.newest_group(RunReader(run.path), [12])
    assert flat["map"] == "credit" and "nothing is pushed" in flat["groups"][0]["says"]


def test_the_liveliest_group_is_the_one_whose_rewards_vary_most():
    def group(number, rewards, probe=False):
        return Recorded(number, "", None, probe, tuple(range(4)), rewards)

    even, lone = group(0, (1.0, 1.0, 0.0, 0.0)), group(1, (1.0, 1.0, 1.0, 0.0))
    assert liveliest([lone, even]) is even
    assert liveliest([group(2, even.rewards, probe=True), even]) is even


def test_time_left_is_the_median_step_times_the_steps_that_are_left(tmp_path):
    status = RunStatus(tmp_path, "running", step=4, total=10)
    metrics = [{"time/step": seconds} for seconds in (2.0, 2.0, 50.0, 2.0)]
    assert words.time_left(status, metrics) == 12.0  # 6 steps of 2 s
    assert words.time_left(status, []) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(12, "12 s"), (240, "4 min"), (12000, "3 h 20 min"), (0, "0 s")]
)
def test_a_duration_reads_as_one_says_it(seconds, text):
    assert words.duration(seconds) == text


def test_a_run_that_was_killed_and_one_that_failed_say_so(fresh):
    say_state(fresh.root / "one", "running", pid=2**22 - 3)  # no such process
    assert "was killed" in training.numbers(fresh, "one")[0]
    status = json.loads((fresh.root / "one" / "status.json").read_text())
    failed = {**status, "state": "failed", "message": "step 3: <b>loss</b> is nan"}
    (fresh.root / "one" / "status.json").write_text(json.dumps(failed))
    strip = training.numbers(fresh, "one")[0]
    assert "failed" in strip and "&lt;b&gt;loss" in strip


# ---- bad runs: the page says what is wrong, and stays


def test_no_runs_folder_and_an_empty_one_say_what_to_run(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        shelf = RunShelf(folder)
        assert "t2i-credit train" in training.numbers(shelf, None)[0]
        assert "t2i-credit train" in notice_of(credit_maps.show(shelf, None, {}))
        assert "t2i-credit train" in notice_of(compare.update(shelf, [], "reward", None)[1])
        assert evaluation.update(shelf, None, None)[1]["kind"] == "notice"


def test_a_run_that_has_just_begun_says_what_will_come(tmp_path):
    RunWriter.create(tmp_path / "new", config={}, environment={}, total=9)
    shelf = RunShelf(tmp_path)
    strip, curves = training.numbers(shelf, "new")
    newest = training.newest(shelf, "new")
    assert "running" in strip and "No picture yet" in notice_of(newest)
    assert "No step yet" in notice_of(curves)
    assert "No step recorded yet" in notice_of(credit_maps.show(shelf, "new", {}))
    assert "t2i-credit evaluate" in notice_of(evaluation.update(shelf, "new", None)[1])


def test_a_corrupt_arrays_file_is_named_and_the_step_before_is_shown(fresh):
    (fresh.root / "one/steps/000009/arrays.safetensors").write_bytes(b"no safetensors")
    assert "arrays.safetensors" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))
    assert "step 5" in training.newest(fresh, "one")["groups"][0]["says"]


def test_pictures_that_were_deleted_leave_the_maps(fresh):
    for picture in (fresh.root / "one/steps/000009").glob("*.png"):
        picture.unlink()
    group = credit_maps.show(fresh, "one", {"step": 9})["group"]
    assert all(sample["image"] is None for sample in group["samples"])
    assert floats(group["samples"][0]["arrays"]["credit"]).shape == (H * W,)
    asked_for = {"run": "one", "kind": "png", "step": 9, "prompt": PROMPT}
    assert "0000.png" in credit_maps.save(fresh, asked_for)["error"]


def test_arrays_of_another_shape_are_refused_by_name(fresh):
    path = fresh.root / "one/steps/000009/samples.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, "grid": [H + 1, W]}))
    assert "has shape" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grid": 3, "samples": {}}', '{"samples": [1]}'])
def test_half_a_record_is_one_line(fresh, text):
    (fresh.root / "one/steps/000009/samples.json").write_text(text)
    assert "samples.json" in notice_of(credit_maps.show(fresh, "one", {"step": 9}))
    assert "step 5" in training.newest(fresh, "one")["groups"][0]["says"]


def test_a_run_of_a_newer_format_is_listed_and_explained(fresh):
    (fresh.root / "one/environment.json").write_text('{"format": 99}')
    assert fresh.choices(fresh.statuses()) == [("one  (cannot be read)", "one")]
    assert "format 99" in training.numbers(fresh, "one")[0]


def test_a_damaged_evaluation_is_one_line(fresh):
    (fresh.root / "one/evaluations/train-cfg2.json").write_text('{"summary": {"colors": 3}}')
    assert "cannot be shown" in notice_of(evaluation.update(fresh, "one", None)[1])


def test_a_hundred_runs_are_listed(tmp_path):
    write_toy_run(tmp_path / "run-000", steps=(1,), evaluation=False)
    for number in range(1, 100):
        target = tmp_path / f"run-{number:03d}"
        target.mkdir()
        for name in ("environment.json", "status.json", "config.yaml"):
            (target / name).write_bytes((tmp_path / "run-000" / name).read_bytes())
    shelf = RunShelf(tmp_path)
    assert len(shelf.choices(shelf.statuses())) == 100


# ---- nothing outside the folder


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../secret",
        "/etc",
        "one/../../secret",
        "..\\secret",
        "%2e%2e",
        ".",
        "one\0",
        "half \ud800",
        "loop",
        "",
        3,
        None,
    ],
)
def test_a_name_that_leads_out_of_the_folder_opens_nothing(tmp_path, name):
    write_toy_run(tmp_path / "secret")
    write_toy_run(tmp_path / "runs" / "one", steps=())
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs" / "loop")
    with pytest.raises(RunError):
        RunShelf(tmp_path / "runs").open(name)


def test_symbolic_links_that_lead_out_are_not_followed(tmp_path):
    write_toy_run(tmp_path / "secret")
    write_toy_run(tmp_path / "runs" / "one")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "secret")
    step = tmp_path / "runs/one/steps/000009"
    for name in ("0000.png", "arrays.safetensors"):
        (step / name).unlink()
        (step / name).symlink_to(tmp_path / "secret/steps/000009" / name)
    shelf = RunShelf(tmp_path / "runs")
    with pytest.raises(RunError, match="leads out"):
        shelf.open("link")
    assert [s.state for s in shelf.statuses() if s.path.name == "link"] == ["unreadable"]
    assert "leads out" in notice_of(credit_maps.show(shelf, "one", {"step": 9}))
    metrics = tmp_path / "runs/one/metrics.jsonl"
    metrics.unlink()
    metrics.symlink_to(tmp_path / "secret/metrics.jsonl")
    assert "leads out" in training.numbers(shelf, "one")[0]


def test_a_picture_name_that_leads_out_shows_no_picture(tmp_path):
    write_toy_run(tmp_path / "runs" / "one")
    Image.new("RGB", (50, 30), "red").save(tmp_path / "secret.png")
    path = tmp_path / "runs/one/steps/000009/samples.json"
    header = json.loads(path.read_text())
    for sample in header["samples"]:
        sample["image"] = "../../../../secret.png"
    path.write_text(json.dumps(header))
    group = credit_maps.show(RunShelf(tmp_path / "runs"), "one", {"step": 9})["group"]
    assert all(sample["image"] is None for sample in group["samples"])


def test_a_record_whose_file_name_leads_out_shows_no_picture(tmp_path):
    write_toy_run(tmp_path / "runs" / "one")
    Image.new("RGB", (50, 30), "red").save(tmp_path / "secret.png")
    reader = RunShelf(tmp_path / "runs").open("one")
    with pytest.raises(RunError, match="leads out"):
        reader.evaluation_image("train-cfg2", "../../../../secret.png")


# ---- figures


def test_smoothing_keeps_a_constant_and_bridges_gaps():
    values = np.full(200, 0.3)
    values[[0, 7, 50]] = np.nan
    smoothed = figures.smooth(values)
    assert np.isnan(smoothed[0])
    np.testing.assert_allclose(smoothed[1:], 0.3)


def test_long_runs_are_thinned_and_keep_their_ends():
    keep = figures.thinned(5000)
    assert len(keep) == figures.POINTS and (keep[0], keep[-1]) == (0, 4999)


def test_the_reward_band_is_one_spread_to_both_sides():
    metrics = [{"step": s, "reward": 0.5, "reward_spread": 0.2} for s in range(1, 5)]
    low, high, *_ = charts.reward_figure(metrics)["data"]
    assert low["y"] == pytest.approx([0.3] * 4) and high["y"] == pytest.approx([0.7] * 4)


def test_bars_carry_their_intervals():
    bars = figures.task_bars({"run": {"colors": {"correct": 0.5, "low": 0.4, "high": 0.7}}}, "")
    error = bars["data"][0]["error_y"]
    assert error["array"] == pytest.approx([0.2]) and error["arrayminus"] == pytest.approx([0.1])


# ---- evaluation


def test_the_gallery_is_filtered_by_task_and_verdict(shelf):
    def shown(**asked_for):
        return evaluation.page_of(shelf, "one", "train-cfg2", asked_for)["items"]

    assert len(shown()) == 2
    assert [item["reason"] for item in shown(verdict="wrong")] == [
        "expected left of, found right of"
    ]
    assert [item["task"] for item in shown(task="colors")] == ["colors"]
    assert shown(task="colors", verdict="wrong") == []
    assert len(shown(task="<script>", verdict=3, page="x")) == 2  # what is unknown is ignored


def test_pictures_of_an_evaluation_are_shown_where_they_were_kept(fresh):
    item = evaluation.page_of(fresh, "one", "train-cfg2", {})["items"][0]
    assert item["image"] is None and item["size"] == [32.0, 32.0]  # boxes up to 26: two times 16
    folder = fresh.root / "one/evaluations/train-cfg2/00000/samples"
    folder.mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "00000.png")
    item = evaluation.page_of(fresh, "one", "train-cfg2", {})["items"][0]
    assert item["image"].startswith("data:image/png") and item["size"] == [WIDTH, HEIGHT]


def test_the_table_says_what_changed(shelf):
    _, bars, table, _ = evaluation.update(shelf, "one", None)
    assert [trace["name"] for trace in bars["figures"][0]["data"]] == ["before", "after"]
    assert "+0.25" in table and "[+0.05, +0.40]" in table


# ---- playground


def test_the_form_says_what_to_sample():
    form = ["shapes", "a ring", "", MODES[1], "a square", "one@9", 2.0, 1.0, 7, 3]
    takes, settings = asked(*form)
    assert [take.negative for take in takes] == [None, "a square"]
    assert settings == studio.Settings(2.0, 1.0, 7, 3)
    takes, _ = asked(*form[:3], MODES[2], *form[4:])
    assert [take.model for take in takes] == ["shapes", "one@9"]


@pytest.mark.parametrize("number", [None, "", float("inf"), "two"])
def test_a_form_without_its_numbers_is_said(number):
    with pytest.raises(UserError, match="must be numbers"):
        asked("shapes", "a ring", "", MODES[0], "", "shapes", 2.0, 1.0, 7, number)


@pytest.mark.parametrize(
    ("take", "settings", "said"),
    [
        (("shapes", " ", None, ""), (2.0, 1.0, 0, 1), "write a prompt"),
        (("shapes", "a" * 3000, None, ""), (2.0, 1.0, 0, 1), "3000 letters"),
        (("shapes", "a ring", None, ""), (2.0, 1.0, 0, 999), "images: 999"),
        (("shapes", "a ring", None, ""), (2.0, 1.0, -1, 1), "seed"),
        (("../secret@9", "a ring", None, ""), (2.0, 1.0, 0, 1), "not the name of a run"),
        (("one@7", "a ring", None, ""), (2.0, 1.0, 0, 1), "no checkpoint of step '7'"),
    ],
)
def test_what_cannot_be_sampled_is_said_before_a_model_is_loaded(shelf, take, settings, said):
    *_, last = studio.Studio(shelf).sample(
        [studio.Take(*take)], studio.Settings(*settings), threading.Event()
    )
    assert last.failed and said in last.says


def test_opening_the_playground_loads_the_embedded_generator_once(shelf):
    here = studio.Studio(shelf)
    for thread in [here.warm_up(), here.warm_up()]:
        thread.join(timeout=120)
    (name, loaded), *others = here._models.items()
    assert (name, others) == ("shapes", []) and here.model("shapes") is loaded


def test_sampling_shows_the_picture_forming_and_ends_with_both_prompts_on_one_scale(shelf):
    from toys import WideConfig, tiny_model

    here = studio.Studio(shelf)
    here._models["shapes"] = tiny_model(WideConfig)
    takes = [studio.Take("shapes", "a red circle", text, "t") for text in (None, "a blue square")]
    told = list(here.sample(takes, studio.Settings(2.0, 1.0, 3, 2), threading.Event()))
    shares = [progress.share for progress in told]
    assert shares == sorted(shares) and told[-1].over and not told[-1].failed
    growing = [p.value["groups"][0]["samples"][0]["known"] for p in told[:-1] if p.value]
    assert 0.5 in growing  # of two rows of tokens, the first is known
    first, second = told[-1].value["groups"]
    assert first["scale"] == second["scale"] and len(first["samples"]) == 2
    assert floats(first["samples"][0]["arrays"]["logprobs"]).shape == (6,)


def test_cancelling_stops_in_the_middle_of_an_image(shelf):
    from toys import tiny_model

    here, model, stop = studio.Studio(shelf), tiny_model(), threading.Event()
    advance = model.advance

    def first_token(state, tokens):
        stop.set()
        return advance(state, tokens)

    model.advance = first_token
    here._models["shapes"] = model
    take = studio.Take("shapes", "a red circle", None, "t")
    *told, last = here.sample([take], studio.Settings(2.0, 1.0, 0, 1), stop)
    assert last.says == "Cancelled." and not last.failed
    assert "loading" in told[0].says


def test_who_cancels_while_waiting_has_no_model_loaded(shelf):
    here, stop = studio.Studio(shelf), threading.Event()
    stop.set()
    take = studio.Take("shapes", "a red circle", None, "t")
    told = list(here.sample([take], studio.Settings(2.0, 1.0, 0, 1), stop))
    assert [progress.says for progress in told] == ["Cancelled."] and not here._models


def test_a_prompt_longer_than_the_model_takes_is_said(shelf):
    from toys import tiny_model

    here = studio.Studio(shelf)
    here._models["shapes"] = tiny_model()
    take = studio.Take("shapes", "red " * 400, None, "t")
    *_, last = here.sample([take], studio.Settings(2.0, 1.0, 0, 1), threading.Event())
    assert last.failed and "the model takes at most" in last.says


# ---- serving


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("box", False)],
)
def test_only_this_machine_is_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_an_address_that_others_can_reach_demands_a_login():
    with pytest.raises(UserError, match="needs a login"):
        check_login("0.0.0.0", None)
    assert check_login("127.0.0.1", None) is None
    assert check_login("0.0.0.0", "me:a long password") == ("me", "a long password")


@pytest.mark.parametrize("login", ["me", "me:", ":long enough", "me:short"])
def test_a_login_that_is_none_is_refused(login):
    with pytest.raises(UserError, match="NAME:PASSWORD"):
        check_login("127.0.0.1", login)


def test_a_port_in_use_is_one_line(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"{port} is in use"):
            start(tmp_path, port=port)
    assert free_port("127.0.0.1", 0) > 0


def test_a_file_in_place_of_the_runs_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder of runs"):
        start(tmp_path / "file", port=0)


def test_the_clock_updates_states_alone(shelf):
    # Gradio keeps a component and its value for each update: a page left open would grow with every tick
    async def built():  # in a loop that is closed again
        return build_page(shelf)

    page = asyncio.run(built())
    ticks = [event for event in page.fns.values() if "tick" in dict(map(reversed, event.targets))]
    assert ticks
    for event in ticks:
        assert event.outputs and all(block.stateful for block in event.outputs)


def test_whatever_reads_records_waits_in_one_line_for_two_places(shelf):
    async def built():
        return build_page(shelf)

    page = asyncio.run(built())
    reading = [fn for fn in page.fns.values() if fn.concurrency_id == "reading"]
    asked = {name for fn in reading for _, name in fn.targets}
    assert asked >= {"choose", "film", "save", "pick", "change", "select", "input"}
    assert {fn.concurrency_limit for fn in reading} == {2}
    ticks = [fn for fn in page.fns.values() if "tick" in {name for _, name in fn.targets}]
    assert ticks and not {fn.concurrency_id for fn in ticks} & {"reading"}  # nor do they wait


def test_a_look_that_was_asked_too_early_undoes_nothing(shelf):
    # On a slow server it may be answered after the first list of runs came; the page would never find out about them
    async def late():
        page = build_page(shelf)
        (first,) = (fn for fn in page.fns.values() if fn.name == "first")
        look = next(fn for fn in page.fns.values() if fn.name == "look")
        state = SessionState(page)
        early = look.fn(None, None)
        await page.postprocess_data(first, first.fn(), state)
        known = {block._id: state[block._id] for block in look.outputs}
        await page.postprocess_data(look, early, state)
        return known, {block._id: state[block._id] for block in look.outputs}

    before, after = asyncio.run(late())
    assert any(before.values()) and after == before
