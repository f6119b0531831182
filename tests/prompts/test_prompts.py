"""Prompt sets: what a line may hold, refusals that name file and line, batches that depend on (seed, step) alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prompt_refusals import refusal

from t2i_credit.errors import PromptError, UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.prompts.batches import PromptBatches, overlap, with_negative
from t2i_credit.prompts.files import load_prompts, save_prompts

SPEC = {"tag": "counting", "include": [{"class": "clock", "count": 2}]}
OFFICIAL = {**SPEC, "prompt": "a photo of two clocks"}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes lines into p.jsonl of the current folder, so that messages show a short name."""
    monkeypatch.chdir(tmp_path)

    def _write(*lines: Any, name: str = "p.jsonl") -> str:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes("\n".join(texts).encode("utf-8", "surrogatepass"))
        return name

    return _write


def some(count: int) -> list[Prompt]:
    return [Prompt(text=f"prompt {i}") for i in range(count)]


def test_importing_prompts_does_not_import_torch() -> None:
    code = "import sys, t2i_credit.prompts; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_line_is_a_text_or_an_official_record_that_is_its_own_spec(write: Any) -> None:
    name = write({"text": "a red circle", "spec": SPEC}, "", OFFICIAL, {"prompt": "b", "id": 7}, "")
    assert load_prompts(name) == [
        Prompt("a red circle", spec=SPEC),
        Prompt("a photo of two clocks", spec=OFFICIAL),
        Prompt("b"),
    ]


def test_an_absent_negative_is_the_default_null_is_null_and_an_empty_one_is_a_text(
    write: Any,
) -> None:
    name = write({"text": "a"}, {"text": "b", "negative": None}, {"text": "c", "negative": ""})
    assert [p.negative for p in load_prompts(name)] == [None, None, ""]
    assert [p.negative for p in load_prompts(name, negative="blurry")] == ["blurry", None, ""]


def test_a_relative_reference_lies_beside_the_file(write: Any) -> None:
    write("", name="set/gold/0.png")
    name = write({"text": "a", "reference": "gold/0.png"}, name="set/p.jsonl")
    assert load_prompts(name)[0].reference == os.path.join("set", "gold", "0.png")
    message = refusal(write({"text": "a"}, {"text": "a", "reference": "gold/0.png"}))
    assert message.startswith("p.jsonl:2: reference 'gold/0.png': no such file")


def test_saved_prompts_load_as_the_same_prompts(write: Any) -> None:
    write("", name="set/gold/0.png")
    prompts = [
        Prompt("a\u2028b\n\u00e9", negative=""),
        Prompt("b", spec=OFFICIAL),
        Prompt("c", reference=os.path.join("set", "gold", "0.png")),
    ]
    Path("elsewhere").mkdir()
    save_prompts(prompts, "elsewhere/p.jsonl")
    assert load_prompts("elsewhere/p.jsonl", negative="unused") == prompts
    assert os.listdir("elsewhere") == ["p.jsonl"]


def test_a_set_that_cannot_be_written_is_refused_in_one_line(write: Any) -> None:
    with pytest.raises(PromptError, match=r"^no/p\.jsonl: cannot be written \(No such file"):
        save_prompts(some(1), "no/p.jsonl")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{'text': 'a'}", "is not JSON (Expecting property name enclosed in double quotes, col"),
        ("[" * 100_000, "is nested too deeply"),
        ("9" * 5000, "holds a number with too many digits"),
        ('{"text": "a", "id": NaN}', "NaN is not a JSON number"),
        ('{"text": "a", "text": "b"}', "key 'text' is given twice"),
        ('"a red circle"', "must be a JSON object like {'text': ...}, got 'a red circle'"),
        (
            {"spec": SPEC},
            "lacks the prompt, no key is prompt, prompts, caption, text (its keys: 's",
        ),
        ({"text": "a", "prompt": "b"}, "'text' and 'prompt' differ; give one of them"),
        ({"text": 3}, "text must be a text, got 3"),
        ({"text": " "}, "text is empty; a prompt needs words"),
        ({"prompt": ""}, "prompt is empty; a prompt needs words"),
        ({"text": "\ud800"}, "text holds half of a surrogate pair, which is no text"),
        ({"text": "a", "negative": 0}, "negative must be a text, got 0"),
        ({"text": "a", "negative": "None"}, "negative is the text 'None'; did you mean null?"),
        ({"text": "a", "negatives": "b"}, "unknown key 'negatives'; did you mean 'negative'?"),
        ({"text": "a", "reference": 1}, "reference must be the path of an image, got 1"),
        ({"text": "a", "reference": ""}, "reference must be the path of an image, got ''"),
        ({"text": "a", "spec": []}, "spec must be an object with tag and include, got []"),
        ({"text": "a", "spec": SPEC, "tag": "x"}, "has a 'spec' and 'tag' beside it; move that"),
        ({"text": "a", "tag": "counting", "exclude": []}, "key 'include' is missing"),
    ],
)
def test_a_wrong_line_is_refused_by_file_and_line_number(
    write: Any, line: Any, problem: str
) -> None:
    message = refusal(write({"text": "fine"}, "", line))
    assert message.startswith(f"p.jsonl:3: {problem}")


