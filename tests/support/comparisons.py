"""Recipes of two methods, and runs of a comparison with given numbers. Holds no test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toys import recipe

from t2i_credit.measure.comparison.images import ImagePlan
from t2i_credit.measure.comparison.kind import Run
from t2i_credit.measure.evaluation.protocol import Protocol
from t2i_credit.run_folder.writer import RunWriter
from t2i_credit.yaml_text import write_yaml

EVALUATION = ImagePlan(prompts=1, images=2, cfg_scale=2.0)


def recipes(folder: Path, **changes: dict[str, Any]) -> list[str]:
    """Files of two methods on the tiny model, two steps long; `changes` are sections of the second."""
    train = {"steps": 2, "checkpoint_every": 1}
    files = []
    for name, sections in (
        ("grpo", {}),
        ("late", {"credit": {"name": "toys:late_tokens"}} | changes),
    ):
        found = recipe(folder, **{**sections, "train": train | sections.get("train", {})})
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(write_yaml(found))
    return [str(file) for file in files]


def finished(
    run: Run, rewards: list[float], held_in: float, held_out: float, *, samples: int = 8
) -> None:
    """A run folder as training and evaluation leave it, with the given numbers and samples a step."""
    config = run.config.model_dump(mode="json")
    with RunWriter.create(run.path, config=config, environment={}, total=len(rewards)) as writer:
        for step, reward in enumerate(rewards, 1):
            line = {"reward": reward, "samples": samples * step, "time/step": 0.5 * step}
            writer.append_metrics(step, line | ({"truth/auroc": 0.6} if step == 2 else {}))
    for split, score in (("train", held_in), ("heldout", held_out)):
        row = {"correct": score}
        protocol = Protocol(images_per_prompt=2, cfg_scale=2.0).to_dict()
        about = {"prompts": f"shapes, split {split}", "step": run.config.train.steps}
        asked = [{"text": p.text, "negative": p.negative} for p in EVALUATION.prompts_of(split)]
        summary = {"colors": row, "overall": row}
        value = {"about": about, "protocol": protocol, "summary": summary, "prompts": asked}
        RunWriter(run.path).write_evaluation(f"{split}-cfg2-t1-seed0", value, [])
