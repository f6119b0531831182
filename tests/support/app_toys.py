"""Toy runs for the tests of the app: written by the real writer, seconds old, with everything that a page can show. Holds
no test."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file, save_file

from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.run_folder.atomic import write_json
from t2i_credit.run_folder.writer import RunWriter, write_evaluation

H, W, V, G = 3, 5, 16, 4
HEIGHT, WIDTH = 30, 50  # of the pictures
PROMPT, PROBE = "a red circle", "a blue square left of a red circle"
SCRIPT = "<img src=x onerror='window.hacked = true'><script>window.hacked = true</script>"
LISTS = (
    "logprobs",
    "negative_logprobs",
    "contrast",
    "credit",
    "entropy",
    "token_advantages",
)  # of an answer


def floats(text: str) -> np.ndarray:
    """An array as the browser gets it."""
    return np.frombuffer(base64.b64decode(text), "<f4")


def notice_of(value: dict[str, Any]) -> str:
    """What is said where there is nothing to show."""
    assert value["kind"] == "notice", value
    return " ".join(value["notice"])


def compared(
    shelf: Any, names: Sequence[str], metric: str = "reward", prompt: str | None = None
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """What the compare tab shows of these runs: curves, the choice of prompts, pictures."""
    from t2i_credit.app import compare

    prompts, pictures = compare.pictures_of(shelf, names, prompt, None)
    return compare.curves_of(shelf, names, metric, 0, "step"), prompts, pictures


def toy_rollout(step: int, prompts: tuple[str, ...]) -> Rollout:
    """G samples of each prompt; the second one was sampled under a negative prompt of its own."""
    generator = torch.Generator().manual_seed(step)
    rows = G * len(prompts)

    def values() -> torch.Tensor:
        return -torch.rand(rows, H * W, generator=generator) * 4

    texts = [Prompt(text, None if i == 0 else "a red square") for i, text in enumerate(prompts)]
    return Rollout(
        prompts=[text for text in texts for _ in range(G)],
        group_size=G,
        tokens=torch.randint(V, (rows, H * W), generator=generator),
        mask=torch.ones(rows, H * W, dtype=torch.bool),
        logprobs=values(),
        negative_logprobs=values(),
        guided_logprobs=values(),
        sampling_logprobs=values(),
        entropy=-values(),
        images=torch.rand(rows, 3, HEIGHT, WIDTH, generator=generator),
    )


def write_toy_step(
    run: RunWriter,
    step: int,
    prompts: tuple[str, ...] = (PROMPT, PROBE),
    *,
    alike: bool = False,
    times: float = 1.0,
    critic: bool = False,
) -> None:
    """One recorded step: rewards 0, 1, 2, ... along the samples (or all 1.5), credit that is no constant, the last
    prompt a probe; token advantages so many times as large as they should be; with what a critic says, if asked for."""
    rollout = toy_rollout(step, prompts)
    if critic:
        draw = torch.Generator().manual_seed(step + 2)
        rollout = replace(rollout, values=torch.rand(len(rollout), H * W + 1, generator=draw))
    credit = torch.rand(len(rollout), H * W, generator=torch.Generator().manual_seed(step + 1))
    credit = credit / credit.mean(1, keepdim=True)
    rewards = torch.arange(len(rollout)).float() % G
    if alike:
        rewards = torch.full_like(rewards, 1.5)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[5:15, 10:40] = (
        True  # half of the first row of tokens and half of the second, columns 1 to 3
    )
    circle = {
        "name": "circle",
        "color": "red",
        "box": [10, 5, 40, 15],
        "mask": mask,
        "prompted": True,
    }
    run.write_step(
        step,
        rollout,
        grid=(H, W),
        codebook_size=V,
        rewards=rewards,
        reward_parts={"geneval": rewards},
        advantages=rewards - 1.5,
        credit=credit,
        token_advantages=(rewards - 1.5)[:, None] * credit * times,
        contrast=credit,
        objects=[[circle]] * len(rollout),
        probes=G,
    )


def write_large_run(path: Path, *, steps: Sequence[int] = (1, 2, 3)) -> Path:
    """A run of the size of Janus: 16 samples of 24 x 24 tokens and 384 x 384 pixels a step, dark and light pictures with a
    disc and some grain, and credit of softmax shape, whose largest is 20 to 30 times its mean."""
    run = start_toy_run(path, steps=max(steps))
    many, side, pixels = 16, 24, 384
    y, x = torch.meshgrid(*2 * [torch.arange(pixels) / pixels], indexing="ij")
    for step in steps:
        generator = torch.Generator().manual_seed(step)

        def drawn(*shape: int, generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        ground = (torch.arange(many) % 2)[:, None, None, None] * 0.7 + 0.1
        middle = 0.3 + 0.4 * torch.rand(many, 2, 1, 1, generator=generator)
        disc = (x - middle[:, :1]) ** 2 + (y - middle[:, 1:]) ** 2 < 0.04
        colour = torch.rand(many, 3, 1, 1, generator=generator)
        images = torch.where(disc, colour, ground + 0.02 * drawn(many, 3, pixels, pixels))
        logprobs = -drawn(many, side * side).abs()
        credit = (1.7 * drawn(many, side * side)).softmax(1) * side * side
        advantages = torch.linspace(-1.5, 1.5, many)
        rollout = Rollout(
            prompts=[Prompt(PROMPT, None)] * many,
            group_size=many,
            tokens=torch.randint(V, (many, side * side), generator=generator),
            mask=torch.ones(many, side * side, dtype=torch.bool),
            logprobs=logprobs,
            negative_logprobs=logprobs - drawn(many, side * side) * credit.sqrt(),
            guided_logprobs=logprobs,
            sampling_logprobs=logprobs,
            entropy=-logprobs,
            images=images.clamp(0, 1),
            reward_map=drawn(many, side * side) * 0.1,
        )
        run.write_step(
            step,
            rollout,
            grid=(side, side),
            codebook_size=V,
            rewards=advantages,
            reward_parts={"geneval": advantages},
            advantages=advantages,
            credit=credit,
            token_advantages=advantages[:, None] * credit,
            contrast=credit,
        )
    run.finish("finished")
    return path


def start_toy_run(path: Path, *, seed: int = 0, steps: int = 9) -> RunWriter:
    """A run that says it is running, with the metrics of its steps and nothing recorded."""
    config = {
        "model": {"name": "shapes"},
        "credit": {"name": "guidance_contrast"},
        "train": {"seed": seed, "name": path.name},
    }
    run = RunWriter.create(path, config=config, environment={"seed": seed}, total=steps)
    for step in range(1, steps + 1):
        run.append_metrics(
            step,
            {
                "reward": step / steps,
                "reward_spread": 0.2,
                "entropy": 5.0 - step / steps,
                "time/step": 2.0,
                "time/tokens_per_second": 1000.0,
            },
        )
    return run


def write_toy_run(
    path: Path,
    *,
    steps: tuple[int, ...] = (1, 5, 9),
    prompts: tuple[str, ...] = (PROMPT, PROBE),
    seed: int = 0,
    evaluation: bool = True,
) -> Path:
    """A finished run of nine steps, some of them recorded, with an evaluation of two images."""
    run = start_toy_run(path, seed=seed)
    for step in steps:
        write_toy_step(run, step, prompts)
    if evaluation:
        write_toy_evaluation(run)
    run.finish("finished")
    return path


def write_toy_evaluation(run: RunWriter, name: str = "train-cfg2") -> None:
    """Two tasks, one right image and one wrong one."""
    row = {"correct": 0.5, "low": 0.25, "high": 0.75, "partial": 0.6, "pass_at_k": 0.8, "images": 1}
    change = {"before": 0.25, "after": 0.5, "change": 0.25, "low": 0.05, "high": 0.4}
    tasks = ("colors", "position", "overall")
    records = [
        {
            "filename": f"0000{i}/samples/00000.png",
            "tag": tag,
            "prompt": PROMPT,
            "correct": right,
            "reason": "" if right else "expected left of, found right of",
            "score": float(right),
            "details": '{"circle": [[4, 6, 20, 26, 0.9]]}',
        }
        for i, (tag, right) in enumerate((("colors", True), ("position", False)))
    ]
    result = {
        "format": 1,
        "protocol": {"images_per_prompt": 1, "cfg_scale": 2.0, "temperature": 1.0, "seed": 0},
        "summary": dict.fromkeys(tasks, row),
        "paired": dict.fromkeys(tasks, change),
    }
    run.write_evaluation(name, result, records)


def write_paired_evaluation(path: Path, name: str = "list-cfg2") -> None:
    """Three prompts with two images each, the second one worst, beside what was there before; pictures of both, and a page."""
    verdicts = {False: ((1, 1), (1, 0), (1, 1)), True: ((1, 0), (1, 1), (1, 1))}
    row = {"correct": 0.7, "low": 0.2, "high": 0.9, "partial": 0.8, "pass_at_k": 1.0, "images": 6}
    for before, rights in verdicts.items():
        folder = path / "evaluations" / name / "before" if before else path / "evaluations"
        stem = "evaluation" if before else name
        records = [
            {
                "filename": f"{p:05d}/samples/{g:05d}.png",
                "tag": "colors",
                "prompt": f"{PROMPT} {p}",
                "correct": bool(right),
                "reason": "" if right else "expected circle>=1, found 0",
                "details": '{"circle": [[4, 6, 20, 26, 0.9]]}' if right else "{}",
                "fault": "",
                "prompt_index": p,
                "sample_index": g,
            }
            for p, of_prompt in enumerate(rights)
            for g, right in enumerate(of_prompt)
        ]
        protocol = {"images_per_prompt": 2, "cfg_scale": 2.0, "seed": 0}
        summary = dict.fromkeys(("colors", "overall"), row)
        write_evaluation(
            folder, stem, {"format": 1, "protocol": protocol, "summary": summary}, records
        )
        for record in records:
            picture = (folder if before else folder / name) / record["filename"]
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT), "navy" if before else "teal").save(picture)
    page = "<title>all of it</title><script>document.title += ' and its script'</script>"
    (path / "evaluations" / f"{name}.html").write_text(page)


def write_rewarded_evaluation(path: Path, name: str = "list-clip-cfg2") -> None:
    """Two prompts with two images each, judged by two rewards; an image is missing."""
    row = {"low": 0.2, "high": 0.4, "best": 0.35, "prompts": 2, "images": 3, "missing": 1}
    change = {"before": 0.2, "after": 0.3, "change": 0.1, "low": 0.05, "high": 0.15}
    records = [
        {
            "filename": f"0000{p}/samples/000{g}.png",
            "tag": "text",
            "prompt": (PROMPT, SCRIPT)[p],
            "rewards": {} if p == g == 1 else {"clip": 0.25 + p / 10 + g / 100, SCRIPT: 21.5},
            "metadata": "{}",
            "fault": "missing" if p == g == 1 else "",
            "prompt_index": p,
            "sample_index": g,
        }
        for p in range(2)
        for g in range(2)
    ]
    result = {
        "format": 1,
        "protocol": {"images_per_prompt": 2, "cfg_scale": 2.0, "seed": 0, "rewards": {"clip": {}}},
        "summary": {name: {"mean": 0.3, **row} for name in ("clip", SCRIPT)},
        "paired": {"clip": change},
    }
    write_evaluation(path / "evaluations", name, result, records)


def forget_numbers(path: Path, step: int = 9) -> Path:
    """The first sample of a step loses its reward and advantage, its first token has probability 0 under the prompt, and
    its second one no token advantage."""
    folder = path / "steps" / f"{step:06d}"
    header = json.loads((folder / "samples.json").read_text())
    header["samples"][0] |= {"reward": None, "advantage": None}
    (folder / "samples.json").write_text(json.dumps(header))
    arrays = load_file(folder / "arrays.safetensors")
    arrays["logprobs"][0, 0], arrays["token_advantages"][0, 1] = -np.inf, np.nan
    save_file(arrays, folder / "arrays.safetensors")
    return path


def say_state(path: Path, state: str, *, pid: int | None = None) -> None:
    """Overwrites status.json, as a run of another process would."""
    now = 1_900_000_000.0
    status = {"state": state, "pid": pid or os.getpid(), "host": socket.gethostname()}
    times = {"started": now - 100, "heartbeat": now, "step": 9, "total": 9, "message": ""}
    write_json(path / "status.json", {**status, **times})


def with_checkpoint(path: Path, *, start: Any = "shapes", step: int = 9) -> Path:
    """A toy run with the folder of a checkpoint, which began with `start`."""
    write_toy_run(path, steps=(), evaluation=False)
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump({**config, "model": {"name": start}}))
    folder = path / "checkpoints" / f"{step:06d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return path


SERVER = """
import json, sys
from t2i_credit.app import server
from t2i_credit.app.trainings import Trainings
mine = Trainings(sys.argv[1]) if sys.argv[3] else None
page = server.start(sys.argv[1], port=0, login=sys.argv[2] or None, trainings=mine)
limits = [fn.concurrency_limit for fn in page.fns.values() if fn.queue]
facts = {"address": page.local_url, "max_size": page._queue.max_size, "api_open": page.api_open, "limits": limits}
print(json.dumps(facts), flush=True)
sys.stdin.read()
if mine:
    mine.close(print)
