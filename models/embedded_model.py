"""The embedded generator: a diffusers VQModel as image tokenizer and a transformers LlamaModel over its codes.

A folder of such a model holds config.json, vq/, transformer/, text_tokenizer/ and image_layers.safetensors, each
in its library's own format. Nothing here trains: see t2i_credit/worlds/pretrain/generator.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from ..errors import ModelError, one_line
from ..prompts.limits import shortened, words_unknown
from ..prompts.records import WORLDS
from .bounds import named_errors, read_object, require_sizes, require_tokenizer
from .decoding import PromptCondition, left_padded
from .files import load_tensors, require_files, require_tensors, require_values
from .llama_image import LlamaImageModel
from .tokenizers.base import TokenizedImages
from .tokenizers.vq_model import VQModelTokenizer

MODEL_TYPE = "t2i_credit_embedded"
PAD, BOS, IMAGE, UNKNOWN = "<pad>", "<bos>", "<image>", "<unknown>"
WEIGHTS, VQ_WEIGHTS = "model.safetensors", "diffusion_pytorch_model.safetensors"
_FILES = (
    "config.json",
    f"vq/{VQ_WEIGHTS}",
    "vq/config.json",
    f"transformer/{WEIGHTS}",
    "transformer/config.json",
    "text_tokenizer/tokenizer.json",
    "text_tokenizer/tokenizer_config.json",
    "image_layers.safetensors",
)


# of vq/config.json: what follows from config.json
SIZES = (
    *("in_channels", "out_channels", "latent_channels", "layers_per_block", "num_vq_embeddings"),
    *("vq_embed_dim", "norm_num_groups", "norm_type", "act_fn", "lookup_from_codebook"),
    "mid_block_add_attention",
)
LISTS = ("block_out_channels", "down_block_types", "up_block_types")


@dataclass(frozen=True)
class EmbeddedConfig:
    """Sizes of the embedded generator.

    Attributes:
        image_size: pixels per side.
        patch: pixels per side that the image tokenizer takes as channels (space to depth), which keeps it fast.
        vq_channels: width at each resolution of the image tokenizer; each but the last halves the resolution.
        code_dim: C, width of a code vector.
        codebook_size: V.
        hidden_size, layers, heads: of the transformer.
        world: whose prompts it was made for.
    """

    image_size: int = 48
    patch: int = 4
    vq_channels: tuple[int, ...] = (64, 96)
    vq_layers: int = 1
    code_dim: int = 8
    codebook_size: int = 512
    hidden_size: int = 128
    layers: int = 5
    heads: int = 4
    world: str = WORLDS[0]

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) in tokens."""
        side = self.image_size // (self.patch * 2 ** (len(self.vq_channels) - 1))
        return side, side


