"""Trains the embedded generator from nothing: image tokenizer, then transformer. Measures nothing: see measure/cards/generator.py.

Three stages, each resumable from its own checkpoints in the work folder: "tokenizer" (scenes rendered afresh for
every step), "corpus" (scenes with noisy captions, as image tokens), "transformer" (next image token).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import RunError, one_line
from ...prompts.records import TASKS, caption
from ...rollout.images import from_uint8
from ...run_folder.atomic import write_folder_atomic
from ...run_folder.checkpoint import latest_checkpoint, load_checkpoint, prune, save_checkpoint
from ..world import World

Progress = Callable[[str, int, int, dict[str, float]], None]  # stage, steps done, of, latest values


@dataclass(frozen=True)
class PretrainPlan:
    """How long each stage takes.

    Attributes:
        tokenizer_steps, tokenizer_batch, tokenizer_lr: of the image tokenizer.
        edges: weight in its loss of the differences between neighbouring pixels.
        corpus_scenes: scenes that the transformer sees, again and again with other captions dropped.
        task_weights: how often a scene of each task is drawn, in the order of TASKS; tasks with more to bind need more.
        transformer_steps, transformer_batch, transformer_lr: of the transformer.
        null_share: captions replaced by the null prompt, which the negative branch needs.
        empty_share: captions replaced by the empty text.
        bare_share: captions that lose their template ("a red circle").
        curated_share: of the transformer's steps, the first that see what a scene really shows; the rest see the noisy
            captions. Binding words to objects is learned on the former, the base model's mistakes on the latter.
        mixed: whether passes run in bfloat16 where the library holds it safe; weights and optimizer stay in float32.
        seed: of everything.
    """

    tokenizer_steps: int = 4000
    tokenizer_batch: int = 64
    tokenizer_lr: float = 2e-3
    edges: float = 0.0
    corpus_scenes: int = 240_000
    task_weights: tuple[float, ...] = (0.5, 1.0, 1.5, 1.0, 2.5, 3.0)
    transformer_steps: int = 9000
    transformer_batch: int = 128
    transformer_lr: float = 2e-3
    curated_share: float = 0.5
    null_share: float = 0.10
    empty_share: float = 0.02
    bare_share: float = 0.10
    mixed: bool = False
    seed: int = 0
    checkpoint_every: int = 500


def rng_for(*key: int) -> np.random.Generator:
    """Randomness from (seed, stage, step), so that a resumed run draws what the undisturbed one would have."""
    return np.random.default_rng(list(key))


def fresh_scenes(world: World, count: int, rng: np.random.Generator) -> Tensor:
    """Rendered held-in scenes, (count, 3, h, w) in [0, 1]."""
    return from_uint8([world.sample(rng) for _ in range(count)])


def pretrain(model: Any, world: World, work: Path, plan: PretrainPlan, progress: Progress) -> None:
    """Trains `model` (an EmbeddedModel) in place; checkpoints and the corpus are kept in `work`."""
    train_tokenizer(model, world, work / "tokenizer", plan, progress)
    corpus = build_corpus(model, world, work / "corpus", plan, progress)
    train_transformer(model, work / "transformer", corpus, plan, progress)


# Shared by both loops ---------------------------------------------------------------------------------------------


def schedule(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine to a hundredth."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def resumable(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    steps: int,
    plan: Any,
    counters: Tensor | None = None,
) -> Iterator[int]:
    """The steps that are left; restores the latest checkpoint first and saves one every so often and at the end.

    `plan.checkpoint_every` says how often; `counters` is a tensor of the caller's that belongs to the state.

    Raises:
        RunError: the checkpoint does not fit, or is of a longer training.
    """
    start = 0
    if latest_checkpoint(folder):
        saved = load_checkpoint(folder)
        start = saved.step
        if start > steps:
            raise RunError(
                f"{saved.path}: of a training of more than {steps} steps; name another --work, or the --scale of before"
            )
        try:
            module.load_state_dict(saved.model_state or {})
            optimizer.load_state_dict(saved.optimizer or {})
            if counters is not None:
                counters.copy_(saved.extra["counters"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{saved.path}: does not fit: {one_line(error)}; name another --work"
            ) from error
    for step in range(start, steps):
        yield step
        if (step + 1) % plan.checkpoint_every == 0 or step + 1 == steps:
            save_checkpoint(
                folder,
                step + 1,
                model_state=module.state_dict(),
                optimizer=optimizer,
                extra={"counters": counters},
            )
            prune(folder, keep=2)


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, step: int) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(f"step {step}: the loss is {loss.item()}")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


# Image tokenizer --------------------------------------------------------------------------------------------------


def train_tokenizer(
    model: Any, world: World, folder: Path, plan: PretrainPlan, progress: Progress
) -> None:
    """Reconstruction of fresh scenes. Codes are kept at unit length, and codes that nothing uses are moved onto
    latents of the current batch, because the library's quantizer does neither."""
    vq = model.vq.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(vq.parameters(), plan.tokenizer_lr, (0.9, 0.99), weight_decay=0.0)
    codes = vq.quantize.embedding.weight
    if not latest_checkpoint(folder):
        first = model.to_patches(fresh_scenes(world, 256, rng_for(plan.seed, 0)))
        with torch.no_grad():
            _revive(codes, vq.encode(first).latents, torch.ones(len(codes), dtype=torch.bool), 0)
    used = torch.zeros(len(codes))
    for step in resumable(vq, optimizer, folder, plan.tokenizer_steps, plan, used):
        images = fresh_scenes(world, plan.tokenizer_batch, rng_for(plan.seed, 1, step))
        patches = model.to_patches(images)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.mixed):
            latents = vq.encode(patches).latents
        latents = latents.float()
        quantized, commit, (_, _, index) = vq.quantize(latents)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.mixed):
            drawn = vq.decode(quantized, force_not_quantize=True).sample
        error = drawn.float() - patches
        loss = error.abs().mean() + error.square().mean() + 0.5 * commit
        if plan.edges:
            pixels = 2 * model.from_patches(error)
            loss = loss + plan.edges * sum(pixels.diff(dim=d).abs().mean() for d in (2, 3))
        lr = schedule(step, plan.tokenizer_steps, plan.tokenizer_lr)
        take_step(optimizer, loss, lr, step)
        with torch.no_grad():
            codes.div_(codes.norm(dim=1, keepdim=True).clamp(min=1e-6))
            used += torch.bincount(index.flatten(), minlength=len(codes))
            if (step + 1) % 50 == 0:
                if step < 0.7 * plan.tokenizer_steps:
                    _revive(codes, latents, used == 0, step)
                alive = float((used > 0).float().mean())
                used.zero_()
                progress(
                    "tokenizer",
                    step + 1,
                    plan.tokenizer_steps,
                    {"loss": loss.item(), "l1": error.abs().mean().item(), "codes used": alive},
                )
    vq.requires_grad_(False).eval()


