"""What a visitor may ask of a training: a shipped recipe, a few keys, a name, prompts. Checks it as `t2i-credit train` does,
before anything is written, and refuses what could run other code than ours. Writes nothing and starts nothing."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.files import dotted, list_recipes, read_tree, recipe_summary
from ..config.plugins import PLUGIN, checked
from ..config.schema import Config, load_config, to_yaml
from ..config.text import TextConfig, load_text_config
from ..config.values import Count, Positive
from ..errors import ConfigError, PromptError, RunError
from ..models import TEXT_MODELS, embedded_names
from ..prompts.records import WORLDS
from ..run_folder.layout import contained, require_within
from ..run_folder.reader import RunReader
from ..run_folder.start import check_new, check_resumable
from ..yaml_text import write_yaml
from .checkpoints import require_known_start

if TYPE_CHECKING:
    from ..interfaces import Prompt

LONGEST_VALUE = 100  # letters that somebody types for a number
MOST_PROMPTS, LONGEST_PROMPT = 1000, 2000  # lines, and letters of each
PROMPTS_ENDING = ".prompts.jsonl"  # beside the run folder: what was typed
TRACKERS = ("tensorboard",)  # those that write files alone
# the keys that the page offers, for images and for text; what is left empty is the recipe's
KEYS = {
    "steps": ("train.steps", "train.steps"),
    "per_step": ("prompts.per_step", ""),
    "group_size": ("rollout.group_size", "grpo.num_generations"),
    "lr": ("optim.lr", "grpo.learning_rate"),
    "seed": ("train.seed", "train.seed"),
    "credit": ("credit.name", "credit.name"),
}
_ELSEWHERE = re.compile(r"://|^remote$|^~|\$|\0")  # what stands for a server, or another folder
_OF_TRL: dict[str, Any] = {"grpo.num_generations": Count, "grpo.learning_rate": Positive}


@dataclass(frozen=True)
class Plan:
    """A training that may be started.

    Attributes:
        name: of the run.
        words: what follows `t2i-credit train`.
        config: the whole configuration.
        prompts: what was typed, which lies in a file before the training begins; none = the recipe's own.
        source: that file.
    """

    name: str
    words: tuple[str, ...]
    config: Config | TextConfig
    prompts: tuple[Prompt, ...] = ()
    source: Path = Path()

    @property
    def command(self) -> str:
        """As it is typed into a terminal."""
        return shlex.join(["t2i-credit", "train", *self.words])

    @property
    def yaml(self) -> str:
        """The configuration, every key written out."""
        return to_yaml(self.config)


@cache
def recipes() -> dict[str, str]:
    """{shipped recipe: one line about it}, those that download nothing first."""
    found = {name: recipe_summary(name) for name in [*list_recipes(), *list_recipes(text=True)]}
    large = [name for name in found if not _is_embedded(name)]
    told = {name: f"{found[name]} Downloads its weights." for name in large}
    return {name: line for name, line in found.items() if name not in told} | told


@cache
def credits() -> dict[str, dict[str, Any]]:
    """{method: its section `credit`} of every credit that a recipe of the embedded generator ships and that needs no critic; the
    first recipe of the same section names it."""
    found: dict[str, dict[str, Any]] = {}
    names = [name for name in list_recipes() if name.startswith("shapes/")]
    for name in sorted(names, key=lambda name: (len(name), name)):
        tree = read_tree(name, ())[0]
        section = {"name": "uniform", **tree.get("credit", {})}
        if section["name"] == "value":  # its critic learns beside a training
            continue
        if section not in found.values():
            found[name.removeprefix("shapes/")] = section
    return found


def credit_names() -> list[str]:
    """The names of the credit table, without loading it: every one of them has a recipe."""
    return sorted({section["name"] for section in credits().values()} | {"value"})


def own_values(recipe: str) -> dict[str, str]:
    """{key of `KEYS`: the recipe's own value, as text}; a key that it does not have is left out.

    Raises:
        ConfigError: there is no such recipe.
    """
    require_recipe(recipe)
    tree = read_tree(recipe, ())[0]
    schema = TextConfig if "grpo" in tree else Config
    found = {}
    for short, key in _keys(recipe).items():
        section, _, name = key.partition(".")
        fields = getattr(schema.model_fields[section].annotation, "model_fields", {})
        default = fields[name].default if name in fields else ""
        found[short] = write_yaml(tree.get(section, {}).get(name, default), flow=True)
    return found


def planned(root: Path, recipe: str, name: str, prompts: str, keys: Mapping[str, str]) -> Plan:
    """What was asked for, checked.

    Args:
        root: the folder of runs.
        recipe: of `recipes`.
        name: of the run; "" = made from the recipe's.
        prompts: one a line; "" = the recipe's own.
        keys: those of `KEYS` as they were typed; "" = the recipe's own.

    Raises:
        UserError: one line that names the key and what is allowed.
    """
    require_recipe(recipe)
    known = _keys(recipe)
    given: dict[str, Any] = {}
    for short, typed in keys.items():
        if not isinstance(typed, str) or len(typed) > LONGEST_VALUE:
            raise ConfigError(f"{known.get(short, short)}: at most {LONGEST_VALUE} letters")
        if typed.strip() and short not in known:
            raise ConfigError(f"{short}: {recipe} has no such key; leave it empty")
        if typed.strip():
            given[known[short]] = typed.strip()
    if (credit := given.get("credit.name", "uniform")) not in credit_names():
        raise ConfigError(f"credit.name: {credit!r} is none of {', '.join(credit_names())}")
    lines = typed_prompts(prompts)
    words = [f"{key}={value}" for key, value in given.items()]
    run = name if name else free_name(root, recipe)
    if len(run) > LONGEST_VALUE:
        raise ConfigError(f"train.name: has {len(run)} letters; at most {LONGEST_VALUE}")
    words += [_word("train.out", str(root)), _word("train.name", run)]
    source = root / f"{run}{PROMPTS_ENDING}"
    few = len(lines) if lines and "prompts.per_step" not in given else 0
    config = _loaded(recipe, words)
    if lines:
        if not isinstance(config, Config):
            raise PromptError(f"prompts: {recipe} asks problems of its own; leave them empty")
        words.append(_word("prompts.source", str(source)))
        if few and few < config.prompts.per_step:
            words.append(_word("prompts.per_step", few))
        config = _loaded(recipe, words)
    found = _prompts_of(config, lines)
    # as they were understood, so that what is shown and run has one meaning
    values = dotted(config.model_dump(mode="json"))
    words = [_word(key, values[key]) for key in [word.partition("=")[0] for word in words]]
    path = root / run
    if path.is_symlink():
        raise RunError(f"{path}: is a link: choose another name")
    check_new(path)
    return Plan(run, (recipe, *words), config, found, source)


def resumed(root: Path, reader: RunReader) -> Plan:
    """A run of the folder that may go on: one whose files all lie in it, and whose configuration names no other code, no
    other folder and no other server.

    Raises:
        UserError: one line that says what is in the way.
    """
    path = reader.path
    if not path.is_relative_to(root) or path == root:
        raise RunError(f"{path}: is the folder that the app shows; t2i-credit train --resume does")
    require_within(path, path)
    require_known_start(reader, root)
    _require_harmless(reader.config(), root, str(path / "config.yaml"))
    words = [
        str(path / "config.yaml"),
        _word("train.out", str(root)),
        _word("train.name", path.name),
    ]
    config = _loaded(words[0], words[1:])
    check_resumable(path, config.train.steps)
    return Plan(path.name, (*words, "--resume"), config)


def require_recipe(name: object) -> None:
    """Raises ConfigError for what is no shipped recipe, or would be read from a file instead of it."""
    if not isinstance(name, str) or name not in recipes():
        raise ConfigError(f"recipe {name!r:.80} is none of those that are shipped")
    if os.path.exists(name):
        raise ConfigError(f"recipe {name}: a file of this name lies in the folder of the app")


def free_name(root: Path, recipe: str) -> str:
    """The recipe's name as that of a run, with a number where there is one already."""
    name, number = recipe.replace("/", "-"), 1
    while (root / (found := name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return found


def typed_prompts(text: str) -> list[str]:
    """The lines of a text, each once.

    Raises:
        PromptError: too many, too long, or with a character that cannot be seen.
    """
    if not isinstance(text, str) or len(text) > MOST_PROMPTS * LONGEST_PROMPT:
        raise PromptError(f"prompts: at most {MOST_PROMPTS} lines of {LONGEST_PROMPT} letters")
    lines = [line.strip() for line in re.split(r"\r\n?|\n", text) if line.strip()]
    if len(lines) > MOST_PROMPTS:
        raise PromptError(f"prompts: {len(lines)} lines; at most {MOST_PROMPTS}")
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_PROMPT:
            said = f"has {len(line)} letters; at most {LONGEST_PROMPT}"
            raise PromptError(f"prompts: line {number} {said}")
        if not line.isprintable():
            raise PromptError(f"prompts: line {number} holds a character that cannot be seen")
    return list(dict.fromkeys(lines))


def _prompts_of(config: Config | TextConfig, lines: list[str]) -> tuple[Prompt, ...]:
    """What was typed, with the records of the embedded world where a verdict needs them; refuses fewer than a step takes."""
    if not isinstance(config, Config):
        return ()
    from ..api.parts import load_prompt_set
    from ..interfaces import Prompt
    from ..worlds.world import find_world

    judge = config.reward.get("geneval")
    detector = judge.params.get("detector", WORLDS[0]) if judge is not None else None
    judged = detector in WORLDS
    if judged and lines:
        known = find_world(str(detector)).grammar.known
        found = [known(line) or Prompt(line) for line in lines]
    else:
        found = [Prompt(line) for line in lines] or load_prompt_set(config)
    if judged and (unknown := [prompt.text for prompt in found if prompt.spec is None]):
        raise PromptError(
            f"prompts: {unknown[0]!r:.120} is none of the embedded world's, so nobody can judge its images; write such "
            "as 'a photo of a red circle'"
        )
    if (wanted := config.prompts.per_step) > len(found):
        said = f"{wanted} is not allowed; the set has {len(found)} prompts"
        raise ConfigError(f"prompts.per_step: {said}")
    return tuple(found) if lines else ()


def _require_harmless(tree: Mapping[str, Any], root: Path, where: str) -> None:
    """Refuses a run's configuration that names code, files outside of the folder, or servers."""
    sections = {
        name: tree.get(name) for name in ("model", "advantage", "credit", "reward", "prompts")
    }
    sections["prompts"] = (tree.get("prompts") or {}).get("source")
    for name, value in sections.items():
        for text in _texts(value):
            if PLUGIN.fullmatch(text) or _ELSEWHERE.search(text):
                raise RunError(
                    f"{where}: {name}: {text!r:.80} is not taken from the page; t2i-credit train --resume does"
                )
            if os.path.lexists(text) and text not in (*embedded_names(), *TEXT_MODELS):
                contained(Path(text), root)
    trackers = (tree.get("train") or {}).get("trackers") or ()
    if not set(trackers) <= set(TRACKERS):
        raise RunError(f"{where}: train.trackers: the page takes {', '.join(TRACKERS)} alone")


def _texts(value: Any) -> list[str]:
    """Every text in a value, keys of mappings too."""
    if isinstance(value, Mapping):
        return [text for pair in value.items() for each in pair for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _is_embedded(recipe: str) -> bool:
    name = read_tree(recipe, ())[0].get("model", {}).get("name", embedded_names()[0])
    return name in (*embedded_names(), *TEXT_MODELS)


def _keys(recipe: str) -> dict[str, str]:
    """{what the page calls it: the key of this recipe}."""
    text = recipe in list_recipes(text=True)
    return {short: keys[text] for short, keys in KEYS.items() if keys[text]}


def _loaded(name: str, overrides: list[str]) -> Config | TextConfig:
    text = load_text_config(name, overrides)
    if text is None:
        return load_config(name, overrides)
    for key, kind in _OF_TRL.items():
        if (value := text[0].grpo.get(key.partition(".")[2])) is not None:
            checked(kind, value, key)
    return text[0]


def _word(key: str, value: Any) -> str:
    return f"{key}={write_yaml(value, flow=True)}"