"""


@contextmanager
def served(
    root: Path, login: str = "", *, trains: bool = False, log: Any = None
) -> Iterator[dict[str, Any]]:
    """The app in a process of its own (its library leaves loops and sockets to the garbage collector): its address, and
    the bounds of its queue. With `trains`, trainings may be started; one that goes on is stopped at the end. `log`: an open file
    that takes what it says on the console."""
    command = [sys.executable, "-c", SERVER, str(root), login, "trains" if trains else ""]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
    )
    assert process.stdout and process.stdin
    try:
        yield json.loads(process.stdout.readline())
    finally:
        if not trains:
            process.terminate()
        process.stdin.close()
        process.wait()
        process.stdout.close()


def text_sample(
    place: int,
    tokens: Sequence[str],
    *,
    prompt: Any = "2+3:",
    negative: Any = "2+3, answer wrongly:",
) -> dict[str, Any]:
    """One answer of the toy run on text, with numbers that differ from token to token and from answer to answer."""
    generator = np.random.default_rng(place)
    length = len(tokens)
    credit = generator.random(length, np.float32) + np.float32(0.1)
    advantage = float(place % G) - 1.5
    lists = {
        "logprobs": -generator.random(length, np.float32) * 3,
        "entropy": generator.random(length, np.float32),
        "negative_logprobs": -generator.random(length, np.float32) * 3,
        "contrast": generator.random(length, np.float32),
        "credit": credit,
        "token_advantages": advantage * credit,
    }
    return {
        "index": place,
        "group": place // G,
        "prompt": prompt,
        "negative": negative,
        "completion": "".join(tokens),
        "reward": float(place % G),
        "reward_parts": {"correct": float(place % G)},
        "advantage": advantage,
        "gold": False,
        "tokens": list(tokens),
        **{name: values.tolist() for name, values in lists.items()},
    }


ANSWER = [" ", "2", "+", "3", "=", "5", "\n", "#", "5", "<eos>"]


def write_text_run(
    path: Path,
    *,
    steps: tuple[int, ...] = (1, 5, 9),
    answers: Sequence[Sequence[str]] = (ANSWER,) * (2 * G),
    **prompts: Any,
) -> Path:
    """A finished run on text of nine steps, some of them recorded: two groups, the second of another prompt."""
    config = {"grpo": {}, "credit": {"name": "guidance_contrast"}, "train": {"seed": 0}}
    run = RunWriter.create(path, config=config, environment={"seed": 0}, total=9)
    for step in range(1, 10):
        row = {
            "reward": step / 9,
            "entropy": 1 - step / 10,
            "answer_length": 10.0,
            "truncated": 0.0,
        }
        run.append_metrics(step, row | {"signed_contrast": 0.1, "time/step": 2.0})
    for step in steps:
        samples = [text_sample(place, tokens, **prompts) for place, tokens in enumerate(answers)]
        for sample in samples[G:]:
            sample["prompt"], sample["negative"] = "7*8:", "7*8, answer wrongly:"
        run.write_text_step(step, samples, group_size=G)
    run.finish("finished")
    return path
