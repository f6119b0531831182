"""What may be asked of a training from the page: shipped recipes, a few keys, names and prompts that do no harm."""

from __future__ import annotations

import shlex

import pytest
import yaml
from app_toys import write_toy_run

from t2i_credit.app import recipes
from t2i_credit.app.runs import RunShelf
from t2i_credit.config.schema import load_config, parse_config
from t2i_credit.credit.table import CREDIT
from t2i_credit.errors import UserError
from t2i_credit.prompts.files import load_prompts, save_prompts

KNOWN = "a photo of a red circle\n\na photo of two rings\r\na photo of a red circle\n"


def planned(root, recipe="shapes/gcpo", name="try", prompts="", **keys):
    return recipes.planned(root, recipe, name, prompts, keys)


def test_recipes_that_download_nothing_come_first_and_each_has_its_line():
    found = recipes.recipes()
    large = [name for name, line in found.items() if line.endswith("Downloads its weights.")]
    assert {"shapes/grpo", "arithmetic/grpo", "janus-pro-1b/grpo"} <= set(found)
    assert list(found)[-len(large) :] == large
    families = ("janus-pro-1b", "janus-pro-7b", "liquid-7b", "simplear-0.5b", "simplear-1.5b")
    assert {name.split("/")[0] for name in large} == set(families)
    assert found["shapes/drgrpo"].startswith("Dr. GRPO on the embedded generator: ")
    assert all(line.endswith(".") and "\n" not in line for line in found.values())


def test_every_credit_of_the_table_is_offered():
    assert recipes.credit_names() == sorted(CREDIT)
    assert recipes.credits()["visual_figure"] == {"name": "visual", "kind": "figure"}


def test_the_command_that_is_shown_trains_the_configuration_that_is_shown(tmp_path):
    root = tmp_path / "runs with {a: b}"
    plan = planned(root, name="12", steps=" 5 ", lr="3e-4", credit="visual", seed="7")
    assert plan.command.startswith("t2i-credit train shapes/gcpo ")
    _, _, recipe, *overrides = shlex.split(plan.command)
    assert load_config(recipe, overrides) == plan.config == parse_config(yaml.safe_load(plan.yaml))
    train = plan.config.train
    assert (train.steps, train.seed, train.name, train.out) == (5, 7, "12", str(root))
    assert (plan.config.optim.lr, plan.config.credit.name) == (3e-4, "visual")
    assert not root.exists()


def test_what_is_left_empty_is_the_recipes_own_and_a_name_that_is_free(tmp_path):
    own = recipes.own_values("shapes/gcpo")
    assert (own["steps"], own["group_size"], own["lr"]) == ("360", "12", "0.00025")
    assert "per_step" not in recipes.own_values("arithmetic/gcpo")
    assert planned(tmp_path, name="").name == "shapes-gcpo"
    write_toy_run(tmp_path / "shapes-gcpo", steps=())
    assert planned(tmp_path, name="").name == "shapes-gcpo-2"
    text = planned(tmp_path, "arithmetic/gcpo", name="", group_size="4", lr="1e-3")
    assert text.config.grpo["num_generations"] == 4 and text.name == "arithmetic-gcpo"


def test_typed_prompts_are_known_with_their_records_and_a_step_takes_no_more(tmp_path):
    plan = planned(tmp_path, prompts=KNOWN)
    assert [p.text for p in plan.prompts] == ["a photo of a red circle", "a photo of two rings"]
    assert plan.prompts[0].spec["include"] == [{"class": "circle", "count": 1, "color": "red"}]
    assert plan.config.prompts.per_step == 2
    assert plan.config.prompts.source == str(tmp_path / "try.prompts.jsonl")
    save_prompts(plan.prompts, plan.source)
    assert load_prompts(plan.source) == list(plan.prompts)


HOSTILE_NAMES = ["../try", "/etc/try", "..", ".", "a/b", "a\0b", "é", "\ud800", "x" * 10_000]
HOSTILE_NAMES += ["-rf", "a b", "null", "try\n", "$HOME", "~", "{a: b}", "a: b", "!!python/name:os"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_is_no_folder_of_the_runs_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match=r"train\.name") as refused:
        planned(tmp_path, name=name)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    assert not list(tmp_path.iterdir())


HOSTILE_VALUES = [
    *("5\ntrain: {out: /etc}", "{out: /etc}", "&a 5", "*a", "!!python/object/apply:os.abort []"),
    *("os:abort", "5 # 6", "\0", "5\ud800", "-1", "1e400", ".nan", "9" * 99, "[5]", "true", "0x"),
    "5" * 200,
]


@pytest.mark.parametrize("key", ["steps", "per_step", "group_size", "lr", "seed", "credit"])
@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_a_value_is_a_number_of_its_own_key_or_one_line(tmp_path, key, value):
    own = planned(tmp_path).config
    try:
        plan = planned(tmp_path, **{key: value})
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return
    section, _, name = recipes.KEYS[key][0].partition(".")
    there = getattr(plan.config, section)
    back = there.model_copy(update={name: getattr(getattr(own, section), name)})
    assert plan.config.model_copy(update={section: back}) == own
    assert isinstance(getattr(there, name), int | float)