def test_a_class_that_the_world_does_not_have_is_refused_by_file_and_line_number(
    write: Any,
) -> None:
    name = write({"text": "a"}, OFFICIAL)
    assert load_prompts(name, classes=["clock"])[1].spec == OFFICIAL
    message = refusal(name, classes=["circle", "square"])
    assert message.startswith("p.jsonl:2: include[0].class: unknown class 'clock'")


def test_a_file_without_prompts_is_refused(write: Any) -> None:
    here = Path.cwd()
    assert refusal("gone.jsonl") == f"gone.jsonl: no such prompt file in {here}"
    assert refusal(f"{here}/gone.jsonl") == f"{here}/gone.jsonl: no such prompt file"
    assert refusal(write("", "  ")).startswith("p.jsonl: holds no prompt")
    Path("folder").mkdir()
    kinds = ".jsonl, .json, .txt, .csv, .tsv"
    assert refusal("folder") == f"folder: is a folder, not a prompt file ({kinds})"
    Path("b.jsonl").write_bytes(b"\x89PNG\xff")
    assert refusal("b.jsonl").startswith("b.jsonl: is not a text file (UTF-8)")
    assert refusal("a\nb").startswith(r"'a\nb': no such prompt file")


def test_the_official_list_loads() -> None:
    path = os.environ.get("GENEVAL_METADATA")
    if not path:
        pytest.skip("GENEVAL_METADATA names no file")
    prompts = load_prompts(path)
    assert len(prompts) == 553
    assert all(prompt.spec and prompt.spec["prompt"] == prompt.text for prompt in prompts)


def test_a_file_of_a_hub_data_set_is_read_from_the_cache_and_refused_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    # the hub's own cache layout: a branch names a commit, a commit holds files
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "datasets--me--mine"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit / "deep").mkdir(parents=True)
    (folder / "snapshots" / commit / "deep" / "p.jsonl").write_text(json.dumps(OFFICIAL) + "\n")
    assert load_prompts("hf://datasets/me/mine/deep/p.jsonl")[0].spec == OFFICIAL
    message = refusal("hf://datasets/me/mine/gone.jsonl")
    assert message.startswith("hf://datasets/me/mine/gone.jsonl: cannot be downloaded (")
    assert "must be hf://datasets/owner/name/file.jsonl" in refusal("hf://datasets/me")


# ---- batches ----


