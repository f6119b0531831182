"""Which embedded world a generator was made for, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toys import WORDS, tiny_model

from t2i_credit import api
from t2i_credit.api.models import usual_world
from t2i_credit.api.objects import describe_world, find_finder
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ConfigError, ModelError, PromptError
from t2i_credit.models.embedded_model import EmbeddedModel, build_text_tokenizer
from t2i_credit.worlds.world import find_world


def saved(folder: Path, world: str) -> Path:
    config = replace(tiny_model().config, world=world)
    EmbeddedModel(config, build_text_tokenizer(WORDS)).save_pretrained(folder)
    return folder


def test_a_folder_a_run_of_it_and_a_run_of_that_run_are_of_one_world(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "things")
    assert usual_world(str(folder)) == "things" and usual_world("shapes") == "shapes"
    assert usual_world(str(tmp_path / "nowhere")) == usual_world("owner/name") == "shapes"
    start = folder
    for name in ("first", "second"):
        run = tmp_path / name
        run.mkdir()
        (run / "environment.json").write_text('{"format": 1}')
        (run / "config.yaml").write_text(f"model: {{name: {start}}}\n")
        assert usual_world(str(run)) == "things"
        start = run


def test_a_folder_keeps_its_world_and_one_that_names_none_is_of_the_first(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "things")
    assert EmbeddedModel.from_pretrained(folder).config.world == "things"
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in raw.items() if k != "world"}))
    assert EmbeddedModel.from_pretrained(folder).config.world == "shapes"
    path.write_text(json.dumps({**raw, "world": "cubes"}))
    with pytest.raises(
        ModelError, match=r"config\.json: world: 'cubes' is not allowed; allowed: sh"
    ):
        EmbeddedModel.from_pretrained(folder)


def test_prompts_and_references_are_those_of_the_world_that_a_configuration_names() -> None:
    config = parse_config({"prompts": {"source": "things", "tasks": ["colors"]}})
    prompts = api.load_prompt_set(config)
    grammar = find_world("things").grammar
    assert len(prompts) == grammar.most == 1000
    assert all(grammar.known(prompt.text) == prompt for prompt in prompts)
    with pytest.raises(ConfigError, match=r"rollout\.gold: true is refused with prompts\.split"):
        parse_config(
            {
                "prompts": {"source": "things", "split": "heldout"},
                "rollout": {"gold": True},
                "loss": {"ratio": "sequence"},
            }
        )


def test_the_objects_of_a_world_are_found_by_its_own_detector() -> None:
    config = parse_config({"reward": {"geneval": {"detector": "things"}}})
    finder = find_finder(config)
    assert finder.name == "things"
    finder.check(find_world("things").grammar.prompt_set(per_task=2))
    with pytest.raises(PromptError, match="'square', which the things detector does not know"):
        finder.check(find_world("shapes").grammar.prompt_set(per_task=2))
    with pytest.raises(ConfigError, match="--threshold: the things detector has none"):
        find_finder(config, threshold=0.5)
    assert callable(describe_world("shapes"))
