"""Generators that are one plain causal language model of transformers whose vocabulary holds the image codes, and an image tokenizer
beside it: described by data (description.py), with no code of their own.

Shapes: P prompts, B samples, T = H*W image tokens in raster order, V codes, D hidden size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers import __version__ as version
from transformers.utils import logging

from ..errors import ModelError
from .bounds import read_object
from .decoding import PromptCondition, left_padded, require_room
from .description import PROMPT, Description, read_description
from .files import HUB_ID, TOKENIZER, inside, load_part, load_weights, require_one, snapshot
from .tokenizers import ImageTokenizer, read_image_tokenizer
from .vocabulary import VocabularyImageModel

TOLERANCE = 2e-2  # of the head against the whole model, relative: bfloat16's
LANGUAGE_MODEL, IMAGE_TOKENIZER = "language_model", "image_tokenizer"  # folders of a saved model


class CausalImageModel(VocabularyImageModel):
    """See `ImageTokenModel`.

    Args:
        causal: the language model.
        text_tokenizer: its tokenizer.
        image_tokenizer: codes to images.
        description: how they belong together.

    Raises:
        ModelError: they do not; the message begins with a key of the description.
    """

    def __init__(
        self,
        causal: PreTrainedModel,
        text_tokenizer: PreTrainedTokenizerBase,
        image_tokenizer: ImageTokenizer,
        description: Description,
    ) -> None:
        super().__init__()
        self.causal, self.text_tokenizer, self.description = causal, text_tokenizer, description
        self.image_tokenizer = image_tokenizer
        self.image_networks = image_tokenizer.module.requires_grad_(False)
        self.grid = (description.grid[0], description.grid[1])
        self.place_codes(self._code_ids(), self._row_end())
        self._require_markers()
        places = getattr(self.language_model.config, "max_position_embeddings", None) or 1 << 20
        self.prompt_limit = places - self.image_inputs - 1
        if self.prompt_limit < 1:
            raise ModelError(
                f"grid: {self.grid[0]} x {self.grid[1]} tokens leave no room for a prompt; the model has {places} positions"
            )
        self._require_whole_attention()
        self._require_head()
        pad = text_tokenizer.pad_token_id
        self._pad = pad if pad is not None else (text_tokenizer.eos_token_id or 0)

    @property
    def language_model(self) -> Any:
        return self.causal.base_model

    @property
    def text_head(self) -> Any:
        return self.causal.get_output_embeddings()

    def head(self, features: Tensor) -> Tensor:
        """Logits over the image codes, scaled and capped as the architecture does."""
        logits = super().head(features)
        config = self.language_model.config
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if scale := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scale
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2 and 3
            logits = torch.tanh(logits / cap) * cap
        return logits

    # Text

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """Encodes prompts in their template. A null prompt is the described text; or its positive, with padding, which is
        attended to, in the prompt's place."""
        rows = [self._ids(text)[0] for text in prompts]
        if negatives is not None:
            assert len(negatives) == len(prompts), (len(negatives), len(prompts))
            rows += [
                self._null_ids(prompts[i]) if text is None else self._ids(text)[0]
                for i, text in enumerate(negatives)
            ]
        return left_padded(rows, self._pad, len(prompts), self.device, words=self.words)

    def _ids(self, text: str) -> tuple[list[int], list[bool]]:
        """Token ids of a prompt in its template, and which of them stand for the prompt itself."""
        before, after = self.description.prompt.split(PROMPT)
        return self._encoded(before + text + after, len(before), len(before) + len(text))

    def _encoded(self, text: str, first: int, end: int) -> tuple[list[int], list[bool]]:
        """Token ids of a text, and which of them cover letters from `first` to before `end`."""
        found = self.text_tokenizer(text, return_offsets_mapping=True)
        ids = list(found["input_ids"])
        require_room(text, len(ids), self.prompt_limit)
        return ids, [first <= a < b <= end for a, b in found["offset_mapping"]]

    def _null_ids(self, text: str) -> list[int]:
        if self.description.null_prompt is not None:
            return self._encoded(self.description.null_prompt, 0, 0)[0]
        ids, inside = self._ids(text)
        return [self._pad if prompts else i for i, prompts in zip(ids, inside, strict=True)]

    # What must fit

    def _code_ids(self) -> list[int]:
        """The codes' places in the vocabulary."""
        codes, words = self.description.codes, len(self.text_head.weight)
        count = len(self.image_tokenizer.codebook)
        if isinstance(codes, list):
            if len(codes) != count or len(set(codes)) != count:
                raise ModelError(
                    f"codes: {len(codes)} places, {len(set(codes))} of them different; the image tokenizer has {count} codes"
                )
            ids = codes
        else:
            first = len(self.text_tokenizer) if codes == "after_text" else codes
            ids = list(range(first, first + count))
        if min(ids) < 0 or max(ids) >= words:
            raise ModelError(
                f"codes: {count} of them reach to place {max(ids)} of the vocabulary, which has {words}: the first one, or the "
                "image tokenizer, is of another model"
            )
        return ids

    def _row_end(self) -> int | None:
        token = self.description.row_end
        return None if token is None else self._one("row_end", token)

    def _one(self, key: str, token: str) -> int:
        """The id of a text that is one token; `key` of the description has it."""
        ids = self.text_tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelError(
                f"{key}: {token!r:.80} is {len(ids)} tokens to this text tokenizer; it must be one: is it that of this model?"
            )
        return int(ids[0])

    def _require_markers(self) -> None:
        """Every marker of the templates, such as <boi>, is one token; neither it nor a special token lies among the codes."""
        taken = dict.fromkeys(self.text_tokenizer.all_special_ids, "a special token")
        for key, marker in self.description.markers():
            taken[self._one(key, marker)] = f"the marker {marker}"
        if self.row_end is not None:
            taken[self.row_end] = "the row end"
        if found := sorted(taken.keys() & set(self.code_ids.tolist())):
            raise ModelError(f"codes: place {found[0]} of the vocabulary is {taken[found[0]]}")

    def _require_whole_attention(self) -> None:
        """No layer looks back less far than a prompt and its image are long."""
        config = self.language_model.config
        window = getattr(config, "sliding_window", None)
        sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ()) or getattr(
            config, "use_sliding_window", hasattr(config, "sliding_window")
        )
        if not window or not sliding:
            return
        if window <= self.image_inputs + 1:
            raise ModelError(
                f"grid: {self.grid[0]} x {self.grid[1]} tokens are more than the {window} that a layer of this model looks back "
                "(sliding_window)"
            )
        self.prompt_limit = min(self.prompt_limit, window - self.image_inputs - 1)

    @torch.no_grad()
    def _require_head(self) -> None:
        """The logits of `head` are those of the whole model, for a short text."""
        ids = self.code_ids[:2][None]
        embedded = self.language_model.get_input_embeddings()(ids)
        features = self.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        ours = self.head(features).float()
        theirs = self.causal(input_ids=ids, use_cache=False).logits[..., self.code_ids].float()
        if not torch.allclose(
            ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * float(theirs.std() + 1)
        ):
            raise ModelError(
                f"language_model: {type(self.causal).__name__} makes its logits in a way that is not known here: by up to "
                f"{float((ours - theirs).abs().max()):.3g} others than its head gives"
            )

    # Disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a folder that `from_pretrained` reads: config.json, the language model with its tokenizer, the files of the image
        tokenizer."""
        root = Path(folder)
        self.causal.save_pretrained(root / LANGUAGE_MODEL)
        self.text_tokenizer.save_pretrained(root / LANGUAGE_MODEL)
        images = root / IMAGE_TOKENIZER
        images.mkdir(parents=True, exist_ok=True)
        for file in self.image_tokenizer.files:
            shutil.copyfile(file, images / file.name)
        (root / "config.json").write_text(
            json.dumps(self.description.saved(LANGUAGE_MODEL, IMAGE_TOKENIZER), indent=2) + "\n",
            encoding="utf-8",
        )

    @classmethod
    def from_pretrained(cls, place: str | Path) -> CausalImageModel:
        """Loads a described generator, in the number format of its weights.

        Args:
            place: a description (.yaml), or a folder whose config.json is one.

        Raises:
            ModelError: a file is missing or damaged, or the parts do not fit each other; the message names the file.
        """
        path, description = read_description(place)
        with _as_asked(description.architecture):
            causal, text_tokenizer = _read_language_model(path, description)
        images = _folder(path, description.image_tokenizer.path, "image_tokenizer.path")
        try:
            image_tokenizer = read_image_tokenizer(images, description.image_tokenizer)
        except ModelError as error:
            kind = description.image_tokenizer.kind
            raise ModelError(f"{path}: image_tokenizer, of kind {kind}: {error}") from None
        fixed = getattr(image_tokenizer, "decode_vectors", None) is None
        made = CausalWithoutGradient if fixed else cls
        try:
            return made(causal, text_tokenizer, image_tokenizer, description).eval()
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None


class CausalWithoutGradient(CausalImageModel):
    """One whose image tokenizer has no gradient."""

    decode_vectors = None  # type: ignore[assignment]


@contextmanager
def _as_asked(architecture: str | None) -> Iterator[None]:
    """transformers does not warn of an architecture that a description asks for."""
    before = logging.get_verbosity()
    if architecture is not None:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _read_language_model(path: Path, description: Description) -> tuple[Any, Any]:
    """The language model and its text tokenizer."""
    folder = _folder(path, description.language_model, "language_model")
    causal_class = _causal_class(folder, description.architecture)
    words = _folder(path, description.tokenizer, "tokenizer") if description.tokenizer else folder
    require_one(words, TOKENIZER, "a text tokenizer")
    # what the file says, not what transformers makes of an architecture's name
    exact = (words / TOKENIZER[0]).is_file()
    kind = PreTrainedTokenizerFast if exact else AutoTokenizer
    text_tokenizer: Any = load_part("tokenizer", words, kind.from_pretrained)
    if not text_tokenizer.is_fast:
        raise ModelError(f"{words / 'tokenizer.json'}: missing; a slow tokenizer is not read")
    return load_weights(causal_class, folder), text_tokenizer


def _folder(path: Path, name: str, key: str) -> Path:
    """A folder that a description names: beside it, or on the hub; of a file of one's own, anywhere.

    Raises:
        ModelError: there is none.
    """
    if path.name == "config.json":  # which somebody else may have made
        found = inside(path.parent, name, f"config.json: {key}")
    else:
        found = path.parent / Path(name).expanduser()
    if found.is_dir():
        return found
    if not HUB_ID.fullmatch(name):
        where = f"looked for {found.absolute()}"
        raise ModelError(f"{path}: {key}: {name!r:.200}: no such folder ({where})")
    try:
        return snapshot(name)
    except ModelError as error:
        raise ModelError(f"{path}: {key}: {error}") from None


def _causal_class(folder: Path, architecture: str | None) -> Any:
    """The class of transformers that a language model's config.json, or a description, names.

    Raises:
        ModelError: it is no causal language model of transformers.
    """
    kind = architecture or read_object(folder / "config.json").get("model_type")
    config = CONFIG_MAPPING[kind] if isinstance(kind, str) and kind in CONFIG_MAPPING else None
    if config not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{folder / 'config.json'}: model_type {kind!r:.80} is no causal language model of transformers {version}; "
            "`architecture` in the description may name one that it is like, such as qwen2"
        )
    return MODEL_FOR_CAUSAL_LM_MAPPING[config]
