"""What people would prefer: CLIP models that were tuned on human choices between images of one prompt."""

from __future__ import annotations

from pathlib import Path

from ..config.values import Place
from ..errors import ModelError
from .clip import BatchSize, ClipReward
from .clip_tower import Dtype, open_clip_tower, transformers_tower


def pickscore(
    *,
    model: Place = "yuvalkirstain/PickScore_v1",
    processor: Place = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    batch_size: BatchSize = 32,
    device: str | None = None,
    dtype: Dtype = "float32",
) -> ClipReward:
    """PickScore (2305.01569): the logit of a transformers `CLIPModel`.

    Range: plus and minus the logit scale (100); in practice 17 to 24. Differences count: the odds that one image is
    preferred to another are exp(difference).

    Args:
        model: folder or hub id of the weights.
        processor: folder or hub id of the tokenizer and the preprocessing.
        batch_size, device, dtype: as in `clip`.

    Raises:
        ModelError: the model is not there, or does not fit.
    """
    tower = transformers_tower(model, processor, device=device, dtype=dtype, reward="pickscore")
    return ClipReward("pickscore", tower, "logit", batch_size)


def hpsv2(
    *,
    weights: Place,
    model: str = "ViT-H-14",
    batch_size: BatchSize = 32,
    device: str | None = None,
    dtype: Dtype = "float32",
) -> ClipReward:
    """HPSv2 (2306.09341): the cosine of an open_clip ViT-H-14 with its authors' weights.

    Range: [-1, 1]; in practice 0.2 to 0.35. Published tables show 100 times this.

    Args:
        weights: HPS_v2.1_compressed.pt (or v2), a pickle with a `state_dict`, of which tensors only are read.
        model: the open_clip architecture of the weights.
        batch_size, device, dtype: as in `clip`.

    Raises:
        ModelError: the file is not there, or does not fit.
    """
    if not Path(weights).is_file():
        raise ModelError(
            f"hpsv2: weights: {weights} is no file; HPS_v2.1_compressed.pt is at huggingface.co/xswu/HPSv2"
        )
    tower = open_clip_tower(model, weights, device=device, dtype=dtype, reward="hpsv2")
    return ClipReward("hpsv2", tower, "cosine", batch_size)
