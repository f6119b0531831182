"""Evaluation by name: files and folders, going on after a kill, comparisons, warnings, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from t2i_credit.api.models import CFG_SCALE
from t2i_credit.config.schema import load_config, to_yaml
from t2i_credit.errors import UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.evaluation import command as judging
from t2i_credit.measure.evaluation.scores import load_evaluation
from t2i_credit.measure.evaluation.store import Judges, trained_on
from t2i_credit.prompts.files import load_prompts, save_prompts
from t2i_credit.prompts.records import TASKS
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter
from t2i_credit.worlds.shapes.detector import detect
from t2i_credit.worlds.world import find_world

CHECK_MODEL = judging.check_model


pytestmark = pytest.mark.usefixtures("any_name_is_the_painter")


def evaluate(model: str | None = "painter", images: Path | None = None, **more: Any) -> Any:
    settings = {"images_per_prompt": 2} | ({} if images else {"seed": 4})
    given = {"against": None, "split": "train", "per_task": 1, "out": None, **settings, **more}
    return judging.evaluate_named(model if images is None else None, images, **given)


def finding(detect: Any) -> Any:
    """In place of `find_judges`."""
    return lambda protocol: Judges(detect, None, lambda prompts: None)


def undated(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    for about in (value["about"], value.get("against", {})):
        about.pop("date", None)
    return value


def make_run(path: Path, *overrides: str) -> Path:
    config = load_config("shapes/gcpo", list(overrides))
    with RunWriter.create(path, config=to_yaml(config), environment={}, total=1):
        pass
    return path


def test_an_evaluation_writes_results_images_and_a_page() -> None:
    report = evaluate()
    assert report.path == Path(f"evaluations/painter/train-cfg{CFG_SCALE:g}-t1-seed4.json")
    assert report.page == report.path.with_suffix(".html") and report.page.is_file()
    found = load_evaluation(report.path)
    assert found == report.evaluation
    for record in found.records:
        assert (report.path.with_suffix("") / record["filename"]).is_file()
    value = json.loads(report.path.read_text())
    assert value["about"]["model"] == "painter"
    assert value["about"]["prompts"] == "shapes, split train"
    assert value["protocol"]["detector"] == "shapes" and value["warnings"] == []
    assert [p.name for p in report.path.with_suffix("").glob("*.json*")] == ["protocol.json"]


def test_a_killed_evaluation_with_a_comparison_ends_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = evaluate(against="other", out=Path("whole"), batch_size=4)
    for die_at in (2, 5):  # within "before", and within the evaluation itself: three batches each
        calls: list[int] = []

        def dying(pixels: Any, specs: Any, calls: list[int] = calls, die_at: int = die_at) -> Any:
            calls.append(1)
            if len(calls) == die_at:
                raise KeyboardInterrupt
            return detect(pixels)

        out = Path(f"killed{die_at}")
        with monkeypatch.context() as patch:
            patch.setattr(judging, "find_judges", finding(dying))
            with pytest.raises(KeyboardInterrupt):
                evaluate(against="other", out=out, batch_size=4)
            assert not list(out.glob("*.json"))
            evaluate(against="other", out=out, batch_size=4)
        assert len(calls) == 7  # six batches, and the one that died
        name = whole.path.name
        assert undated(out / name) == undated(whole.path)
        same = (out / name).with_suffix(".jsonl").read_bytes()
        assert same == whole.path.with_suffix(".jsonl").read_bytes()
        assert not list(out.rglob("unfinished.jsonl"))


def test_an_evaluation_under_another_protocol_starts_over_and_leaves_no_old_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path("out")
    evaluate(out=out, per_task=2)
    told: list[str] = []
    report = evaluate(out=out, warn=told.append)
    assert told == []
    folders = sorted(p.name for p in report.path.with_suffix("").iterdir() if p.is_dir())
    assert folders == [f"{p:05d}" for p in range(len(TASKS))]
    # other thresholds have a name of their own
    other = evaluate(out=out, threshold=0.5)
    assert other.path != report.path and other.path.stem.startswith(report.path.stem)


def test_a_comparison_keeps_both_sides_and_their_images() -> None:
    report = evaluate(against="other", out=Path("out"))
    assert report.changes["overall"]["change"] == 0.0
    value = json.loads(report.path.read_text())
    assert value["paired"]["overall"] == report.changes["overall"]
    assert value["against"]["model"] == "other"
    before = report.path.with_suffix("") / "before"
    assert load_evaluation(before / "evaluation.json") == report.against
    assert (before / report.against.records[0]["filename"]).is_file()


def test_ones_own_images_are_judged_and_compared_without_a_generator() -> None:
    made = evaluate(out=Path("out"))
    folder = made.path.with_suffix("")
    report = evaluate(images=folder, against=str(made.path))
    assert report.path == Path(f"evaluations/train-cfg{CFG_SCALE:g}-t1-seed4-shapes.json")
    assert report.evaluation.records == made.evaluation.records
    assert report.evaluation.protocol.seed == 4  # from the protocol beside the images
    assert report.changes["overall"]["change"] == 0.0
    again = evaluate(images=folder, against=str(folder), out=Path("third"))
    assert again.changes == report.changes


def test_anybodys_images_are_judged_and_gaps_named_and_counted(tmp_path: Path) -> None:
    made = evaluate(out=Path("out"))
    folder = shutil.copytree(made.path.with_suffix(""), tmp_path / "theirs")
    (folder / "protocol.json").unlink()
    (folder / "00002/samples/0001.png").unlink()
    (folder / "00001/samples/notes.txt").write_text("")
    told: list[str] = []
    report = evaluate(images=folder, warn=told.append)
    assert report.evaluation.protocol.cfg_scale is None
    assert told[0].endswith("beside images whose names are numbers: 00001/samples/notes.txt")
    overall = report.evaluation.summary()["overall"]["correct"]
    assert told[1].startswith(
        "missing or unreadable, judged as wrong: 1 of 12 images: 00002/samples/0001.png: missing;"
        f" overall {overall:.3f}, and "
    )
    assert report.warnings == told == json.loads(report.path.read_text())["warnings"]
    shutil.rmtree(folder / "00003")
    prompts = find_world("shapes").evaluation_prompts("train", 1)
    save_prompts(prompts, "set.jsonl")
    # three of twelve are missing now
    report = evaluate(images=folder, source="set.jsonl")
    assert report.evaluation.summary()["overall"]["missing"] == 3
    with pytest.raises(UserError, match="give it with --prompts"):
        evaluate(images=folder)


def test_new_images_at_the_same_place_are_judged_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = evaluate(out=Path("out")).path.with_suffix("")

    def dying(pixels: Any, specs: Any) -> Any:
        if specs[0]["tag"] == "counting":
            raise KeyboardInterrupt
        return detect(pixels)

    with monkeypatch.context() as patch:
        patch.setattr(judging, "find_judges", finding(dying))
        with pytest.raises(KeyboardInterrupt):
            evaluate(images=folder, batch_size=2)
    first = folder / "00000/samples/0000.png"
    first.write_bytes((folder / "00001/samples/0001.png").read_bytes())
    told: list[str] = []
    report = evaluate(images=folder, batch_size=2, warn=told.append)
    assert len(told) == 1 and "starts over, about has changed" in told[0]
    assert report.evaluation.records == evaluate(images=folder, out=Path("new")).evaluation.records


def test_a_detectors_name_is_part_of_the_protocol_and_of_a_folders_results(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "blind_eye.py").write_text(
        "from t2i_credit.worlds.shapes.scene import COLORS\n"
        "class Blind:\n"
        "    colors = COLORS  # named by itself, so that no CLIP is loaded\n"
        "    def __call__(self, images, wanted):\n"
        "        return [{} for _ in images]\n"
        "def see(*, model, device, batch_size):\n"
        "    return Blind()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = evaluate(detector="blind_eye:see")
    assert report.evaluation.summary()["overall"]["correct"] == 0.0
    assert report.evaluation.protocol.detector == "blind_eye:see"
    with pytest.raises(UserError, match="detector: unknown name 'shape'; did you mean shapes"):
        evaluate(detector="shape")
    usual = evaluate(out=Path("out")).path
    folder = usual.with_suffix("")
    blind = finding(lambda pixels, specs: [{} for _ in pixels])
    monkeypatch.setattr(judging, "find_judges", blind)
    report = evaluate(images=folder, detector="blind@me/eye")
    assert report.path == Path(f"evaluations/train-cfg{CFG_SCALE:g}-t1-seed4-blind.me.eye.json")
    assert report.evaluation.protocol.detector == "blind@me/eye"
    assert report.evaluation.summary()["overall"]["correct"] == 0.0
    with pytest.raises(UserError, match="detector is shapes before and blind@me/eye after"):
        evaluate(images=folder, detector="blind@me/eye", against=str(usual))


def test_evaluating_a_run_writes_into_it_and_warns_of_prompts_that_it_was_trained_on() -> None:
    run = make_run(Path("runs/try"))
    told: list[str] = []
    report = evaluate(str(run), warn=told.append)
    assert report.path == run / f"evaluations/train-cfg{CFG_SCALE:g}-t1-seed4.json"
    assert len(told) == 1 and told == report.warnings
    assert told[0].startswith(
        "6 of 6 prompts are among those that runs/try draws its prompts from, such as"
    )
    assert told[0] in report.page.read_text(encoding="utf-8").replace("&#39;", "'")
    assert RunReader(run).evaluations() == [f"train-cfg{CFG_SCALE:g}-t1-seed4"]
    assert trained_on("runs/try@5", find_world("shapes").evaluation_prompts("heldout", 1)) == ""


def test_a_run_is_evaluated_at_the_guidance_of_its_training() -> None:
    run = make_run(Path("runs/strong"), "rollout.cfg_scale=3")
    assert evaluate(str(run)).path.name == "train-cfg3-t1-seed4.json"
    assert evaluate(str(run), cfg_scale=2.0).path.name == "train-cfg2-t1-seed4.json"


def test_the_overlap_is_counted_on_prompt_files_too() -> None:
    prompts = find_world("shapes").evaluation_prompts("train", 1)
    save_prompts(prompts[:2], "mine.jsonl")
    run = make_run(Path("runs/mine"), "prompts.source=mine.jsonl", "prompts.per_step=2")
    assert trained_on(str(run), prompts).startswith("2 of 6 prompts are among those")
    assert trained_on(str(run), prompts[2:]) == ""
    Path("mine.jsonl").unlink()
    line = trained_on(str(run), prompts)
    assert line.startswith(
        "nobody knows whether runs/mine was trained on these prompts: mine.jsonl"
    )


def test_a_prompt_file_is_evaluated_under_its_own_name() -> None:
    save_prompts(find_world("shapes").evaluation_prompts("heldout", 1), "mine.jsonl")
    report = evaluate(source="mine.jsonl", out=Path("out"))
    assert report.path.name == f"mine-cfg{CFG_SCALE:g}-t1-seed4.json"
    assert [r["prompt"] for r in report.evaluation.records[::2]] == [
        p.text for p in load_prompts("mine.jsonl")
    ]


def test_wrong_use_is_refused_in_one_line_before_anything_is_written(tmp_path: Path) -> None:
    Path("plain.jsonl").write_text('{"text": "a red circle"}\n')
    Path("coco.jsonl").write_text(
        '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"}\n'
    )
    Path("empty").mkdir()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": None}, "MODEL, --images, --results: give one of them"),
        ({"source": "plain.jsonl"}, "prompt 'a red circle': has no GenEval record"),
        ({"source": "coco.jsonl"}, "unknown class 'bench'"),
        ({"source": "gone.jsonl"}, r"gone\.jsonl: no such prompt file"),
        ({"images": Path("gone")}, "gone: no such folder of images"),
        ({"images": Path("empty")}, "empty: holds no folder 00000"),
        ({"images": Path("empty"), "seed": 1}, "seed: decides how images are sampled"),
        ({"threshold": 2}, "threshold: 2; allowed is"),
        ({"against": "gone.json"}, r"gone\.json: no such file"),
    ]
    names = sorted(p.name for p in tmp_path.iterdir())
    for given, named in cases:
        with pytest.raises(UserError, match=named) as caught:
            evaluate(**given)
        assert "\n" not in str(caught.value)
        assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_what_cannot_be_compared_is_refused_before_anything_is_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = evaluate(out=Path("out"))
    monkeypatch.setattr(
        "t2i_credit.measure.evaluation.store.load_model", None
    )  # would fail when called
    for given, named in [
        ({"seed": 5}, "seed is 4 before and 5 after"),
        ({"per_task": 2}, "6 prompts before and 12 after"),
        ({"split": "heldout", "per_task": 1}, "prompts before and"),
    ]:
        with pytest.raises(UserError, match=named):
            evaluate(against=str(made.path), out=Path("new"), **given)
    monkeypatch.setattr(judging, "check_model", CHECK_MODEL)
    for name, named in [
        ("nowhere", "model 'nowhere': no such folder; embedded models: shapes"),
        (f"{make_run(Path('runs/try'))}@7", "there is no checkpoint"),
    ]:
        with pytest.raises(UserError, match=named):
            evaluate(model=name, against="shapes", out=Path("new"))
    assert not Path("new").exists()


def test_of_a_list_those_prompts_are_evaluated_whose_classes_the_world_knows(
    geneval_records: list[dict[str, Any]],
) -> None:
    official = [Prompt(record["prompt"], spec=record) for record in geneval_records]
    kept, line = judging.judged_prompts(official, "things")
    names = set(find_world("things").grammar.names)
    fit = [p for p in official if {c["class"] for c in (p.spec or {})["include"]} <= names]
    assert kept == fit and 250 < len(kept) < len(official) == 553
    assert line.startswith(f"{len(kept)} of 553 prompts are evaluated; the others ask for what")
    assert "baseball bat, baseball glove, bench, bottle" in line and "dog" not in line
    assert all(find_world("things").grammar.known(prompt.text) for prompt in kept)
    # none of them is of coloured shapes, which is refused with the first prompt, and others know all or say so
    for detector in ("shapes", "mask2former", None):
        assert judging.judged_prompts(official, detector) == (official, "")
