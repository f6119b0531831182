"""Our sampling beside transformers' own, on the same weights of a Janus: seconds per batch. Judges nothing.

Both decode all image tokens of one prompt under guidance, with sampling; ours keeps both branches' log-probs and entropy,
theirs keeps nothing. Neither decodes pixels. B samples, T image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .bench import BENCH, _one_thread, _seconds
from .bench_statistics import Row, compared, interleaved
from .errors import UserError
from .processes import local_device
from .rollout import _sample, derive_seed, sampling_noise

PROMPT = 24  # ids of the prompt, as many as a GenEval prompt has in Janus' template, about

# layers, width, heads, inner width; the true ones of Janus-Pro
SIZES: dict[str, tuple[int, int, int, int]] = {
    "janus-small": (8, 256, 4, 704),
    "janus-pro-1b": (24, 2048, 16, 5632),
    "janus-pro-7b": (30, 4096, 32, 11008),
}


def random_janus(name: str, *, side: int = 24, codes: int = 16384, vocabulary: int = 102400) -> Any:
    """An architecture of `SIZES` with random weights and no tokenizer: bfloat16 on a GPU, else float32.

    The vision encoder and the pixels' side of the tokenizer, which sampling never runs, are small.

    Raises:
        UserError: there is no such architecture.
    """
    from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration

    from .models.janus import JanusImageModel

    if name not in SIZES:
        raise UserError(f"--model: {name!r} has no random weights; known: {', '.join(SIZES)}")
    layers, width, heads, inner = SIZES[name]
    text = {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": 16384,
    }
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": width,
        "image_size": 16 * side,
        "num_image_tokens": side * side,
    }
    vq = {
        "num_embeddings": codes,
        "base_channels": 32,
        "latent_channels": 32,
        "projection_dim": width,
        "image_token_embed_dim": width,
    }
    device = local_device()
    torch.manual_seed(0)
    with torch.device(device):
        config = JanusConfig(text_config=text, vision_config=vision, vq_config=vq)
        janus = JanusForConditionalGeneration(config).eval()
    if device != "cpu":
        janus.to(torch.bfloat16)
    janus.generation_config = GenerationConfig(
        bos_token_id=0, pad_token_id=1, generation_kwargs={"boi_token_id": 2}
    )
    return JanusImageModel(janus, None).eval()


def model_for(name: str, *, random_init: bool) -> Any:
    """The Janus to measure.

    Raises:
        UserError: it is no Janus.
        ModelError: there is none, or it is damaged.
    """
    from . import api
    from .models.janus import JanusImageModel

    model = random_janus(name) if random_init else api.load_model(name)
    if not isinstance(model, JanusImageModel):
        raise UserError(f"--model: {name!r} is a {type(model).__name__}; this bench takes a Janus")
    return model


def rollout(
    model: Any,
    *,
    name: str,
    group_size: int = 8,
    cfg_scale: float = 5.0,
    repeats: int = 15,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Measures both in turn, on one CPU thread.

    Args:
        model: a JanusImageModel.
        name: of the model, for the report.
        group_size: images of the one prompt.
        cfg_scale: above 1.
        repeats: of each.
        progress: called with (repeats done, of).

    Returns:
        {"settings", "rows"} as the other benches have them.
    """
    device, tokens = model.device, model.grid[0] * model.grid[1]
    ids = torch.arange(PROMPT, device=device)[None] + 3
    ids[0, 0], ids[0, -1] = model.bos, model.image_start
    finished = 0

    def done() -> None:
        nonlocal finished
        finished += 1
        progress(finished, repeats)

    with _one_thread(), torch.no_grad():
        ours, theirs = (
            _ours(model, ids, group_size, cfg_scale),
            _theirs(model, ids, group_size, cfg_scale),
        )
        for variant in (ours, theirs):
            variant(0)  # what is set up once
        mine, rival = interleaved(ours, theirs, repeats, done)
    batch = group_size * tokens
    what = (
        f"{name}: sampling {group_size} images of {tokens} tokens at cfg {cfg_scale:g}, both prompts' log-probs kept, "
        "against JanusForConditionalGeneration.generate"
    )
    row: Row = compared(what, "s", mine, rival)
    speed: Mapping[str, float] = {
        "ours_tokens_per_second": batch / row["ours"],
        "rival_tokens_per_second": batch / row["rival"],
    }
    settings = {
        "model": name,
        "device": str(device),
        "group_size": group_size,
        "cfg_scale": cfg_scale,
    }
    settings |= {"dtype": str(next(model.language_model.parameters()).dtype), **speed}
    return {"settings": settings, "rows": [row]}


def _ours(model: Any, ids: Any, group_size: int, cfg_scale: float) -> Callable[[int], float]:
    from .models.decoding import PromptCondition

    null = torch.full_like(ids, model.pad)
    null[0, 0], null[0, -1] = model.bos, model.image_start
    rows = torch.cat([ids, null])
    condition = PromptCondition(rows, torch.ones_like(rows, dtype=torch.bool), 1)
    tokens = model.grid[0] * model.grid[1]

    def sampled(repeat: int) -> float:
        noise = sampling_noise(derive_seed(BENCH, repeat), 0, group_size, tokens).to(model.device)
        return _seconds(
            model.device,
            lambda: _sample(
                model,
                condition,
                group_size,
                noise,
                cfg_scale=cfg_scale,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                full_kl=False,
                guided_entropy=False,
            ),
        )

    return sampled


def _theirs(model: Any, ids: Any, group_size: int, cfg_scale: float) -> Callable[[int], float]:
    def generated(repeat: int) -> float:
        torch.manual_seed(repeat)
        return _seconds(
            model.device,
            lambda: model.janus.generate(
                inputs=ids,
                attention_mask=torch.ones_like(ids),
                generation_mode="image",
                do_sample=True,
                top_k=0,
                guidance_scale=cfg_scale,
                num_return_sequences=group_size,
            ),
        )

    return generated