def _revive(codes: Tensor, latents: Tensor, dead: Tensor, step: int) -> None:
    """Moves the dead codes onto random latents (B, C, H, W), at unit length."""
    vectors = F.normalize(latents.detach().permute(0, 2, 3, 1).flatten(0, 2), dim=1)
    pick = torch.from_numpy(rng_for(step, 7).integers(len(vectors), size=int(dead.sum())))
    codes.data[dead] = vectors[pick]


# Corpus -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """Captioned scenes: noisy captions (N), captions that are true (N), image tokens (N, T) int16."""

    captions: list[str]
    truths: list[str]
    tokens: np.ndarray


def build_corpus(
    model: Any, world: World, folder: Path, plan: PretrainPlan, progress: Progress
) -> Corpus:
    """Scenes as image tokens, each with a noisy and a true caption. Complete or absent on disk."""
    if not folder.is_dir():
        captions, truths, tokens = [], [], []
        block = 500
        share = np.asarray(plan.task_weights) / sum(plan.task_weights)
        for start in range(0, plan.corpus_scenes, block):
            rng = rng_for(plan.seed, 2, start)
            images = []
            for task in rng.choice(TASKS, size=block, p=share):
                record = world.grammar.sample_record(rng, [task])
                shown = world.mistakes.shown_record(record, rng)
                images.append(world.render(world.draw(shown, rng))[0])
                captions.append(record["prompt"])
                truths.append(caption(shown, world.grammar.template_of(record)))
            tokens.append(model.encode(from_uint8(images)).numpy().astype(np.int16))
            progress("corpus", start + block, plan.corpus_scenes, {})
        with write_folder_atomic(folder) as place:
            text = json.dumps({"captions": captions, "truths": truths})
            (place / "captions.json").write_text(text, encoding="utf-8")
            np.save(place / "tokens.npy", np.concatenate(tokens))
    told = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    tokens = np.load(folder / "tokens.npy", allow_pickle=False)
    return Corpus(told["captions"], told["truths"], tokens)


# Transformer ------------------------------------------------------------------------------------------------------


def _shown_caption(text: str, plan: PretrainPlan, rng: np.random.Generator) -> str | None:
    """The caption as the model sees it this time; None = the null prompt."""
    draw = rng.random()
    if draw < plan.null_share:
        return None
    if draw < plan.null_share + plan.empty_share:
        return ""
    if draw < plan.null_share + plan.empty_share + plan.bare_share:
        return text.split(" ", 3)[3]  # every template has three words
    return text


def train_transformer(
    model: Any, folder: Path, corpus: Corpus, plan: PretrainPlan, progress: Progress
) -> None:
    """Next-token prediction of the image tokens under their captions."""
    trained = nn.ModuleList([model.language_model, model.image_embedding, model.image_head])
    trained.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(
        trained.parameters(), plan.transformer_lr, (0.9, 0.98), weight_decay=0.05
    )
    steps = plan.transformer_steps
    usual = model.language_model.config._attn_implementation
    if plan.mixed:  # whose library kernel takes three times as long to differentiate on a CPU
        model.language_model.set_attn_implementation("eager")
    curated = round(plan.curated_share * steps)
    for step in resumable(trained, optimizer, folder, steps, plan):
        rng = rng_for(plan.seed, 3, step)
        rows = rng.integers(len(corpus.tokens), size=plan.transformer_batch)
        captions = corpus.truths if step < curated else corpus.captions
        texts = [captions[i] for i in rows]
        shown = [_shown_caption(text, plan, rng) for text in texts]
        encoded = model.condition(texts, shown)
        condition = type(encoded)(
            encoded.inputs[len(texts) :], encoded.attention_mask[len(texts) :], len(texts)
        )
        tokens = torch.from_numpy(corpus.tokens[rows].astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.mixed):
            logprobs = model(condition, tokens, want=["logprobs"])["logprobs"]
        loss = -logprobs.mean()
        take_step(optimizer, loss, schedule(step, steps, plan.transformer_lr), step)
        if (step + 1) % 50 == 0:
            progress("transformer", step + 1, steps, {"loss": loss.item()})
    model.language_model.set_attn_implementation(usual)
    trained.requires_grad_(True).eval()
