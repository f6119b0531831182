"""How good an image looks, whatever it shows: LAION's heads over the image embedding of a CLIP model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ModelError
from ..interfaces import Prompt
from .clip import BatchSize
from .clip_tower import EMBEDDED, ClipTower, Dtype, one_line_errors, open_clip_tower

HEAD = "aesthetic_head.safetensors"
WIDTHS = (1024, 128, 64, 16)  # of LAION's head
_PLACES = (
    0,
    2,
    4,
    6,
    7,
)  # of the linear layers among the layers; dropout stands between the first four
_SOURCES = (
    "LAION's files are sac+logos+ava1-l14-linearMSE.pth (github.com/christophschuhmann/improved-aesthetic-predictor) "
    "and sa_0_4_vit_l_14_linear.pth (github.com/LAION-AI/aesthetic-predictor)"
)


class AestheticHead(nn.Module):
    """LAION's improved head: five linear layers with dropout and, as in the original, nothing else between them."""

    def __init__(self, width: int, hidden: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        a, b, c, d = hidden
        self.layers = nn.Sequential(
            nn.Linear(width, a),
            nn.Dropout(0.2),
            nn.Linear(a, b),
            nn.Dropout(0.2),
            nn.Linear(b, c),
            nn.Dropout(0.1),
            nn.Linear(c, d),
            nn.Linear(d, 1),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """Unit vectors (B, E) to scores (B, 1)."""
        return self.layers(embeddings)


def read_head(path: Path) -> nn.Module:
    """A head in one of LAION's two layouts, `layers.0.weight` ... `layers.7.bias` or `weight` and `bias`, in float32.

    Args:
        path: a .safetensors file, or a pickle, of which tensors only are read.

    Raises:
        ModelError: the file is missing, damaged or something else.
    """
    if not path.is_file():
        raise ModelError(f"aesthetic: head: {path} is no file; {_SOURCES}")
    with one_line_errors("aesthetic", str(path)):
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    head = _fitting_head(state)
    if head is None:
        raise ModelError(
            f"aesthetic: head: {path} is no aesthetic head (layers.0.weight ... layers.7.bias, or weight and bias); "
            + _SOURCES
        )
    head.load_state_dict(state)
    return head.requires_grad_(False).eval()


def _fitting_head(state: object) -> nn.Module | None:
    """An empty head of the sizes of these tensors; None if they are none's."""
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        return None
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    weights = [found.get(f"layers.{place}.weight", ()) for place in _PLACES]
    with torch.device("meta"):
        if all(len(shape) == 2 for shape in weights):
            empty: nn.Module = AestheticHead(weights[0][1], [shape[0] for shape in weights[:-1]])
        elif len(found.get("weight", ())) == 2:
            empty = nn.Linear(found["weight"][1], 1)
        else:
            return None
    if {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()} != found:
        return None
    return empty.to_empty(device="cpu")


class AestheticReward:
    """The head's score of each image; prompts do not matter.

    Range: not bounded; the heads were trained on ratings from 1 to 10, and most images lie between 3 and 7.

    Attributes:
        tower: the CLIP model, whose embedding of a batch the `clip` reward of the same model uses too.
        head: unit vectors (B, E) to (B, 1).
        batch_size: most images in one forward pass.
    """

    def __init__(self, tower: ClipTower, head: nn.Module, batch_size: int) -> None:
        self.tower, self.head, self.batch_size = tower, head, batch_size

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(B, 3, h, w) in [0, 1] to (B,) float32, on the tower's device."""
        return self.head(self.tower.images(images, self.batch_size)).squeeze(-1)


def aesthetic(
    *,
    head: str = "embedded",
    model: str = "embedded",
    pretrained: str | None = None,
    batch_size: BatchSize = 64,
    device: str | None = None,
    dtype: Dtype = "float32",
) -> AestheticReward:
    """Builds the reward. LAION's heads want `model: ViT-L-14` and `pretrained: openai`.

    Args:
        head: "embedded" (which belongs to the embedded CLIP), or LAION's weights file.
        model, pretrained, batch_size, device, dtype: as in `clip`; with the same values both share one model.

    Raises:
        ModelError: a file is missing or damaged, or the head belongs to a CLIP of another width.
    """
    if (head == "embedded") != (model == "embedded"):
        raise ModelError(
            f"aesthetic: head {head!r} does not belong to model {model!r}: the embedded ones go together; {_SOURCES}, "
            "both for model ViT-L-14, pretrained openai"
        )
    found = read_head(EMBEDDED / HEAD if head == "embedded" else Path(head))
    tower = open_clip_tower(model, pretrained, device=device, dtype=dtype, reward="aesthetic")
    width = next(found.parameters()).shape[1]
    if width != tower.width:
        raise ModelError(
            f"aesthetic: head: {head} takes embeddings of width {width}, but {model} makes them {tower.width} wide; "
            "LAION's heads take 768, from model ViT-L-14, pretrained openai"
        )
    return AestheticReward(tower, found.to(tower.device), batch_size)