def build_text_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer in the Hugging Face format."""
    names = [PAD, BOS, IMAGE, UNKNOWN, *sorted(set(words))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, unk_token=UNKNOWN
    )


class ImageEmbedding(nn.Module):
    """Code and raster position to an input of the transformer."""

    def __init__(self, codebook_size: int, positions: int, hidden_size: int) -> None:
        super().__init__()
        self.code = nn.Embedding(codebook_size, hidden_size)
        self.place = nn.Embedding(positions, hidden_size)
        nn.init.normal_(self.code.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)

    def forward(self, tokens: Tensor, first: int | Tensor) -> Tensor:
        places = first + torch.arange(tokens.shape[1], device=tokens.device)
        return self.code(tokens) + self.place(places)


class EmbeddedModel(TokenizedImages, LlamaImageModel):
    """See `ImageTokenModel`. Images are square, values in [0, 1]; T = H*W in raster order."""

    def __init__(self, config: EmbeddedConfig, text_tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.config = config
        self.text_tokenizer = text_tokenizer
        self.grid = config.grid
        self.codebook_size = config.codebook_size
        tokens = self.grid[0] * self.grid[1]
        self.language_model = LlamaModel(
            LlamaConfig(
                vocab_size=len(text_tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=config.hidden_size * 8 // 3 // 16 * 16,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=256 + tokens,
                pad_token_id=None,
                bos_token_id=text_tokenizer.bos_token_id,
                eos_token_id=None,
            )
        )
        self.image_embedding = ImageEmbedding(config.codebook_size, tokens, config.hidden_size)
        self.image_head = nn.Linear(config.hidden_size, config.codebook_size)
        nn.init.normal_(self.image_head.weight, std=0.02)
        channels, blocks = 3 * config.patch**2, len(config.vq_channels)
        self.vq = VQModel(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            block_out_channels=config.vq_channels,
            layers_per_block=config.vq_layers,
            latent_channels=config.code_dim,
            vq_embed_dim=config.code_dim,
            sample_size=config.image_size // config.patch,
            num_vq_embeddings=config.codebook_size,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )
        self.vq.requires_grad_(False)

    # Text

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """Encodes prompts as <bos> words <image>; a null prompt has padding in place of its positive's words."""
        rows = [self._ids(text) for text in prompts]
        if negatives is not None:
            assert len(negatives) == len(prompts), (len(negatives), len(prompts))
            rows += [
                self._null_ids(rows[i]) if text is None else self._ids(text)
                for i, text in enumerate(negatives)
            ]
        return left_padded(
            rows, self.text_tokenizer.pad_token_id, len(prompts), self.device, words=self.words
        )

    def _ids(self, text: str) -> list[int]:
        words = self.text_tokenizer(text.lower(), add_special_tokens=False)["input_ids"]
        limit = self.language_model.config.max_position_embeddings - self.grid[0] * self.grid[1]
        if len(words) + 2 > limit:
            raise ModelError(
                f"prompt {shortened(text)!r}: {len(words)} words; the model takes at most {limit - 2}"
            )
        convert = self.text_tokenizer.convert_tokens_to_ids
        return [self.text_tokenizer.bos_token_id, *words, convert(IMAGE)]

    def _null_ids(self, ids: list[int]) -> list[int]:
        return [ids[0], *[self.text_tokenizer.pad_token_id] * (len(ids) - 2), ids[-1]]

    def check(self, prompts: Sequence[str]) -> list[str]:
        return super().check(prompts) + words_unknown("the model", prompts, self.unknown_words)

    def unknown_words(self, text: str) -> list[str]:
        """The words of a prompt that the model has never seen."""
        pieces = self.text_tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text.lower())
        vocabulary = self.text_tokenizer.get_vocab()
        return [word for word, _ in pieces if word not in vocabulary]

    # Image tokens

    def embed_image_tokens(self, tokens: Tensor, first: int | Tensor) -> Tensor:
        return self.image_embedding(tokens, first)

    def head(self, features: Tensor) -> Tensor:
        return self.image_head(features)

    @property
    def image_tokenizer(self) -> VQModelTokenizer:  # type: ignore[override]
        return VQModelTokenizer(self.vq, patch=self.config.patch)

    def to_patches(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] to the image tokenizer's input (B, 3 p p, h/p, w/p) in [-1, 1]."""
        return F.pixel_unshuffle(images * 2 - 1, self.config.patch)

    def from_patches(self, patches: Tensor) -> Tensor:
        """Inverse of `to_patches`, without clamping."""
        return F.pixel_shuffle(patches, self.config.patch) / 2 + 0.5

    # Disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the folder described at the top of this file."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        self.vq.save_pretrained(root / "vq")
        self.language_model.save_pretrained(root / "transformer")
        self.text_tokenizer.save_pretrained(root / "text_tokenizer")
        layers = {k: v for k, v in self.state_dict().items() if k.startswith("image_")}
        layers = {name: tensor.contiguous() for name, tensor in layers.items()}
        save_file(layers, root / "image_layers.safetensors", {"format": "pt"})
        config = {"model_type": MODEL_TYPE, **asdict(self.config)}
        (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> EmbeddedModel:
        """Loads a folder that `save_pretrained` wrote; parameters become float32.

        Raises:
            ModelError: a file is missing, truncated or does not fit; the message names it.
        """
        root = Path(folder)
        require_files(root, _FILES)
        config = _read_config(root / "config.json")
        tokenizer = _read_text_tokenizer(root / "text_tokenizer")

        def build() -> EmbeddedModel:
            with named_errors(root / "config.json", "model"):
                model = cls(config, tokenizer)
            model.language_model = _read_transformer(root, model.language_model.config)
            model.vq = _read_vq(root, model.vq.config)
            return model

        parts = (
            (f"transformer/{WEIGHTS}", "language_model", ""),
            (f"vq/{VQ_WEIGHTS}", "vq", ""),
            ("image_layers.safetensors", "", "image_"),
        )
        with torch.device(
            "meta"
        ):  # which allocates nothing: the files tell the sizes that are true
            outline = build()
        for file, part, prefix in parts:
            require_tensors(outline.get_submodule(part), root / file, prefix)
        model = build()
        for file, part, prefix in parts:
            load_tensors(model.get_submodule(part), root / file, prefix)
        model.vq.requires_grad_(False)
        return model.float().eval()


def _read_config(path: Path) -> EmbeddedConfig:
    require_sizes(path)
    raw = read_object(path)
    if raw.pop("model_type", None) != MODEL_TYPE:
        raise ModelError(f"{path}: model_type: not {MODEL_TYPE!r}")
    world = raw.pop("world", WORLDS[0])  # of the first one, nobody asked which
    if world not in WORLDS:
        raise ModelError(f"{path}: world: {world!r} is not allowed; allowed: {', '.join(WORLDS)}")
    known = asdict(EmbeddedConfig())
    del known["world"]
    for key in (*raw, *known):
        if key not in raw:
            raise ModelError(f"{path}: {key}: missing")
        if key not in known:
            raise ModelError(f"{path}: {key}: unknown; known are {', '.join(known)}")
        values = raw[key] if key == "vq_channels" else [raw[key]]
        fine = isinstance(values, list) and values
        if not fine or not all(type(value) is int and value > 0 for value in values):
            raise ModelError(f"{path}: {key}: {raw[key]!r} is not allowed; whole numbers above 0")
    config = EmbeddedConfig(**{**raw, "vq_channels": tuple(raw["vq_channels"])}, world=world)
    token = config.patch * 2 ** (len(config.vq_channels) - 1)
    if config.image_size % token or config.hidden_size % (2 * config.heads):
        raise ModelError(
            f"{path}: image_size must be a multiple of {token} (pixels per token), hidden_size of twice the heads"
        )
    return config


def _read_text_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    path = folder / "tokenizer.json"
    read_object(folder / "tokenizer_config.json")
    if require_tokenizer(path).get("pre_tokenizer") is None:
        raise ModelError(f"{path}: pre_tokenizer: missing")
    try:
        words = Tokenizer.from_file(str(path))
        wrapped = _wrapped(words)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelError(f"{path}: damaged: {one_line(error)}") from None
    missing = [name for name in (PAD, BOS, IMAGE, UNKNOWN) if words.token_to_id(name) is None]
    if missing:
        raise ModelError(f"{path}: {missing[0]} is not in its vocabulary")
    return wrapped


def _read_transformer(root: Path, ours: LlamaConfig) -> LlamaModel:
    names = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    ]
    wanted = {"model_type": "llama"} | {name: getattr(ours, name) for name in names}
    path = root / "transformer" / "config.json"
    require_sizes(path)
    found = require_values(path, wanted, "the model's config.json")
    with named_errors(path, "transformer"):
        return LlamaModel(LlamaConfig.from_dict(found))


def _read_vq(root: Path, ours: Any) -> VQModel:
    wanted = {name: list(ours[name]) if name in LISTS else ours[name] for name in (*SIZES, *LISTS)}
    path = root / "vq" / "config.json"
    require_sizes(path)
    found = require_values(path, wanted, "the model's config.json")
    with named_errors(path, "image tokenizer"):
        return VQModel.from_config(found)
