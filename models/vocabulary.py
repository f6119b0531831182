"""Generators whose image codes are tokens of the text vocabulary, with a token behind each row of them in some. Logits are taken over the image
codes alone: the rest of the text head is not run.

Shapes: N rows, n codes, T = H*W image tokens in raster order, V codes, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .llama_image import LlamaImageModel
from .tokenizers.base import TokenizedImages


class VocabularyImageModel(TokenizedImages, LlamaImageModel):
    """See `ImageTokenModel`. A subclass says how prompts are encoded, and calls `place_codes`.

    Attributes:
        code_ids: (V,) of the vocabulary.
        row_end: the token behind each row of codes; None = there is none.
    """

    code_ids: Tensor
    row_end: int | None

    def place_codes(self, ids: Sequence[int], row_end: int | None = None) -> None:
        """Says where the codes lie in the vocabulary.

        Args:
            ids: V of them, code by code.
            row_end: see above.
        """
        self.codebook_size, self.row_end = len(ids), row_end
        self.register_buffer("code_ids", torch.tensor(ids), persistent=False)
        in_a_row = list(ids) == list(range(ids[0], ids[0] + len(ids)))
        self._head_rows = slice(ids[0], ids[0] + len(ids)) if in_a_row else None  # a view, no copy

    @property
    def text_head(self) -> Any:
        """Hidden states to logits over the whole vocabulary, a linear layer."""
        raise NotImplementedError

    def embed_image_tokens(self, tokens: Tensor, first: int | Tensor) -> Tensor:
        ids = self.code_ids[tokens]
        if self.row_end is not None:
            assert isinstance(first, int), "how many rows end depends on it; see embed_step"
            count, width = tokens.shape[1], self.grid[1]
            raster = torch.arange(first, first + count, device=tokens.device)
            place = raster - first + raster // width - first // width
            ended = (first + count) // width - first // width
            spread = tokens.new_full((len(tokens), count + ended), self.row_end)
            spread[:, place] = ids
            ids = spread
        return self.language_model.get_input_embeddings()(ids)

    def predicting(self, first: int, count: int) -> Tensor | slice:
        """A code is predicted by the input before it: the previous code, or the row end where a row begins."""
        if self.row_end is None:
            return slice(None)
        raster, width = torch.arange(first, first + count, device=self.device), self.grid[1]
        return raster - first + (raster + 1) // width - first // width

    def embed_step(self, tokens: Tensor, first: Tensor, inputs: int) -> Tensor:
        ids = self.code_ids[tokens]
        if self.row_end is not None:
            ids = F.pad(ids, (0, inputs - 1), value=self.row_end)
        return self.language_model.get_input_embeddings()(ids)

    def inputs_of(self, codes: int) -> int:
        return codes if self.row_end is None else codes + codes // self.grid[1]

    def head(self, features: Tensor) -> Tensor:
        rows = self.code_ids if self._head_rows is None else self._head_rows
        bias = getattr(self.text_head, "bias", None)
        return F.linear(features, self.text_head.weight[rows], None if bias is None else bias[rows])
