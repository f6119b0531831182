"""Trains the embedded reward models from nothing: a small CLIP, then an aesthetic head on it. Measures: measure/cards/rewards.py.

Two stages, each resumable from its own checkpoints in the work folder: "clip" (rendered scenes and true captions, a share
of them spoiled, and said to be) and "head" (ratings of spoiled scenes over the frozen image embedding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...prompts.records import TASKS
from ...rollout.images import from_uint8
from ...run_folder.atomic import write_folder_atomic
from ..shapes import grammar
from ..shapes.examples import FLAWS, examples, rated_scenes, rating, true_captions
from ..shapes.scene import SIZE
from .generator import Progress, resumable, rng_for, schedule, take_step

PAD, UNKNOWN, START, END = "<pad>", "<unknown>", "<start_of_text>", "<end_of_text>"
HEAD_WIDTHS = (64, 32, 16, 8)

EmptyHead = Callable[[int, tuple[int, int, int, int]], nn.Module]  # (features, widths)
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": 96, "layers": 4, "head_width": 32},
    "text_cfg": {
        "context_length": 24,
        "hf_tokenizer_name": "tokenizer",  # open_clip looks for it in the model's own folder
        "width": 96,
        "heads": 3,
        "layers": 2,
    },
}
# values in [0, 1] become those in [-1, 1]
PREPROCESS: dict[str, Any] = {
    "size": SIZE,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@dataclass(frozen=True)
class RewardsPlan:
    """How long each stage takes.

    Attributes:
        clip_steps, clip_batch, clip_lr: of the contrastive training.
        flawed_share: scenes that are spoiled, and whose caption says so, so that the embedding tells.
        head_scenes: scenes that the head is trained on, again and again.
        head_steps, head_batch, head_lr: of the head.
        clean_share: of those scenes that are not spoiled at all.
        seed: of everything.
    """

    clip_steps: int = 1500
    clip_batch: int = 96
    clip_lr: float = 1e-3
    flawed_share: float = 0.3
    head_scenes: int = 8000
    head_steps: int = 1500
    head_batch: int = 256
    head_lr: float = 2e-3
    clean_share: float = 0.2
    seed: int = 0
    checkpoint_every: int = 250


def pretrain_rewards(
    out: Path, work: Path, plan: RewardsPlan, progress: Progress, empty_head: EmptyHead
) -> None:
    """Trains both models and writes them, in half precision and in their libraries' formats; a stopped call goes on.

    Args:
        out: the folder to write, complete or absent: clip/ (open_clip's local-dir layout) and
            aesthetic_head.safetensors (LAION's layout).
        work: checkpoints.
        plan: how long.
        progress: (stage, done, of, latest values).
        empty_head: makes the untrained head.
    """
    model, tokenizer = build_clip(plan.seed)
    train_clip(model, tokenizer, work / "clip", plan, progress)
    head = train_head(model, work / "head", plan, progress, empty_head)
    state = {name: tensor.half() for name, tensor in head.state_dict().items()}
    with write_folder_atomic(out) as draft:
        save_clip(model, draft / "clip")
        save_file(state, draft / "aesthetic_head.safetensors", {"format": "pt"})


# The model --------------------------------------------------------------------------------------------------------


def build_clip(seed: int) -> tuple[Any, Any]:
    """An untrained open_clip model of CLIP_CONFIG and its tokenizer."""
    from open_clip.model import CLIP

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(**_sized(len(tokenizer)))
    return model, tokenizer


def _sized(vocab_size: int) -> dict[str, Any]:
    return {**CLIP_CONFIG, "text_cfg": {**CLIP_CONFIG["text_cfg"], "vocab_size": vocab_size}}


def build_tokenizer() -> Any:
    """A word-level tokenizer of the world's words in the Hugging Face format, which open_clip reads.

    It begins and ends a text as CLIP's does, and the end has the largest id, where open_clip's text tower looks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    splits = ("train", "heldout")
    texts = [r["prompt"] for s in splits for t in TASKS for r in grammar.records(t, s)]
    words = {word for text in texts for word in text.split()} | set(FLAWS.values()) | {","}
    names = [PAD, UNKNOWN, *sorted(words), START, END]
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(ids, UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
    )


def to_ids(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Texts to token ids (N, context_length)."""
    length = CLIP_CONFIG["text_cfg"]["context_length"]
    found = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length)
    return torch.tensor(found["input_ids"])


def save_clip(model: Any, folder: Path) -> None:
    """Writes the model and its tokenizer as open_clip does for the Hugging Face hub; left in half precision."""
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    open_clip.set_model_preprocess_cfg(model, PREPROCESS)
    tokenizer = build_tokenizer()  # a used one would save the padding of its last call too
    config = _sized(len(tokenizer))
    save_for_hf(model.half(), tokenizer, config, str(folder), safe_serialization=True)


# Contrastive training ---------------------------------------------------------------------------------------------


def contrastive_loss(logits: Tensor, true: Tensor) -> Tensor:
    """CLIP's loss, in which a caption that happens to be true of another image is no wrong answer for it.

    Args:
        logits: (B, B), images by captions.
        true: (B, B) bool, see `true_captions`.
    """
    own = torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(true & ~own, -torch.inf)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_clip(
    model: Any, tokenizer: Any, folder: Path, plan: RewardsPlan, progress: Progress
) -> None:
    """Images and true captions towards each other; frozen afterwards."""
    model.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.parameters(), plan.clip_lr, (0.9, 0.98), weight_decay=0.05)
    steps = plan.clip_steps
    for step in resumable(model, optimizer, folder, steps, plan):
        batch = examples(plan.clip_batch, plan.flawed_share, rng_for(plan.seed, 11, step))
        pixels = from_uint8([e.image for e in batch]) * 2 - 1
        drawn = model.encode_image(pixels, normalize=True)
        written = model.encode_text(to_ids(tokenizer, [e.caption for e in batch]), normalize=True)
        scale = model.logit_scale.clamp(max=np.log(100)).exp()
        logits = scale * drawn @ written.T
        loss = contrastive_loss(logits, torch.from_numpy(true_captions(batch)))
        take_step(optimizer, loss, schedule(step, steps, plan.clip_lr), step)
        if (step + 1) % 50 == 0:
            right = (logits.argmax(0) == torch.arange(len(batch))).float().mean()
            progress("clip", step + 1, steps, {"loss": loss.item(), "top1": right.item()})
    model.requires_grad_(False).eval()


# Aesthetic head ---------------------------------------------------------------------------------------------------


def train_head(
    model: Any, folder: Path, plan: RewardsPlan, progress: Progress, empty_head: EmptyHead
) -> nn.Module:
    """The head's ratings of spoiled scenes, by least squares, over the frozen image embedding."""
    images, strengths, _ = rated_scenes(plan.head_scenes, plan.clean_share, rng_for(plan.seed, 12))
    with torch.no_grad():
        parts = [
            model.encode_image(part * 2 - 1, normalize=True)
            for part in from_uint8(images).split(256)
        ]
    embeddings, ratings = torch.cat(parts), torch.from_numpy(rating(strengths)).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        head = empty_head(embeddings.shape[1], HEAD_WIDTHS)
    head.eval()  # no dropout: a linear map of so few numbers needs none
    optimizer = torch.optim.AdamW(head.parameters(), plan.head_lr, weight_decay=0.0)
    steps = plan.head_steps
    for step in resumable(head, optimizer, folder, steps, plan):
        rows = rng_for(plan.seed, 13, step).integers(len(ratings), size=plan.head_batch)
        error = head(embeddings[rows]).squeeze(-1) - ratings[rows]
        loss = error.square().mean()
        take_step(optimizer, loss, schedule(step, steps, plan.head_lr), step)
        if (step + 1) % 50 == 0:
            progress("head", step + 1, steps, {"loss": loss.item()})
    return head.requires_grad_(False)
