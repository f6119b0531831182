"""Emu3-Gen through transformers' Emu3ForConditionalGeneration: image tokens inside the text vocabulary, an end-of-line
token after each row of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import Emu3ForConditionalGeneration, Emu3Processor

from ..errors import ModelError
from .bounds import read_object
from .decoding import PromptCondition, left_padded, require_room
from .files import load_processor, load_weights
from .tokenizers.base import ImageScale
from .tokenizers.emu3 import Emu3Tokenizer
from .vocabulary import VocabularyImageModel

# call arguments of the processor that make the size of images; its own defaults where processor_config.json has none
SIZE = ("ratio", "image_area")


class Emu3ImageModel(VocabularyImageModel):
    """See `ImageTokenModel`. The grid is what the processor asks for at its `ratio` and `image_area`.

    Args:
        emu3: the whole model, as transformers has it.
        processor: its tokenizer and image processor.

    Raises:
        ModelError: the vocabulary lacks image tokens, or the size of images is none; the message begins with the file.
    """

    def __init__(self, emu3: Emu3ForConditionalGeneration, processor: Emu3Processor) -> None:
        super().__init__()
        self.emu3, self.processor = emu3, processor
        self.grid = _grid(processor)
        scale = ImageScale.of(processor.image_processor)
        self.image_tokenizer = Emu3Tokenizer(emu3.model.vqmodel.requires_grad_(False), scale)
        codes = emu3.model.vqmodel.config.codebook_size
        known, line_end = emu3.vocabulary_mapping.img2bpe, emu3.vocabulary_mapping.eol_token_id
        if absent := [code for code in range(codes) if code not in known]:
            raise ModelError(f"config.json: vocabulary_map: no image token for code {absent[0]}")
        if line_end is None:
            raise ModelError("config.json: vocabulary_map: no end-of-line token <|extra_200|>")
        for token in (processor.image_start_token, processor.fake_token_around_image):
            ours = processor.tokenizer.convert_tokens_to_ids(token)
            if ours != (theirs := emu3.config.vocabulary_map.get(token)):
                raise ModelError(
                    f"config.json: vocabulary_map: {token} is {theirs}; in the tokenizer it is {ours}"
                )
        self.place_codes([known[code] for code in range(codes)], line_end)
        places = self.language_model.config.max_position_embeddings
        self.prompt_limit = places - self.image_inputs - 1
        if self.prompt_limit < 1:
            raise ModelError(
                f"processor_config.json: image_area: {processor.image_area} is not allowed: {self.grid[0]} x "
                f"{self.grid[1]} tokens leave no room for a prompt; the model has {places} positions"
            )

    @property
    def language_model(self) -> Any:
        return self.emu3.model.text_model

    @property
    def text_head(self) -> Any:
        return self.emu3.lm_head

    # Text

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """Encodes prompts as the processor does for image generation; the null prompt is the empty text."""
        texts = [*prompts, *(text or "" for text in negatives or ())]
        assert negatives is None or len(texts) == 2 * len(prompts), (len(texts), len(prompts))
        rows = [self._ids(text) for text in texts]
        pad = self.language_model.config.pad_token_id
        return left_padded(rows, pad, len(prompts), self.device, words=self.words)

    def _ids(self, text: str) -> list[int]:
        ids = self.processor(text=text, return_for_image_generation=True)["input_ids"][0]
        require_room(text, len(ids), self.prompt_limit)
        return list(ids)

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
        processor = load_processor(Emu3Processor, root)
        path = root / "processor_config.json"
        size = read_object(path) if path.is_file() else {}
        for name in set(SIZE) & set(size):
            setattr(processor, name, size[name])
        if not read_object(root / "config.json").get("vocabulary_map"):
            raise ModelError(f"{root / 'config.json'}: vocabulary_map: missing")
        try:
            _grid(processor)  # before the weights are read
            return cls(load_weights(Emu3ForConditionalGeneration, root), processor).eval()
        except ModelError as error:
            where = "" if str(error).startswith(str(root)) else f"{root}/"
            raise ModelError(f"{where}{error}") from None


def _grid(processor: Any) -> tuple[int, int]:
    """(H, W) of the images that a processor asks for.

    Raises:
        ModelError: its `ratio` or `image_area` gives no grid.
    """
    ratio, area = processor.ratio, processor.image_area
    if not (isinstance(ratio, str) and re.fullmatch(r"0*[1-9]\d*:0*[1-9]\d*", ratio)):
        raise ModelError(
            f"processor_config.json: ratio: {ratio!r} is not allowed; width:height, such as 4:3"
        )
    if type(area) is not int or area < 1:
        raise ModelError(
            f"processor_config.json: image_area: {area!r} is not allowed; a number of pixels"
        )
    height, width = processor.calculate_generate_size(ratio, area, processor.downsample_ratio)
    if min(height, width) < 1:
        raise ModelError(
            f"processor_config.json: image_area: {area} is not allowed at ratio {ratio}: {height} x {width} tokens"
        )
    return height, width
