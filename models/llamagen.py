"""LlamaGen's text-to-image model (FoundationVision/LlamaGen, arXiv 2406.06525) in the published checkpoints' names and
shapes: a LlamaModel under another rotary table, T5 features as prompt, transformers' JanusVQVAE as image tokenizer.

The checkpoints name neither heads nor grid and come without a config.json; a model folder needs one that says so:
    {"model_type": "llamagen_t2i", "grid": 16, "heads": 20, "gpt": "t2i_XL_stage1_256.pt", "vq": "vq_ds16_t2i.pt",
     "t5": "flan-t5-xl"}
Heads: GPT-B 12, GPT-L 16, GPT-XL 20. `t5` is a folder in the Hugging Face layout, with safetensors. Names and layers of
the published files are translated in llamagen_files.py.

The class-conditional models (c2i) have "model_type": "llamagen_c2i" and no t5: a prompt is the name or the number of one of
ImageNet's classes, such as "golden retriever" or "207", and the null prompt is the learned null class. Heads: GPT-B 12, GPT-L 16,
GPT-XL 20, GPT-XXL 24.

Shapes: P prompts, B samples, L caption positions (left-padded), T = H*W image tokens, V codes, C feature width, D hidden
size.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.janus.modeling_janus import JanusVQVAE

from ..errors import ModelError
from ..prompts.limits import prompts_cut, shortened
from .bounds import require_ids
from .decoding import PromptCondition
from .llama_image import LlamaImageModel
from .llamagen_files import CLASS_MODEL, MODEL_TYPE, fill, read, write
from .tokenizers.base import TokenizedImages
from .tokenizers.taming import TamingTokenizer


class GridRotary(nn.Module):
    """Rotary positions on a square grid: half of a head's pairs turn with the row, half with the column.

    Positions before the image have cosine and sine 0, as in the original: the queries and keys of the caption are
    multiplied by zero, and its values are attended to alike.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, side: int, caption: int, head_dim: int, base: float = 10000.0) -> None:
        super().__init__()
        steps = torch.arange(0, head_dim // 2, 2)[: head_dim // 4].float()
        turns = torch.outer(torch.arange(side), base ** -(steps / (head_dim // 2)))
        rows = turns[:, None].expand(-1, side, -1)
        columns = turns[None].expand(side, -1, -1)
        angles = torch.cat([rows, columns], -1).flatten(0, 1)  # (T, head_dim / 2)
        for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
            padded = torch.cat([torch.zeros(caption, head_dim // 2), table])
            self.register_buffer(name, padded.repeat(1, 2), persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L) positions to cosine and sine, (N, L, head_dim) each."""
        return self.cos[position_ids].to(x.dtype), self.sin[position_ids].to(x.dtype)


class CaptionEmbedding(nn.Module):
    """T5 features to inputs of the transformer; `uncond_embedding` stands for the features of no caption."""

    uncond_embedding: Tensor

    def __init__(self, length: int, features: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, hidden, bias=False)
        # learned with the model, never fine-tuned: the original keeps it among the buffers
        self.register_buffer("uncond_embedding", torch.zeros(length, features))

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.fc1(features.to(self.fc1.weight.dtype))
        return self.fc2(nn.functional.gelu(hidden, approximate="tanh"))


class ClassEmbedding(nn.Module):
    """Classes, and the null class behind them, to inputs of the transformer."""

    def __init__(self, classes: int, hidden: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes, hidden)

    def forward(self, classes: Tensor) -> Tensor:
        """(N, 1) to (N, 1, D)."""
        return self.embedding_table(classes)


class RecentFeatures:
    """Text features of the captions that were asked for last. Copies of a model share them: its text encoder is frozen.

    Args:
        most: captions; 1,024 of 120 tokens and width 2,048 are 1 GB in float32, of 20 tokens a sixth of that.
    """

    def __init__(self, most: int = 1024) -> None:
        self.most = most
        self.found: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, text: str, features: Callable[[], Tensor]) -> Tensor:
        """What `features()` gives for this text, called only if it is not here."""
        if text not in self.found:
            self.found[text] = features()
        self.found.move_to_end(text)
        if len(self.found) > self.most:
            self.found.popitem(last=False)
        return self.found[text]

    def __deepcopy__(self, memo: Any) -> RecentFeatures:
        return self


class LlamaGenModel(TokenizedImages, LlamaImageModel):
    """See `ImageTokenModel`. Images are square, values in [0, 1].

    Attributes:
        model_type: of its config.json.

    Args:
        config: of the transformer; its vocabulary is the codebook.
        side: H and W.
        caption: caption positions (L is at most this), features (C).
        vq: the image tokenizer.
        t5, tokenizer: text encoder (frozen) and its tokenizer; None = prompts cannot be encoded.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        config: LlamaConfig,
        side: int,
        caption: tuple[int, int],
        vq: JanusVQVAE,
        t5: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.codebook_size = (side, side), config.vocab_size
        self.caption_length = caption[0]
        self.caption_embedding: Any = self._conditioning(caption, config.hidden_size)
        self.language_model = LlamaModel(config)
        self.language_model.rotary_emb = GridRotary(side, caption[0], config.head_dim)
        self.output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.vq, self.t5, self.tokenizer = vq, t5, tokenizer
        self.image_tokenizer = TamingTokenizer(vq)
        self.recent_features = RecentFeatures()
        for frozen in (vq, t5):
            if frozen is not None:
                frozen.requires_grad_(False)

    @staticmethod
    def _conditioning(caption: tuple[int, int], hidden: int) -> nn.Module:
        return CaptionEmbedding(*caption, hidden)

    # Text

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """T5 features of prompts; a null prompt has the learned null embedding at its positive's places."""
        rows = [self._text_features(text) for text in prompts]
        if negatives is not None:
            assert len(negatives) == len(prompts), (len(negatives), len(prompts))
            null = self.caption_embedding.uncond_embedding
            rows += [
                null[-len(rows[i]) :] if text is None else self._text_features(text)
                for i, text in enumerate(negatives)
            ]
        return self.feature_condition([row.to(self.device) for row in rows], len(prompts))

    def feature_condition(self, rows: Sequence[Tensor], prompts: int) -> PromptCondition:
        """Features (L_i, C) of `prompts` positives (and as many negatives), padded on the left."""
        longest = max(map(len, rows))
        features = torch.stack([nn.functional.pad(r, (0, 0, longest - len(r), 0)) for r in rows])
        lengths = torch.tensor([len(row) for row in rows], device=features.device)
        places = torch.arange(longest, device=features.device)
        return PromptCondition(features, places >= (longest - lengths)[:, None], prompts)

    def _text_features(self, text: str) -> Tensor:
        """(L, C) on the CPU; of captions seen lately, from memory."""
        return self.recent_features.get(text, lambda: self._encoded(text))

    @torch.no_grad()
    def _encoded(self, text: str) -> Tensor:
        """(L, C) on the CPU."""
        ids = self._caption_ids(text, max_length=self.caption_length, truncation=True)
        assert self.t5 is not None
        words = self.t5.get_input_embeddings().num_embeddings
        require_ids(torch.tensor(ids), words, "t5: tokenizer.json")
        found = self.t5(input_ids=torch.tensor([ids], device=self.device)).last_hidden_state[0]
        return found.float().cpu()

    def check(self, prompts: Sequence[str]) -> list[str]:
        def tokens(text: str) -> int:
            return len(self._caption_ids(text, verbose=False))

        return prompts_cut("the model", prompts, tokens, self.caption_length)

    def _caption_ids(self, text: str, **options: Any) -> list[int]:
        """A caption's tokens. Of the original's cleaning of web captions, case and white space."""
        if self.t5 is None or self.tokenizer is None:
            raise ModelError("this LlamaGen folder has no T5 encoder (t5 in its config.json)")
        return self.tokenizer(" ".join(text.lower().split()), **options)["input_ids"]

    def embed_prompts(self, inputs: Tensor) -> Tensor:
        return self.caption_embedding(inputs)

    def prompt_positions(self, mask: Tensor) -> Tensor:
        """Captions end where the image begins, however short they are."""
        places = torch.arange(
            self.caption_length - mask.shape[1], self.caption_length, device=mask.device
        )
        return places.expand(len(mask), -1)

    # Image tokens

    def embed_image_tokens(self, tokens: Tensor, first: int | Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(tokens)

    def head(self, features: Tensor) -> Tensor:
        return self.output(features)

    # Disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json, the tensors under their published names (in safetensors), and the text encoder."""
        write(self, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LlamaGenModel:
        """Loads the folder described at the top of this file.

        Raises:
            ModelError: a file is missing or damaged, or does not fit; the message names it.
        """
        parts = read(Path(folder))
        model = cls(parts.backbone, parts.side, parts.caption, parts.vq, parts.t5, parts.tokenizer)
        fill(model, parts)
        return model.eval()


class LlamaGenClassModel(LlamaGenModel):
    """LlamaGen's class-conditional models: one position before the image."""

    model_type = CLASS_MODEL

    @staticmethod
    def _conditioning(caption: tuple[int, int], hidden: int) -> nn.Module:
        return ClassEmbedding(caption[1], hidden)

    @property
    def null_class(self) -> int:
        """Behind the others."""
        return len(self.caption_embedding.embedding_table.weight) - 1

    def condition(
        self, prompts: Sequence[str], negatives: Sequence[str | None] | None
    ) -> PromptCondition:
        """The classes of prompts, as ids (2P, 1) or (P, 1)."""
        found = [self._class_of(text) for text in prompts]
        found += [
            self.null_class if text is None else self._class_of(text) for text in negatives or ()
        ]
        ids = torch.tensor(found, device=self.device)[:, None]
        return PromptCondition(ids, torch.ones_like(ids, dtype=torch.bool), len(prompts))

    def _class_of(self, text: str) -> int:
        """Raises ModelError where a text names no class, or several."""
        word = " ".join(text.lower().split())
        numbers = [int(word)] if word.isdecimal() else class_names().get(word, [])
        found = [number for number in numbers if number < self.null_class]
        if len(found) == 1:
            return found[0]
        which = f"are several classes, {' and '.join(map(str, found))}" if found else "is no class"
        near = difflib.get_close_matches(word, class_names(), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near and not found else ""
        raise ModelError(
            f"prompt {shortened(text)!r} {which}: the name of an ImageNet class, such as 'golden retriever', or its number, 0 to "
            f"{self.null_class - 1}{hint}"
        )

    def check(self, prompts: Sequence[str]) -> list[str]:
        for text in prompts:
            self._class_of(text)
        return []


@cache
def class_names() -> dict[str, list[int]]:
    """{name: numbers of the ImageNet classes that are called so}, in lower case; most classes have several names."""
    from timm.data import ImageNetInfo

    info, found = ImageNetInfo("imagenet-1k"), dict[str, list[int]]()
    for number in range(info.num_classes()):
        for name in info.index_to_description(number).lower().split(","):
            found.setdefault(name.strip(), []).append(number)
    return found
