"""Janus and Janus-Pro through transformers' JanusForConditionalGeneration: its processor's prompts, its null branch, its
image head. The text head is never run; the image tokenizer and the vision encoder are frozen.

Shapes: P prompts, B samples, T = H*W image tokens in raster order, V codes, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import JanusForConditionalGeneration, JanusProcessor

from ..errors import ModelError
from .decoding import PromptCondition, left_padded, require_room
from .files import load_processor, load_weights
from .llama_image import LlamaImageModel
from .templates import PROMPT, frame
from .tokenizers.base import SIGNED, ImageScale, TokenizedImages
from .tokenizers.taming import TamingTokenizer


class JanusImageModel(TokenizedImages, LlamaImageModel):
    """See `ImageTokenModel`. Images are square, values in [0, 1].

    Args:
        janus: the whole model, as transformers has it.
        processor: its chat template, tokenizer and image processor; None = prompts cannot be encoded.

    Raises:
        ModelError: processor or grid do not fit the model; the message begins with the file.
    """

    def __init__(
        self, janus: JanusForConditionalGeneration, processor: JanusProcessor | None
    ) -> None:
        super().__init__()
        self.janus = janus
        self.processor: Any = processor  # None only where nothing is encoded or saved
        self._frame = _frame(processor) if processor else ("", "")
        side = janus.model.vqmodel.config.num_patches
        self.grid = (side, side)
        self.codebook_size = janus.model.vqmodel.config.num_embeddings
        wanted = janus.model.vision_model.config.num_image_tokens
        if wanted != side * side:
            raise ModelError(
                f"config.json: a grid of {side} x {side} does not fit vision_config.num_image_tokens, which says {wanted}"
            )
        self.prompt_limit = self.language_model.config.max_position_embeddings - side * side
        if self.prompt_limit < 1:
            raise ModelError(
                f"config.json: a grid of {side} x {side} leaves no room for a prompt: text_config.max_position_embeddings is "
                f"{side * side + self.prompt_limit}"
            )
        self.bos, self.pad, self.image_start = _special_ids(janus, processor)
        scale = ImageScale.of(processor.image_processor) if processor else SIGNED
        self.image_tokenizer = TamingTokenizer(janus.model.vqmodel, scale)
        for unused in (janus.model.vqmodel, janus.model.vision_model, janus.model.aligner):
            unused.requires_grad_(False)
        if janus.lm_head.weight is not janus.get_input_embeddings().weight:
            janus.lm_head.requires_grad_(False)

    @property
    def language_model(self) -> Any:
        return self.janus.model.language_model

    # Text

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """Encodes prompts as the processor does for image generation; a null prompt keeps its positive's <bos> and
        image start, with padding, which is attended to, in place of everything else."""
        rows = [self._ids(text) for text in prompts]
        if negatives is not None:
            assert len(negatives) == len(prompts), (len(negatives), len(prompts))
            rows += [
                self._null_ids(rows[i]) if text is None else self._ids(text)
                for i, text in enumerate(negatives)
            ]
        return left_padded(rows, self.pad, len(prompts), self.device, words=self.words)

    def _ids(self, text: str) -> list[int]:
        before, after = self._frame
        ids = self.processor(text=before + text + after, generation_mode="image")["input_ids"]
        ids = ids[0].tolist()
        require_room(text, len(ids), self.prompt_limit)
        return ids

    def _null_ids(self, ids: list[int]) -> list[int]:
        return [i if i in (self.bos, self.image_start) else self.pad for i in ids]

    # Image tokens

    def embed_image_tokens(self, tokens: Tensor, first: int | Tensor) -> Tensor:
        return self.janus.prepare_embeddings_for_image_generation(tokens)

    def head(self, features: Tensor) -> Tensor:
        return self.janus.model.generation_head(features)

    # Disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that `JanusForConditionalGeneration.from_pretrained` and the processor load."""
        self.janus.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> JanusImageModel:
        """Loads a folder in the Hugging Face layout, in the number format of its weights.

        Raises:
            ModelError: a file is missing or damaged, or the parts do not fit each other.
        """
        root = Path(folder)
        processor = load_processor(JanusProcessor, root)
        if not processor.chat_template:
            raise ModelError(f"{root / 'chat_template.jinja'}: missing; prompts are put into it")
        try:
            return cls(load_weights(JanusForConditionalGeneration, root), processor).eval()
        except ModelError as error:
            where = "" if str(error).startswith(str(root)) else f"{root}/"
            raise ModelError(f"{where}{error}") from None


def _frame(processor: Any) -> tuple[str, str]:
    """What stands before and after a prompt."""
    content = [{"type": "text", "text": PROMPT}]
    return frame(
        Path("chat_template.jinja"),
        processor.chat_template,
        content,
        processor.tokenizer.special_tokens_map,
    )


def _special_ids(janus: Any, processor: Any | None) -> tuple[int, int, int]:
    """<bos>, padding and image start, as the model's own generation has them; else the tokenizer's."""
    settings = janus.generation_config
    start = getattr(settings, "generation_kwargs", None) or {}
    if not isinstance(start, dict):
        raise ModelError(f"generation_config.json: generation_kwargs: {start!r:.80} is no object")
    start = start.get("boi_token_id")
    found = {"bos": settings.bos_token_id, "pad": settings.pad_token_id, "image start": start}
    own: dict[str, Any] = {}
    if processor is not None:
        tokenizer = processor.tokenizer
        image = tokenizer.convert_tokens_to_ids(processor.image_start_token)
        image = None if image == tokenizer.unk_token_id else image
        own = {"bos": tokenizer.bos_token_id, "pad": tokenizer.pad_token_id, "image start": image}
        found = {name: own[name] if value is None else value for name, value in found.items()}
        if image != found["image start"]:
            raise ModelError(
                f"generation_config.json: generation_kwargs.boi_token_id: {start} does not fit the tokenizer, whose "
                f"{processor.image_start_token!r} is {image}"
            )
    words = janus.get_input_embeddings().num_embeddings
    for name, value in found.items():
        if value is None:
            raise ModelError(f"tokenizer_config.json: the processor has no {name} token")
        if type(value) is not int or not 0 <= value < words:
            file = "tokenizer" if value == own.get(name) else "generation_config"
            raise ModelError(
                f"{file}.json: the {name} token is {value!r}; the model's vocabulary has {words}"
            )
    return found["bos"], found["pad"], found["image start"]
