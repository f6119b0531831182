"""The box that says which method a run is."""

from pathlib import Path

import pytest
from app_toys import write_toy_run

from t2i_credit.app import method
from t2i_credit.app.runs import RunShelf
from t2i_credit.config.schema import load_config
from t2i_credit.config.text import load_text_config
from t2i_credit.yaml_text import write_yaml

TRUTH = Path(__file__).parents[2] / "docs" / "credit-truth.md"


def run_of(folder, recipe, *overrides):
    run = write_toy_run(folder / "run")
    config = load_config(recipe, overrides)
    (run / "config.yaml").write_text(write_yaml(config.model_dump(mode="json")))
    return method.about(RunShelf(folder), "run")


def test_a_run_is_the_recipe_that_it_began_from(tmp_path):
    said = run_of(tmp_path, "shapes/visual_figure", "train.steps=7", "train.seed=3")
    assert "<dd>shapes/visual_figure, with train.steps=7</dd>" in said
    assert "visual: tokens whose choice decides" in said and "0.889 [0.879, 0.897]" in said
    assert "lies on the prompted objects (AUROC" in said


def test_the_closed_box_names_recipe_credit_and_what_of_it_is_even(tmp_path):
    said = run_of(tmp_path, "shapes/gcpo", "train.steps=7").partition("</summary>")[0]
    assert "<b>shapes/gcpo</b>" in said
    assert "guidance_contrast, strength 0.5, 50% of it even over all tokens" in said
    said = run_of(tmp_path / "b", "shapes/visual_figure", "credit.top=0.3")
    assert "<span>visual, kind figure, top 0.3</span>" in said


@pytest.mark.parametrize("recipe", ["shapes/grpo", "shapes/gcpo", "shapes/entropy_rank"])
def test_what_a_map_shows_is_said_as_it_was_measured(tmp_path, recipe):
    said = run_of(tmp_path, recipe)
    assert f"<dd>{recipe}</dd>" in said
    if recipe == "shapes/grpo":
        assert "its map is even" in said
    elif recipe == "shapes/gcpo":
        assert "little more than chance" in said or "does not lie" in said
    else:
        assert "does not lie on the prompted objects" in said


def test_a_run_on_texts_is_a_recipe_for_texts(tmp_path):
    run = write_toy_run(tmp_path / "run")
    config, _ = load_text_config("arithmetic/grpo")
    (run / "config.yaml").write_text(write_yaml(config.model_dump(mode="json")))
    assert "<dd>arithmetic/grpo</dd>" in method.about(RunShelf(tmp_path), "run")


def test_the_measured_figures_are_those_of_the_documentation():
    text = TRUTH.read_text()
    for credit, figure in method.MEASURED.items():
        row = next(line for line in text.splitlines() if f"`{credit}`" in line and figure in line)
        assert row.startswith("|")


def test_everything_of_a_run_is_escaped(tmp_path):
    said = run_of(tmp_path, "shapes/gcpo", "model.name=<script>alert(1)</script>")
    assert "<script>" not in said and "&lt;script&gt;" in said
