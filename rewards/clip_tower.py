"""CLIP-like models as two cached functions: images to embeddings, once per batch, and texts, once per prompt.

Rewards that name the same model share one tower in memory. Knows the formats of open_clip and transformers, what a
configuration's words mean to open_clip; scores nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ModelError
from ..models.files import require_whole_files
from .clip_input import ClipInput
from .loading import OFFLINE, one_line_errors, to_device

EMBEDDED = Path(__file__).parent / "embedded" / "shapes"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
HUB, LOCAL = "hf-hub:", "local-dir:"  # what open_clip's names may begin with

Dtype = Literal["float32", "bfloat16", "float16"]
_OPEN_CLIP_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class ClipTower:
    """A frozen model that maps images and texts to unit vectors of the same space.

    Attributes:
        name: for messages.
        width: E, of the embeddings.
        text_limit: tokens of a text that are read.
        text_tokens: the tokens of a whole text, its marks of beginning and end included.
        unknown_words: the words of a text that it cannot tell apart.
        logit_scale, logit_bias: a logit is logit_scale * cosine + logit_bias.
        device: where it runs.
    """

    def __init__(
        self,
        name: str,
        *,
        encode_image: Callable[[Tensor], Tensor],
        encode_text: Callable[[list[str]], Tensor],
        text_limit: int,
        text_tokens: Callable[[str], int],
        unknown_words: Callable[[str], list[str]],
        prepare: ClipInput,
        width: int,
        logit_scale: float,
        logit_bias: float = 0.0,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name, self.width, self.device, self.dtype = name, width, device, dtype
        self.logit_scale, self.logit_bias = logit_scale, logit_bias
        self.text_limit, self.text_tokens = text_limit, text_tokens
        self.unknown_words = unknown_words
        self._encode_image, self._encode_text, self._prepare = encode_image, encode_text, prepare
        self._texts: dict[str, Tensor] = {}
        self._last: tuple[ref[Tensor], int, Tensor] | None = None

    @torch.no_grad()
    def images(self, images: Tensor, batch_size: int) -> Tensor:
        """(B, 3, h, w) in [0, 1] to unit vectors (B, E) float32; the last batch's are kept while it is alive."""
        if images.is_inference():  # torch does not say whether such a tensor was changed
            return self._embed(images, batch_size)
        if self._last is not None:
            last, version, found = self._last
            if last() is images and version == images._version:
                return found
        found = self._embed(images, batch_size)
        self._last = (ref(images), images._version, found)
        return found

    def differentiable(self, images: Tensor) -> Tensor:
        """`images` with a gradient: at once, and of pixels that are not rounded."""
        return self._embed(images, len(images), rounded=False)

    def _embed(self, images: Tensor, batch_size: int, *, rounded: bool = True) -> Tensor:
        parts = [
            self._encode_image(self._prepare(part.to(self.device), rounded=rounded).to(self.dtype))
            for part in images.split(batch_size)
        ]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str], batch_size: int) -> Tensor:
        """N texts to unit vectors (N, E) float32; each text is encoded once in the tower's life."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        for start in range(0, len(new), batch_size):
            part = new[start : start + batch_size]
            found = F.normalize(self._encode_text(part).float(), dim=-1)
            self._texts.update(zip(part, found, strict=True))
        return torch.stack([self._texts[text] for text in texts])


_TOWERS: WeakValueDictionary[tuple[str, ...], ClipTower] = WeakValueDictionary()


def open_clip_tower(
    model: str, pretrained: str | None, *, device: str | None, dtype: Dtype, reward: str
) -> ClipTower:
    """The tower of an open_clip model, shared with whoever has the same one.

    Args:
        model: "embedded", an architecture ("ViT-L-14-quickgelu"), a hub id ("laion/CLIP-ViT-B-32-...", with or without
            "hf-hub:"), or a folder with open_clip_config.json and the weights.
        pretrained: with an architecture, a tag of open_clip's or a weights file; else None.
        device: such as "cuda:1"; None = a GPU if there is one.
        dtype: of the weights.
        reward: who asks, for messages.

    Raises:
        ModelError: one line that names what is missing or does not fit.
    """
    where = to_device(device, reward)
    name, weights = open_clip_source(model, pretrained, reward)
    key = ("open_clip", name, weights or "", str(where), dtype)
    tower = _TOWERS.get(key)
    if tower is None:
        tower = _load_open_clip(name, weights, where, dtype, reward)
        _TOWERS[key] = tower
    return tower


def _load_open_clip(
    name: str, weights: str | None, device: torch.device, dtype: Dtype, reward: str
) -> ClipTower:
    import open_clip

    # OpenAI's weights want the activation that the plain architecture's name does not say
    tag = open_clip.get_pretrained_cfg(name, weights) if weights else {}
    local = name.startswith(LOCAL) or (weights is not None and Path(weights).is_file())
    what = name if weights is None else f"{name} with {weights}"
    with one_line_errors(reward, what, "" if local else OFFLINE):
        require_whole_files(weights or name.removeprefix(LOCAL))
        net = open_clip.create_model(
            name,
            pretrained=weights,
            precision=_OPEN_CLIP_PRECISION[dtype],
            device=device,
            force_quick_gelu=bool(tag.get("quick_gelu")),
            require_pretrained=True,
        )
        tokenizer = open_clip.get_tokenizer(name)
        width = int(open_clip.get_model_config(name)["embed_dim"])
    net.requires_grad_(False).eval()
    bias = getattr(net, "logit_bias", None)
    return ClipTower(
        weights or name,
        encode_image=net.encode_image,
        encode_text=lambda texts: net.encode_text(tokenizer(texts).to(device)),
        text_limit=tokenizer.context_length,
        text_tokens=lambda text: _open_clip_tokens(tokenizer, text),
        unknown_words=lambda text: _unknown_words(getattr(tokenizer, "tokenizer", None), text),
        prepare=ClipInput.of_open_clip(open_clip.get_model_preprocess_cfg(net)),
        width=width,
        logit_scale=float(net.logit_scale.exp()),
        logit_bias=0.0 if bias is None else float(bias),
        device=device,
        dtype=getattr(torch, dtype),
    )


def transformers_tower(
    model: str, processor: str, *, device: str | None, dtype: Dtype, reward: str
) -> ClipTower:
    """The tower of a transformers `CLIPModel`, shared with whoever has the same one.

    Args:
        model: folder or hub id of the weights.
        processor: folder or hub id of the tokenizer and the preprocessing.
        device, dtype, reward: as in `open_clip_tower`.

    Raises:
        ModelError: one line that names what is missing or does not fit.
    """
    where = to_device(device, reward)
    key = ("transformers", model, processor, str(where), dtype)
    tower = _TOWERS.get(key)
    if tower is None:
        tower = _load_transformers(model, processor, where, dtype, reward)
        _TOWERS[key] = tower
    return tower


def _load_transformers(
    model: str, processor: str, device: torch.device, dtype: Dtype, reward: str
) -> ClipTower:
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    with one_line_errors(reward, processor, "" if Path(processor).is_dir() else OFFLINE):
        tokenizer = AutoTokenizer.from_pretrained(processor, trust_remote_code=False)
        pictures = AutoImageProcessor.from_pretrained(processor, trust_remote_code=False)
    with one_line_errors(reward, model, "" if Path(model).is_dir() else OFFLINE):
        require_whole_files(model)
        net, report = CLIPModel.from_pretrained(
            model,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            trust_remote_code=False,
        )
    if report["missing_keys"]:
        raise ModelError(f"{reward}: {model}: the tensor {min(report['missing_keys'])} is missing")
    net.requires_grad_(False).eval().to(device)
    edge = pictures.size.get("shortest_edge")
    crop = (pictures.crop_size["height"], pictures.crop_size["width"])
    if (edge, edge) != crop:
        raise ModelError(
            f"{reward}: {processor}: size {pictures.size} with crop {crop} is not supported"
        )

    limit = net.config.text_config.max_position_embeddings

    def encode_text(texts: list[str]) -> Tensor:
        found = tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(device)
        return net.get_text_features(**found).pooler_output

    return ClipTower(
        model,
        encode_image=lambda pixels: net.get_image_features(pixels).pooler_output,
        encode_text=encode_text,
        text_limit=limit,
        text_tokens=lambda text: len(tokenizer(text, verbose=False).input_ids),
        unknown_words=lambda text: [],
        prepare=ClipInput(crop, tuple(pictures.image_mean), tuple(pictures.image_std)),
        width=net.config.projection_dim,
        logit_scale=float(net.logit_scale.exp()),
        device=device,
        dtype=getattr(torch, dtype),
    )


def _open_clip_tokens(tokenizer: Any, text: str) -> int:
    """How many tokens a text has before open_clip cuts it."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:  # OpenAI's byte pairs, between one mark of beginning and one of end
        return len(tokenizer.encode(text)) + 2
    return len(inner(tokenizer.clean_fn(text), verbose=False).input_ids)


