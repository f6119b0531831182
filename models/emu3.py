"""Emu3-Gen through transformers' Emu3ForConditionalGeneration: image tokens inside the text vocabulary, an end-of-line
token after each row of them. The adapter maps codes to vocabulary ids, inserts and drops the line ends, and takes logits
over the image codes alone.

Shapes: P prompts, B samples, T = H*W image tokens in raster order, V codes, D hidden size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Emu3ForConditionalGeneration, Emu3Processor

from ..errors import ModelError
from .decoding import PromptCondition, left_padded
from .hub_files import load_part, load_weights
from .image_scale import ImageScale
from .llama_image import LlamaImageModel
from .model_files import read_object

# call arguments of the processor that make the size of images; its own defaults where processor_config.json has none
SIZE = ("ratio", "image_area")


class Emu3ImageModel(LlamaImageModel):
    """See `ImageTokenModel`. The grid is what the processor asks for at its `ratio` and `image_area`.

    Args:
        emu3: the whole model, as transformers has it.
        processor: its tokenizer and image processor.

    Raises:
        ModelError: the vocabulary lacks image tokens.
    """

    code_ids: Tensor  # (V,) of the vocabulary

    def __init__(self, emu3: Emu3ForConditionalGeneration, processor: Emu3Processor) -> None:
        super().__init__()
        self.emu3, self.processor = emu3, processor
        factor = processor.downsample_ratio
        self.grid = processor.calculate_generate_size(processor.ratio, processor.image_area, factor)
        self.codebook_size = emu3.model.vqmodel.config.codebook_size
        known = emu3.vocabulary_mapping.img2bpe
        if absent := [code for code in range(self.codebook_size) if code not in known]:
            raise ModelError(f"vocabulary_map: no image token for code {absent[0]}")
        if emu3.vocabulary_mapping.eol_token_id is None:
            raise ModelError("vocabulary_map: no end-of-line token <|extra_200|>")
        ids = torch.tensor([known[code] for code in range(self.codebook_size)])
        self.register_buffer("code_ids", ids, persistent=False)
        first = int(ids[0])
        in_a_row = ids.tolist() == list(range(first, first + len(ids)))
        self._head_rows = slice(first, first + len(ids)) if in_a_row else None  # a view, no copy
        self.scale = ImageScale.of(processor.image_processor)
        emu3.model.vqmodel.requires_grad_(False)

    @property
    def language_model(self) -> Any:
        return self.emu3.model.text_model

    # Text

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """Encodes prompts as the processor does for image generation; the null prompt is the empty text."""
        texts = [*prompts, *(text or "" for text in negatives or ())]
        assert negatives is None or len(texts) == 2 * len(prompts), (len(texts), len(prompts))
        rows = [self._ids(text) for text in texts]
        pad = self.language_model.config.pad_token_id
        return left_padded(rows, pad, len(prompts), self.device)

    def _ids(self, text: str) -> list[int]:
        ids = self.processor(text=text, return_for_image_generation=True)["input_ids"][0]
        limit = self.language_model.config.max_position_embeddings - self.image_inputs - 1
        if len(ids) > limit:
            raise ModelError(f"prompt of {len(ids)} tokens; the model takes at most {limit}")
        return list(ids)

    # Image tokens and line ends

    def embed_image_tokens(self, tokens: Tensor, first: int) -> Tensor:
        count, width = tokens.shape[1], self.grid[1]
        raster = torch.arange(first, first + count, device=tokens.device)
        place = raster - first + raster // width - first // width
        ended = (first + count) // width - first // width
        line_end = self.emu3.vocabulary_mapping.eol_token_id
        ids = tokens.new_full((len(tokens), count + ended), line_end)
        ids[:, place] = self.code_ids[tokens]
        return self.language_model.get_input_embeddings()(ids)

    def predicting(self, first: int, count: int) -> Tensor:
        """A code is predicted by the input before it: the previous code, or the line end where a row begins."""
        raster, width = torch.arange(first, first + count, device=self.device), self.grid[1]
        return raster - first + (raster + 1) // width - first // width

    @property
    def image_inputs(self) -> int:
        fed = self.grid[0] * self.grid[1] - 1
        return fed + fed // self.grid[1]

    def head(self, features: Tensor) -> Tensor:
        weight = self.emu3.lm_head.weight
        rows = self.code_ids if self._head_rows is None else self._head_rows
        return F.linear(features, weight[rows])

    # Images

    @property
    def codebook(self) -> Tensor:
        return self.emu3.model.vqmodel.quantize.embedding.weight

    @property
    def image_size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        factor = self.emu3.model.vqmodel.spatial_scale_factor
        return self.grid[0] * factor, self.grid[1] * factor

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] to codes (B, T)."""
        vq = self.emu3.model.vqmodel
        pixels = self.scale.to_pixels(images, self.image_size, vq.dtype)
        found = vq.encode(pixels, [self.image_size] * len(images), return_dict=True).image_tokens
        return torch.stack(list(found)).flatten(1)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, T) codes to images (B, 3, h, w) in [0, 1]."""
        return self.scale.to_images(self.emu3.model.vqmodel.decode(tokens.unflatten(1, self.grid)))

    # Disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that `Emu3ForConditionalGeneration.from_pretrained` and the processor load."""
        self.emu3.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        path = Path(folder) / "processor_config.json"
        config = read_object(path) | {name: getattr(self.processor, name) for name in SIZE}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Emu3ImageModel:
        """Loads a folder in the Hugging Face layout, in the number format of its weights.

        Raises:
            ModelError: a file is missing or damaged, or the parts do not fit each other.
        """
        root = Path(folder)
        processor = load_part("processor", root, Emu3Processor.from_pretrained)
        path = root / "processor_config.json"
        size = read_object(path) if path.is_file() else {}
        for name in set(SIZE) & set(size):
            setattr(processor, name, size[name])
        if not read_object(root / "config.json").get("vocabulary_map"):
            raise ModelError(f"{root / 'config.json'}: vocabulary_map: missing")
        model = load_weights(Emu3ForConditionalGeneration, root)
        try:
            return cls(model, processor).eval()
        except ModelError as error:
            raise ModelError(f"{root / 'config.json'}: {error}") from None
