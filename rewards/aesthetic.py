"""How good an image looks, whatever it shows: LAION's heads over the image embedding of a CLIP model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config.values import Place
from ..errors import ModelError, T2ICreditWarning
from ..interfaces import Prompt
from ..models.files import require_whole_files
from .clip import BatchSize
from .clip_tower import EMBEDDED, ClipTower, Dtype, open_clip_tower
from .loading import one_line_errors

HEAD = "aesthetic_head.safetensors"
# LAION's published heads, by the names of their files, and the architecture that each was made for, with OpenAI's weights
LAION_HEADS = {
    "sac+logos+ava1-l14-linearMSE": "ViT-L-14",
    "ava+logos-l14-linearMSE": "ViT-L-14",
    "sa_0_4_vit_l_14_linear": "ViT-L-14",
    "sa_0_4_vit_b_16_linear": "ViT-B-16",
    "sa_0_4_vit_b_32_linear": "ViT-B-32",
}
OPENAI_WIDTH = (
    768  # of the embeddings of ViT-L-14, and of other models whose embeddings mean something else
)
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
        require_whole_files(path)
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


def belonging(head: str, width: int, model: str, pretrained: str | None) -> str:
    """A line if nobody can know whether a head was made for this CLIP; "" if it was.

    Equal widths do not tell: a head takes the embeddings of another model of 768 numbers, and its scores mean nothing.

    Args:
        head: the file.
        width: of the embeddings that it takes.
        model, pretrained: as in `aesthetic`.

    Raises:
        ModelError: LAION made it for another one.
    """
    wanted = LAION_HEADS.get(Path(head).stem)
    if wanted is None and width != OPENAI_WIDTH:
        return ""  # of the user's own making
    architecture = wanted or "ViT-L-14"
    named = model.removesuffix("-quickgelu")
    if (named, pretrained) == (architecture, "openai"):
        return ""
    given = f"model {model}" + (f", pretrained {pretrained}" if pretrained else "")
    made = f"made for model {architecture}, pretrained openai"
    other = named != architecture or not Path(pretrained or "").is_file()
    if wanted and pretrained and other:  # a folder's or a file's weights may be anybody's
        raise ModelError(f"aesthetic: head: {head} was {made}; its scores mean nothing for {given}")
    if wanted:
        return f"aesthetic: head: {head} was {made}; nobody knows whether {given} has these weights"
    return f"aesthetic: head: {head} has the width of LAION's, {made}; nobody knows whether it fits {given}"


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

    def differentiable(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """The same with a gradient in the pixels; see `DifferentiableReward`."""
        return self.head(self.tower.differentiable(images)).squeeze(-1)


def aesthetic(
    *,
    head: Place = "embedded",
    model: Place = "embedded",
    pretrained: Place | None = None,
    batch_size: BatchSize = 64,
    device: str | None = None,
    dtype: Dtype = "float32",
) -> AestheticReward:
    """Builds the reward. LAION's heads want `model: ViT-L-14` and `pretrained: openai`.

    Args:
        head: "embedded" (which belongs to the embedded CLIP), or LAION's weights file.
        model, pretrained, batch_size, device, dtype: as in `clip`; with the same values both share one model.

    Raises:
        ModelError: a file is missing or damaged, or the head belongs to another CLIP.

    Warns:
        T2ICreditWarning: nobody can know whether the head belongs to the CLIP.
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
    if head != "embedded" and (line := belonging(head, width, model, pretrained)):
        warnings.warn(line, T2ICreditWarning, stacklevel=2)
    return AestheticReward(tower, found.to(tower.device), batch_size)