def test_an_epoch_holds_every_prompt_once_in_an_order_of_its_own() -> None:
    batches = PromptBatches(some(6), per_step=2, seed=3)
    epochs = [
        [p.text for step in range(first, first + 3) for p in batches.batch(step)]
        for first in (0, 3, 6)
    ]
    assert all(sorted(epoch) == sorted(p.text for p in some(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_run_over_the_end_of_an_epoch() -> None:
    # 5 prompts, 3 per step: 5 steps use 15 = 3 epochs, so every prompt 3 times
    batches = PromptBatches(some(5), per_step=3, seed=0)
    used = [p.text for step in range(5) for p in batches.batch(step)]
    assert set(Counter(used).values()) == {3}
    assert len(set(used[:5])) == len(set(used[5:10])) == len(set(used[10:])) == 5


def test_a_batch_larger_than_the_set_takes_several_epochs() -> None:
    batch = PromptBatches(some(2), per_step=5, seed=0).batch(0)
    assert sorted(Counter(p.text for p in batch).values()) == [2, 3]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    a, b = (PromptBatches(some(50), per_step=7, seed=1) for _ in range(2))
    later = [b.batch(step) for step in reversed(range(20))]
    assert [a.batch(step) for step in range(20)] == later[::-1]
    assert PromptBatches(some(50), per_step=7, seed=2).batch(0) != a.batch(0)


def test_batches_refuse_an_empty_set_and_no_prompts_per_step() -> None:
    with pytest.raises(PromptError, match="set is empty"):
        PromptBatches([], per_step=1, seed=0)
    with pytest.raises(PromptError, match=r"prompts\.per_step: 0 is not allowed; at least 1"):
        PromptBatches(some(1), per_step=0, seed=0)
    with pytest.raises(PromptError, match=r"prompts\.seed: -1 is not allowed; at least 0"):
        PromptBatches(some(1), per_step=1, seed=-1)


def test_one_negative_for_all_replaces_each_and_none_keeps_each() -> None:
    prompts = [Prompt("a", negative="x"), Prompt("b")]
    assert [p.negative for p in with_negative(prompts, "")] == ["", ""]
    assert with_negative(prompts, None) == prompts


def test_the_overlap_of_two_sets_is_their_common_texts_once() -> None:
    a = [Prompt("x"), Prompt("y"), Prompt("x"), Prompt("z")]
    b = [Prompt("z", negative="other"), Prompt("x")]
    assert overlap(a, b) == ["x", "z"]
    assert overlap(a, some(2)) == []
    assert overlap(a, [Prompt(" X ")]) == ["x"]


# ---- mutations ----

JUNK: list[Any] = [
    None, True, -1, 10**30, 1.5, "", "x", "a\nb", "\u2028", "\x00", "\ud800", [], [1], {}, [[]],
    {"a": 1}, {"class": "clock"}, {"class": [], "count": 1}, {"class": "clock", "count": 1e9},
    ["left of", 0], [{}], [{"class": "clock", "count": 1, "position": ["left of", 3]}],
]  # fmt: skip


def mutate(value: Any, dice: random.Random) -> Any:
    """One part of a JSON value replaced, renamed, added or removed."""
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        return [*value[:at], mutate(value[at], dice), *value[at + 1 :]]
    if not isinstance(value, dict) or not value or dice.random() < 0.1:
        return dice.choice(JUNK)
    value = dict(value)
    key = dice.choice(list(value))
    action = dice.random()
    if action < 0.6:
        value[key] = mutate(value[key], dice)
    elif action < 0.75:
        del value[key]
    else:
        value[dice.choice([f"{key}s", "\n", "tag", "spec", "reference"])] = dice.choice(JUNK)
    return value


@pytest.mark.parametrize("seed", range(6))
def test_a_mutated_prompt_file_loads_and_round_trips_or_is_refused_in_one_line(
    write: Any, seed: int
) -> None:
    dice = random.Random(seed)
    rich = {"text": "a", "negative": "b", "spec": {**SPEC, "exclude": SPEC["include"]}}
    pair = [{"class": "clock", "count": 1}, {"class": "cup", "count": 1, "position": ["above", 0]}]
    outcomes = {True: 0, False: 0}
    for _ in range(80):
        base = dice.choice([rich, OFFICIAL, {"text": "t"}, {**OFFICIAL, "include": pair}])
        line = json.dumps(mutate(base, dice))
        if dice.random() < 0.4:
            at = dice.randrange(len(line))
            line = (
                line[:at] + dice.choice(['"', "{", "", "\n", "\ud800", "\\", "1"]) + line[at + 1 :]
            )
        name = write({"text": "fine"}, line)
        classes = dice.choice([None, ["clock", "cup"]])
        try:
            loaded = load_prompts(name, classes=classes)
        except UserError as error:
            assert len(str(error).splitlines()) == 1, line
            assert str(error).startswith("p.jsonl")
            outcomes[False] += 1
        else:
            save_prompts(loaded, "again.jsonl")
            assert load_prompts("again.jsonl", classes=classes) == loaded
            outcomes[True] += 1
    assert min(outcomes.values()) > 0  # both ways are really taken
