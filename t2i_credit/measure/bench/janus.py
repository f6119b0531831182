"""Our sampling beside transformers' own, on the same weights of a Janus; the true architectures with random weights.

Both decode all image tokens of one prompt under guidance, with sampling; ours keeps both branches' log-probs and entropy,
theirs keeps nothing. Neither decodes pixels. B samples, T image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...api.parts import Parts
from ...config.schema import Config, load_config
from ...errors import UserError
from ...rollout.sampling import BENCH, decode_batch, derive_seed, sampling_noise
from ...training.processes import local_device
from .timing import Row, compared, interleaved, seconds

PROMPT = 24  # ids of a prompt, as many as a GenEval prompt has in Janus' template, about
LETTERS = 32  # of a random Janus' prompts

# layers, width, heads, inner width; the true ones of Janus-Pro
SIZES: dict[str, tuple[int, int, int, int]] = {
    "janus-small": (8, 256, 4, 704),
    "janus-pro-1b": (24, 2048, 16, 5632),
    "janus-pro-7b": (30, 4096, 32, 11008),
}
# of janus-small's image tokenizer; Janus-Pro's has JanusVQVAEConfig's own sizes
SMALL_VQ = {"base_channels": 32, "latent_channels": 32}


def random_janus(name: str, *, side: int = 24, codes: int = 16384, vocabulary: int = 102400) -> Any:
    """An architecture of `SIZES` with random weights, whose prompts become ids without a tokenizer.

    The vision encoder, which neither sampling nor the update runs, is small.

    Raises:
        UserError: there is no such architecture.
    """
    from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration

    from ...models.janus import JanusImageModel

    class RandomJanus(JanusImageModel):
        """A prompt becomes PROMPT ids that depend on its letters."""

        def _ids(self, text: str) -> list[int]:
            letters = text.encode().ljust(PROMPT)[: PROMPT - 2]
            return [self.bos, *(3 + letter % LETTERS for letter in letters), self.image_start]

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
    vq = {"num_embeddings": codes, "projection_dim": width, "image_token_embed_dim": width}
    if not name.startswith("janus-pro"):
        vq |= SMALL_VQ
    torch.manual_seed(0)
    with torch.device(local_device()):
        config = JanusConfig(text_config=text, vision_config=vision, vq_config=vq)
        janus = JanusForConditionalGeneration(config).eval()
    janus.generation_config = GenerationConfig(
        bos_token_id=0, pad_token_id=1, generation_kwargs={"boi_token_id": 2}
    )
    return RandomJanus(janus, None).eval()


def is_janus(model: Any) -> bool:
    """Whether transformers can sample this model's images too."""
    from ...models.janus import JanusImageModel

    return isinstance(model, JanusImageModel)


def bench_config(model: str, overrides: Sequence[str] = (), *, janus: bool = False) -> Config:
    """What the bench measures: a step of `shapes/grpo` with overrides on top.

    Args:
        model: its name.
        overrides: such as rollout.group_size=32.
        janus: sizes of a Janus: one prompt, 8 images, guidance 5; on a GPU in bfloat16.
    """
    given = [f"model.name={model}", "reward={geneval: {}}", "optim.warmup_steps=0"]
    if janus:
        given += ["prompts.per_step=1", "rollout.group_size=8", "rollout.cfg_scale=5"]
        # bfloat16, and large random weights: cached and teacher-forced values differ
        given += ["loss.ratio_guard=null"]
        given += ["model.dtype=bfloat16"] if torch.cuda.is_available() else []
    return load_config("shapes/grpo", [*given, *overrides])


def against_transformers(made: Parts, repeats: int, done: Callable[[], None]) -> Row:
    """Samples the images of one prompt, against its null prompt, in both ways, in turn.

    Args:
        made: its model is a JanusImageModel; of the configuration group size and guidance count.
        repeats: of each.
        done: called after each.
    """
    group_size, cfg_scale = made.config.rollout.group_size, made.config.rollout.cfg_scale
    model, prompt = made.model, made.prompts[0]
    tokens, device = model.grid[0] * model.grid[1], model.device
    condition = model.condition([prompt.text], [None])
    ids = condition.inputs[:1]

    def ours(repeat: int) -> float:
        noise = sampling_noise(derive_seed(BENCH, repeat), 0, group_size, tokens).to(device)
        settings: dict[str, Any] = {"cfg_scale": cfg_scale, "temperature": 1.0}
        settings |= {"top_k": 0, "top_p": 1.0}
        return seconds(
            device, lambda: decode_batch(model, condition, group_size, noise, **settings)
        )

    def theirs(repeat: int) -> float:
        torch.manual_seed(repeat)
        return seconds(
            device,
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

    with torch.no_grad():
        for variant in (ours, theirs):
            variant(0)  # what is set up once
        mine, rival = interleaved(ours, theirs, repeats, done)
    what = (
        f"sampling {group_size} images of {tokens} tokens of one prompt at cfg {cfg_scale:g}, both prompts' log-probs "
        "kept, against JanusForConditionalGeneration.generate"
    )
    return compared(what, "s", mine, rival)
