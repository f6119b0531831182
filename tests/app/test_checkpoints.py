"""Which generators the playground offers and loads: nothing outside of the runs folder, and no more at once than are kept."""

from __future__ import annotations

import threading

import pytest
from app_toys import with_checkpoint, write_text_run
from toys import tiny_model

from t2i_credit.app import checkpoints, studio
from t2i_credit.app.runs import RunShelf
from t2i_credit.errors import RunError


def test_a_checkpoint_whose_files_lead_out_is_neither_offered_nor_loaded(tmp_path):
    secret = with_checkpoint(tmp_path / "secret") / "checkpoints" / "000009"
    runs = tmp_path / "runs"
    with_checkpoint(runs / "good")
    with_checkpoint(runs / "folder", step=1)
    (runs / "folder" / "checkpoints" / "000009").symlink_to(secret)
    with_checkpoint(runs / "file")
    weights = runs / "file" / "checkpoints" / "000009" / "model.safetensors"
    weights.unlink()
    weights.symlink_to(secret / "model.safetensors")
    write_text_run(runs / "text", steps=())
    shelf = RunShelf(runs)
    offered = {name for _, name in checkpoints.choices(shelf)}
    assert offered == {"shapes", "good@9", "folder@1"}
    assert checkpoints.address(shelf, "good@9") == f"{runs / 'good'}@9"
    for name in ("folder@9", "file@9"):
        with pytest.raises(RunError, match="leads out"):
            checkpoints.address(shelf, name)


def test_a_checkpoint_is_sampled_at_the_guidance_of_its_training_at_first(tmp_path):
    path = with_checkpoint(tmp_path / "strong") / "config.yaml"
    path.write_text(path.read_text() + "rollout: {cfg_scale: 3.5}\n")
    shelf = RunShelf(tmp_path)
    assert checkpoints.guidance(shelf, "strong@9") == 3.5
    assert checkpoints.guidance(shelf, "shapes") == checkpoints.guidance(shelf, "gone@9") == 2.0


def test_a_run_may_have_begun_with_an_embedded_model_a_hub_id_or_a_run_beside_it(tmp_path):
    with_checkpoint(tmp_path / "first", start="deepseek-community/Janus-Pro-1B")
    with_checkpoint(tmp_path / "second", start=str(tmp_path / "first"))
    with_checkpoint(tmp_path / "third", start=f"{tmp_path / 'second'}@9")
    shelf = RunShelf(tmp_path)
    assert checkpoints.address(shelf, "third@9") == f"{tmp_path / 'third'}@9"


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("{outside}/model", "leads out"),
        ("{outside}/run", "leads out"),
        ("{outside}/run@9", "leads out"),
        ("{inside}/chained", "leads out"),
        ("{inside}/linked", "leads out"),
        ("os:abort", "run code"),
        (["shapes"], "run code"),
        (None, "run code"),
    ],
)
def test_a_run_that_began_outside_of_the_folder_is_not_loaded(tmp_path, start, said):
    outside, inside = tmp_path / "outside", tmp_path / "runs"
    with_checkpoint(outside / "run")
    (outside / "model").mkdir()
    (outside / "model" / "config.json").write_text("{}")
    with_checkpoint(inside / "chained", start=str(outside / "model"))
    (inside / "linked").mkdir()
    (inside / "linked" / "config.json").symlink_to(outside / "model" / "config.json")
    if isinstance(start, str):
        start = start.format(outside=outside, inside=inside)
    with_checkpoint(inside / "one", start=start)
    take = studio.Take("one@9", "a ring", None, "")
    settings = studio.Settings(2.0, 1.0, 0, 1)
    *_, last = studio.Studio(RunShelf(inside)).sample([take], settings, threading.Event())
    assert last.failed and said in last.says


def test_a_model_gives_way_before_another_one_is_loaded(tmp_path, monkeypatch):
    here, beside = studio.Studio(RunShelf(tmp_path)), []

    def load(name, device):
        beside.append(list(here._models))
        return tiny_model()

    monkeypatch.setattr("t2i_credit.api.models.load_model", load)
    here._models.update(old=tiny_model(), newer=tiny_model())
    here.model("shapes")
    assert beside == [["newer"]] and list(here._models) == ["newer", "shapes"]
    with pytest.raises(RunError):
        here.model("no such run@9")
    assert list(here._models) == ["newer", "shapes"]  # what is refused costs nobody a model
