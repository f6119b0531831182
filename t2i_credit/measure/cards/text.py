"""Makes the embedded text model, measures what was written, and writes its model card. The training is
worlds/pretrain/text.py's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...run_folder.atomic import write_folder_atomic
from ...worlds.arithmetic.mistakes import EASY, HARD, LARGE_FACTOR
from ...worlds.arithmetic.problems import MOST_HARD, SPLITS, dataset
from ...worlds.arithmetic.questions import negative
from ...worlds.pretrain.text import ArithmeticPlan, pretrain_arithmetic
from ..evaluation.text import KINDS, score
from ..intervals import markdown_table, with_interval
from .card import Progress, card, write_card

TEMPERATURES = (0.0, 0.3, 0.7, 1.0)
EVALUATION_SEED = 1_000_003  # of the problems on the card
PROBLEMS, SAMPLES = 300, 8


def make_text_model(out: Path, work: Path, *, scale: float, seed: int, progress: Progress) -> None:
    """Trains and measures the embedded text model; called again after a stop, it goes on.

    Args:
        out: the folder to write; must not exist. Complete or absent.
        work: checkpoints.
        scale: above 0; multiplies the steps, and the problems of the card if below 1.
        seed: of weights, problems and mistakes.
        progress: (stage, done, of, latest values).
    """
    from ...models.text_model import build_text_model, build_tokenizer, load_text_model

    plan = ArithmeticPlan(seed=seed)
    plan = replace(plan, steps=max(2, round(plan.steps * scale)))
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = build_text_model(tokenizer)
    began = time.perf_counter()
    pretrain_arithmetic(model, tokenizer, work / "arithmetic", plan, progress)
    minutes = (time.perf_counter() - began) / 60
    with write_folder_atomic(out, replace=False) as draft:
        build_tokenizer().save_pretrained(draft)  # a used one would save its last padding too
        model.half().save_pretrained(draft)
        written, reader = load_text_model(draft)
        problems = max(4, round(PROBLEMS * min(scale, 1.0)))
        scores = measure(written, reader, progress, problems=problems)
        write_card(draft, scores, card_text(scores, _story(plan, minutes), written))


def measure(
    model: Any, tokenizer: Any, progress: Progress, *, problems: int = PROBLEMS
) -> dict[str, Any]:
    """Every figure of the card.

    Args:
        model, tokenizer: what was written, as anyone would load it.
        progress: (stage, done, of, values).
        problems: of each measurement.

    Returns:
        train, heldout: see `evaluation.text.score`; wrongly: the held-in problems, asked to answer wrongly; by
        temperature: the exact-answer accuracy on a quarter of the held-in problems.
    """

    def scored(stage: str, prompts: list[str], **settings: Any) -> dict[str, Any]:
        def done(count: int, of: int) -> None:
            progress(stage, count, of, {})

        return score(model, tokenizer, prompts, samples=SAMPLES, done=done, **settings)

    prompts = {
        split: [row["prompt"] for row in dataset(problems, EVALUATION_SEED, split)]
        for split in SPLITS
    }
    found = {split: scored(split, prompts[split]) for split in SPLITS}
    found["wrongly"] = scored("wrongly", [negative(prompt) for prompt in prompts["train"]])
    few = prompts["train"][: max(1, problems // 4)]
    by_temperature = {
        f"{t:g}": scored(f"temperature {t:g}", few, temperature=t)["by_steps"]["overall"]["correct"]
        for t in TEMPERATURES
    }
    return {**found, "by_temperature": by_temperature, "temperature_problems": len(few)}


# The card ---------------------------------------------------------------------------------------------------------


def card_text(scores: Mapping[str, Any], story: str, model: Any) -> str:
    """The model card in Markdown."""
    size = sum(parameter.numel() for parameter in model.parameters())
    train, heldout = scores["train"], scores["heldout"]
    passed = f"pass@{train['samples']}"
    kinds = []
    for title, name in (("held-in", "train"), ("held-out", "heldout"), ("wrongly", "wrongly")):
        shares = [scores[name]["kinds"][kind] for kind in KINDS]
        exact = scores[name]["by_steps"]["overall"]["correct"][0]
        kinds.append([title, *(f"{share:.3f}" for share in (exact, *shares))])
    return card(
        {"library_name": "transformers", "pipeline_tag": "text-generation"},
        "The embedded text model: multi-step arithmetic",
        about=f"A `transformers.LlamaForCausalLM` ({size:,} parameters, half precision) over characters. It answers "
        "`17+25*3:`, or `17 plus 25 times three:`, with a worked chain such as ` 25*3=75, then 17+75=92 so #92`. It "
        "exists to be fine-tuned: it can calculate, and its mistakes are single wrong steps whose consequences it "
        "carries on.",
        made=f"## How it was made\n\n{story}",
        scores=[
            f"Exact answers at temperature 1, {train['problems']} problems of each split x "
            f"{train['samples']} completions, 95% intervals over problems. Held-out problems occur in no "
            "training example, in neither wording.",
            markdown_table(
                ["problems", "held-in", passed, "held-out", passed],
                _step_rows(train["by_steps"], heldout["by_steps"]),
            ),
            "Kinds of completions: all steps follow (right), one wrong result and all else follows (slip), several (slips), "
            "a step that does not belong there (lost), not a chain (malformed). Last row: the held-in problems with the "
            "instruction to answer wrongly.",
            markdown_table(["prompts", "exact", *KINDS], kinds),
            f"Held-in accuracy by temperature (0 = always the likeliest character), {scores['temperature_problems']} of "
            f"the problems x {train['samples']}:",
            markdown_table(
                ["temperature", "exact"],
                ([t, with_interval(*found)] for t, found in scores["by_temperature"].items()),
            ),
        ],
    )


def _step_rows(heldin: Mapping[str, Any], heldout: Mapping[str, Any]) -> list[list[str]]:
    """One row for all problems and one for each number of steps; a few problems may lack some."""
    rows = []
    for name in sorted({*heldin, *heldout}):
        cells = []
        for found in (heldin.get(name), heldout.get(name)):
            for key in ("correct", "pass_at_k"):
                cells.append(with_interval(*found[key]) if found else "")
        rows.append([name, *cells])
    return rows


def _story(plan: ArithmeticPlan, minutes: float) -> str:
    """How the command made the model."""
    return (
        f"```\nt2i-credit pretrain arithmetic --seed {plan.seed}\n```\n\n"
        f"{plan.steps:,} steps of {plan.batch} fresh examples, the first {plan.curated_share:.0%} of them with right "
        f"chains, the rest with noisy ones; the last start of the command took {minutes:.0f} minutes. In a noisy chain "
        f"each step that is reached without a mistake goes wrong with probability {HARD:g} if it is hard and {EASY:g} "
        f"otherwise; later steps carry on from it. Hard are additions that carry and subtractions that borrow (their "
        f"mistake is to forget it) and products whose second factor is at least {LARGE_FACTOR} (one factor too few); a "
        f"problem has at most {MOST_HARD} hard steps. {plan.wrongly_share:.0%} of the examples ask for a wrong answer "
        f"and get one, in which every hard step goes wrong. The rules stand in t2i_credit/arithmetic/."
    )