def _unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The words of a text that a word-level tokenizer cannot tell apart; others know every text."""

    def has_unknown(part: str) -> bool:
        return tokenizer.unk_token_id in tokenizer(part, add_special_tokens=False).input_ids

    if getattr(tokenizer, "unk_token_id", None) is None or not has_unknown(text):
        return []
    return [word for word in text.split() if has_unknown(word)]


def open_clip_source(model: str, pretrained: str | None, reward: str) -> tuple[str, str | None]:
    """What open_clip calls the model, and the tag or file of its weights."""
    import open_clip

    if model in open_clip.list_models():
        return model, _weights(model, pretrained, reward)
    if pretrained is not None:
        raise ModelError(
            f"{reward}: pretrained: {pretrained!r} goes with an open_clip architecture, and model {model!r} is none"
            + _nearest(model, open_clip.list_models())
        )
    if model == "embedded":
        folder, lack = EMBEDDED / "clip", "make it with t2i-credit pretrain shapes"
    elif model.startswith(HUB):
        return model, None
    elif model.startswith(LOCAL) or Path(model).is_dir():
        folder, lack = Path(model.removeprefix(LOCAL)), "such a folder has the config too"
    elif model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return HUB + model, None
    else:
        raise ModelError(
            f"{reward}: model: {model!r} is not known{_nearest(model, open_clip.list_models())} (allowed: embedded, "
            "an open_clip architecture, a hub id such as laion/CLIP-ViT-B-32-laion2B-s34B-b79K, a folder)"
        )
    for file in (CONFIG, WEIGHTS):
        others = file == WEIGHTS and any(folder.glob("*.bin"))  # as older hub folders have them
        if not (folder / file).is_file() and not others:
            raise ModelError(f"{reward}: {folder / file}: missing; {lack}")
    return f"{LOCAL}{folder.resolve()}", None


def _weights(model: str, pretrained: str | None, reward: str) -> str:
    """The tag or the file of an architecture's weights."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    listed = f"a tag ({', '.join(tags)}) or a weights file" if tags else "a weights file"
    if pretrained is None:
        raise ModelError(f"{reward}: pretrained: missing; model {model} needs {listed}")
    if pretrained in tags:
        return pretrained
    if not Path(pretrained).is_file():
        raise ModelError(
            f"{reward}: pretrained: {pretrained!r} is no file; model {model} needs {listed}"
        )
    return str(Path(pretrained).resolve())


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
