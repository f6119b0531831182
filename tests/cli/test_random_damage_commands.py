"""Random damage to any file that a command reads: it ends as before, or with one line and exit code 2 and every other byte as it
was; never with a traceback, never long, never with much memory."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import contents, damage_file, renewed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limited_commands import LimitedCommands
from tiny_checkpoints import write_tiny_emu3, write_tiny_janus, write_tiny_llamagen
from toys import recipe

from t2i_credit.yaml_text import write_yaml

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")

PROMPTS = {
    "prompts.txt": "a red circle\na blue square\n",
    "prompts.csv": "prompt,negative\na red circle,a blue square\na blue square,\n",
    "prompts.tsv": "caption\tmore\na red circle\tx\na blue square\ty\n",
    "prompts.json": '["a red circle", {"text": "a blue square", "negative": "a red circle"}]',
    "records.jsonl": "".join(
        json.dumps({"tag": "single_object", "include": [{"class": c, "count": 1}], "prompt": p})
        + "\n"
        for c, p in (("circle", "a photo of a circle"), ("square", "a photo of a square"))
    ),
}
TASKS = "--per-task 1 --per-prompt 1"
CIRCLE = "'a red circle' --count 1 --out work/sampled"
NEW = "train.name=new train.steps=1"
SCORES = "work/scores/train-cfg2-t1-seed0"
OF_RUN = [
    "heatmap RUN",
    "heatmap RUN --step 1 --out work/drawn",
    "export RUN work/exported",
    "export RUN@1 work/exported",
    f"sample RUN {CIRCLE}",
    "train RUN.yaml --resume train.steps=3",
    f"evaluate RUN {TASKS} --against work/model",
    f"evaluate work/model {TASKS} --against RUN --out work/judged",
    "truth RUN --measure causality --prompts 1 --images 2 --credit uniform --out work/truth"
    " prompts.source=work/records.jsonl",
]
READERS: dict[str, list[str]] = {
    **{f"{run}/**/*": [c.replace("RUN", f"work/{run}") for c in OF_RUN] for run in ("run", "lora")},
    **{
        f"{model}/**/*": [f"sample work/{model} {CIRCLE}"]
        for model in ("janus", "emu3", "llamagen")
    },
    "model/**/*": [
        f"sample work/model {CIRCLE}",
        f"train work/run.yaml {NEW}",
        "train work/run.yaml --resume train.steps=3",
        f"evaluate work/model {TASKS} --out work/judged",
    ],
    **{
        name: [
            f"train work/run.yaml prompts.source=work/{name} {NEW}",
            f"evaluate work/model --prompts work/{name} --reward toys:bright --per-prompt 1"
            " --out work/judged",
        ]
        for name in PROMPTS
    },
    "names.txt": ["prompts --per-task 2 --names work/names.txt --out work/made.jsonl"],
    "run.yaml": ["config work/run.yaml", f"train work/run.yaml {NEW}"],
    "scores/**/*": [
        f"evaluate --images {SCORES} --out work/judged",
        f"evaluate --images {SCORES} --against {SCORES}.json --out work/judged",
        f"evaluate --results {SCORES}.jsonl --out work/judged",
        f"evaluate work/model {TASKS} --out work/scores",
    ],
}
COMMANDS = [(pattern, command) for pattern, every in READERS.items() for command in every]


def refusal(err: str) -> str | None:
    """What is wrong with what a refused command says on standard error; None = nothing."""
    *before, last = err.splitlines() or [""]
    if not last.startswith("error: ") or "out of memory" in last:
        return "the last line is no error of ours"
    if not all(line.startswith("warning: ") for line in before):
        return "more than warnings and one line"
    return None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimitedCommands]:
    with LimitedCommands(tmp_path_factory.mktemp("limited")) as commands:
        yield commands


@pytest.fixture(scope="module")
def whole(run: LimitedCommands) -> Path:
    """A folder of everything that commands read: two runs of two steps, models, prompts, an evaluation; made in `work`, which
    configurations name, and copied."""
    work = run.folder / "work"
    make_folder(run, work)
    return Path(shutil.copytree(work, run.folder / "whole"))


def make_folder(run: LimitedCommands, work: Path) -> None:
    work.mkdir()
    steps = {"steps": 2, "checkpoint_every": 1}
    for name, tune in (("run", {}), ("lora", {"lora_rank": 2})):
        config = recipe(
            work,
            train={**steps, "out": str(work), "name": name},
            log={"samples_every": 1},
            tune=tune,
        )
        (work / f"{name}.yaml").write_text(write_yaml(config))
    for name, text in PROMPTS.items():
        (work / name).write_text(text)
    (work / "names.txt").write_text("cat\ndog\n")
    write_tiny_janus(work / "janus")
    write_tiny_emu3(work / "emu3")
    write_tiny_llamagen(work / "llamagen")
    for command in (
        "train work/run.yaml",
        "train work/lora.yaml",
        f"evaluate work/run {TASKS} --against work/model",
        f"evaluate work/model {TASKS} --out work/scores",
    ):
        ended = run(*shlex.split(command))
        assert ended.code == 0, (command, ended)


def check(run: LimitedCommands, whole: Path, draw: Any) -> None:
    """Damages one file of a copy, runs one command, looks at how it ends."""
    pattern, command = draw(st.sampled_from(COMMANDS))
    files = sorted(p.relative_to(whole) for p in whole.glob(pattern) if p.is_file())
    kind = draw(st.sampled_from(sorted({f.suffix for f in files})))
    file = draw(st.sampled_from([f for f in files if f.suffix == kind]))
    work = renewed(whole, run.folder / "work")
    what = damage_file(draw, work / file)
    before = contents(work)
    ended = run(*shlex.split(command))
    case = (command, file, what, ended)
    assert ended.code in (0, 2) and "Traceback" not in ended.err, case
    if ended.code == 2:
        assert not (problem := refusal(ended.err)), (problem, case)
        assert contents(work) == before, ("changed", case)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_command_on_damage_ends_as_before_or_with_one_line(
    run: LimitedCommands, whole: Path, data: Any
) -> None:
    check(run, whole, data.draw)