@pytest.mark.parametrize("key", ["group_size", "lr", "steps"])
@pytest.mark.parametrize("value", ["{a: b}", "os:abort", "-1", "two", "[1]"])
def test_of_a_run_on_text_too(tmp_path, key, value):
    with pytest.raises(UserError, match="not allowed"):
        planned(tmp_path, "arithmetic/grpo", **{key: value})


@pytest.mark.parametrize("recipe", ["os:abort", "../secret.yaml", "", None, ["shapes/grpo"], "x\0"])
def test_only_shipped_recipes_are_taken(tmp_path, recipe):
    with pytest.raises(UserError, match="none of those that are shipped"):
        planned(tmp_path, recipe)


def test_a_file_that_stands_in_for_a_recipe_is_not_taken(tmp_path, monkeypatch):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "gcpo").write_text("credit: {name: 'os:abort'}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a file of this name"):
        planned(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompts": "x" * 1_000_000}, "line 1 has 1000000 letters"),
        ({"prompts": "x\n" * 100_000}, "100000 lines"),
        ({"prompts": "x" * 3_000_000}, "at most 1000 lines"),
        ({"prompts": "a red\0circle"}, "cannot be seen"),
        ({"prompts": "half \ud800"}, "cannot be seen"),
        ({"prompts": '{"text": "a ring", "reference": "/etc/passwd"}'}, "none of the embedded"),
        ({"prompts": ["a ring"]}, "at most 1000 lines"),
        ({"prompts": "a photo of a ring", "per_step": "2"}, "the set has 1 prompts"),
        ({"per_step": "100000"}, "the set has"),
        ({"prompts": "a ring", "recipe": "arithmetic/grpo"}, "asks problems of its own"),
        ({"per_step": "2", "recipe": "arithmetic/grpo"}, "has no such key"),
        ({"credit": "os:abort"}, "is none of"),
        ({"colour": "red"}, "has no such key"),
        ({"recipe": "janus-pro-1b/grpo"}, "no such prompt file"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_nothing_is_written(tmp_path, given, said):
    with pytest.raises(UserError, match=said) as refused:
        planned(tmp_path, **given)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_a_run_that_exists_is_not_written_over_nor_a_link_followed(tmp_path):
    write_toy_run(tmp_path / "runs" / "try", steps=())
    (tmp_path / "outside").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="this run exists"):
        planned(tmp_path / "runs")
    with pytest.raises(UserError, match="is a link"):
        planned(tmp_path / "runs", name="link")


def stopped_run(root, **changed):
    """A toy run of the folder with a whole configuration, sections changed."""
    path = write_toy_run(root / "try", steps=())
    tree = yaml.safe_load(planned(root, name="fresh").yaml)
    tree["train"] |= {"name": "try", "out": "/elsewhere"}
    for section, keys in changed.items():
        tree[section] = keys if section == "reward" else {**tree[section], **keys}
    (path / "config.yaml").write_text(yaml.safe_dump(tree))
    return RunShelf(root).open("try")


def test_a_run_of_the_folder_goes_on_there_wherever_it_says_that_it_lies(tmp_path):
    plan = recipes.resumed(tmp_path, stopped_run(tmp_path))
    assert plan.words[-1] == "--resume" and plan.name == "try"
    assert (plan.config.train.out, plan.config.train.name) == (str(tmp_path), "try")


@pytest.mark.parametrize(
    "changed",
    [
        {"credit": {"name": "os:abort"}},
        {"advantage": {"name": "os:abort"}},
        {"model": {"name": "os:abort"}},
        {"reward": {"os:abort": {}}},
        {"reward": {"geneval": {"detector": "os:abort"}}},
        {"reward": {"remote": {"url": "http://10.0.0.1"}}},
        {"reward": {"clip": {"model": "/etc/passwd"}}},
        {"reward": {"clip": {"model": "~/model"}}},
        {"reward": {"clip": {"model": "$HOME"}}},
        {"prompts": {"source": "/etc/passwd"}},
        {"prompts": {"source": "hf://datasets/a/b/c.jsonl"}},
        {"model": {"name": "/etc"}},
        {"train": {"trackers": ["wandb"]}},
        {"train": {"steps": 1, "checkpoint_every": "os:abort"}},
    ],
)
def test_a_run_that_names_code_files_or_servers_elsewhere_is_not_resumed(tmp_path, changed):
    with pytest.raises(UserError) as refused:
        recipes.resumed(tmp_path, stopped_run(tmp_path, **changed))
    assert "\n" not in str(refused.value)


def test_a_run_whose_folders_lead_out_is_not_resumed(tmp_path):
    reader = stopped_run(tmp_path / "runs")
    (tmp_path / "outside").mkdir()
    (reader.path / "checkpoints").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out"):
        recipes.resumed(tmp_path / "runs", reader)
