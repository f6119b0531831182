"""What a credit would push in freshly sampled images: the embedded judge's rewards, advantages, and the credit's own code, as
a recorded step has them. Samples nothing, loads nothing, draws nothing.

Shapes: G samples of a prompt, T = H*W image tokens in raster order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..heatmap.sample import common_scale
from ..prompts.records import WORLDS
from ..run_folder.layout import encode_mask
from ..run_folder.reader import StepRecord
from .payload import group_payload, scale_payload, view_of
from .recipes import credits

if TYPE_CHECKING:
    from ..config.schema import Config
    from ..interfaces import Prompt, Rollout
    from ..measure.truth.assigners import Assigner

USUAL = "gcpo"  # the credit that is shown unless another is chosen
LOOKS = {"map": "objects"}  # where the judge looked, for the credit that reads it
NO_REWARD = (
    "no reward: the embedded judge scores only models of its own world, on that world's sentences, word for word, such as "
    "“a photo of a red circle”, “a photo of three squares” or “a photo of a circle left of a square”"
)


@dataclass(frozen=True)
class FreshStep(StepRecord):
    """A step that lies in memory.

    Attributes:
        pictures: of its samples.
        says: a line about its credit.
        scores: whether there are rewards.
        title, seed: what tells it from others, and what it was sampled with.
    """

    pictures: tuple[Image.Image, ...] = ()
    says: str = ""
    scores: bool = False
    title: str = ""
    seed: int = 0

    def image(self, place: int) -> Image.Image:
        """The picture of the sample at `place`."""
        return self.pictures[place]


@dataclass(frozen=True)
class Method:
    """A credit, as training would assign it in samples drawn so.

    Attributes:
        name: of `recipes.credits`.
        config: with this credit, and how is sampled.
    """

    name: str
    config: Config

    @classmethod
    def of(cls, name: object, cfg_scale: float, temperature: float, count: int) -> Method:
        """The method of that name.

        Raises:
            UserError: there is none, or it needs more images.
        """
        from ..config.schema import parse_config

        if not isinstance(name, str) or name not in credits():
            raise UserError(f"credit: {name!r:.80} is none of {', '.join(credits())}")
        rollout = {"group_size": max(2, count), "cfg_scale": cfg_scale, "temperature": temperature}
        tree = {"credit": credits()[name], "rollout": rollout, "reward": {"geneval": LOOKS}}
        found = cls(name, parse_config(tree, where="playground"))
        if count < 2 and found.assigner.needs & {"group_similarity", "opposed_similarity"}:
            raise UserError(f"{name}: compares the images of a prompt; sample two or more")
        return found

    @property
    def assigner(self) -> Assigner:
        """What computes it."""
        from ..measure.truth.assigners import Assigner

        credit = self.config.credit
        return Assigner(self.name, credit.entry, credit.params)

    @property
    def keeps(self) -> frozenset[str]:
        """What the rollout must keep for it."""
        from ..measure.truth.assigners import rollout_needs

        return rollout_needs([self.assigner])

    @property
    def compares(self) -> bool:
        """Whether it compares with the model that the run began with."""
        return self.assigner.entry.needs_reference

    @property
    def looks(self) -> bool:
        """Whether it reads where the judge looked."""
        return "reward_map" in self.assigner.needs

    def require_reward(self, prompt: Prompt, judged: bool) -> bool:
        """Whether the embedded judge can score images of a prompt, by a model of its world or another (`judged`).

        Raises:
            UserError: it cannot, and the credit needs rewards.
        """
        scores = judged and prompt.spec is not None
        if not scores and "opposed_similarity" in self.assigner.needs:
            raise UserError(f"{self.name}: compares images that fared otherwise; {NO_REWARD}")
        if not scores and self.looks:
            raise UserError(f"{self.name}: reads where the judge looked; {NO_REWARD}")
        return scores


def known_prompt(text: str, negative: str | None) -> tuple[Prompt, str | None]:
    """A prompt, with its record where it is one of an embedded world's, and the name of that world."""
    from ..interfaces import Prompt
    from ..worlds.world import known_prompt as found_in

    found = found_in(text.strip())
    if found is None:
        return Prompt(text, negative), None
    world, prompt = found
    return Prompt(text, negative, spec=prompt.spec), world.name


def prepare() -> None:
    """What a first sample would wait for, but for its model: libraries, the world's prompts, the judge."""
    from ..rewards import REWARDS

    known_prompt("", None)
    for world in WORLDS:
        REWARDS["geneval"](detector=world)
    _ = Method.of(USUAL, 2.0, 1.0, 2).keeps


def fresh_step(
    model: Any, reference: Any, rollout: Rollout, method: Method, *, scores: bool, number: int
) -> FreshStep:
    """One group of fresh samples with its credit.

    Args:
        model: drew them.
        reference: what the credit compares it with; the model itself where it has left nothing.
        rollout: G samples of one prompt, with what the method keeps.
        method: the credit.
        scores: whether the embedded judge rewards them.
        number: which group of what is shown.
    """
    import torch

    from ..rollout.images import to_uint8
    from ..training.policy import Policy

    unknown = torch.full((len(rollout),), torch.nan, device=rollout.tokens.device)
    rewards = _rewards(rollout) if scores else unknown
    advantages = torch.zeros_like(unknown)
    if scores and len(rollout) > 1:
        advantages = method.config.advantage.function(rewards, len(rollout))
    if method.looks:
        rollout = replace(rollout, reward_map=_looked(model, rollout, rewards))
    policy = Policy.of(method.config, model, reference)
    credit, pushed = method.assigner.assigned(rollout, advantages, policy)
    arrays = {
        "tokens": rollout.tokens,
        "logprobs": rollout.logprobs,
        "negative_logprobs": rollout.negative_logprobs,
        "guided_logprobs": rollout.guided_logprobs,
        "credit": credit,
        "token_advantages": pushed if scores else unknown[:, None].expand_as(pushed),
        "entropy": rollout.entropy,
        "reward_map": rollout.reward_map,
    }
    kept = {name: _array(values) for name, values in arrays.items() if values is not None}
    found = _objects(rollout) if scores else [None] * len(rollout)
    samples = [
        {
            "group": number,
            "prompt": rollout.prompts[row].text,
            "negative": rollout.prompts[row].negative,
            "reward": float(rewards[row]),
            "advantage": float(advantages[row]) if scores else float("nan"),
            "gold": False,
            "objects": found[row],
        }
        for row in range(len(rollout))
    ]
    return FreshStep(
        folder=Path(),
        step=0,
        grid=model.grid,
        group_size=len(rollout),
        codebook_size=model.codebook_size,
        samples=samples,
        arrays=kept,
        pictures=tuple(map(Image.fromarray, to_uint8(rollout.images))),
        scores=scores,
        says=_says(method, kept, scores=scores, alone=reference is model),
    )


def shown(steps: Sequence[FreshStep], titles: Sequence[str]) -> dict[str, Any]:
    """What the browser needs to show groups on one scale, each under its title."""
    views = [view_of(step, place) for step in steps for place in range(step.group_size)]
    scale = scale_payload(common_scale(views))
    groups = []
    for number, (step, title) in enumerate(zip(steps, titles, strict=True)):
        group = group_payload(step, range(step.group_size))
        group |= {"number": number, "title": title, "says": step.says, "scale": scale}
        if not step.scores:
            for sample in group["samples"]:
                del sample["reward"], sample["advantage"]
        groups.append({**group, "large": True})
    pushed = scale["advantage"] > 0
    return {
        "groups": groups,
        "map": "token_advantages" if pushed else "credit",
        "key": f"{id(steps)}",
        "inspect": True,
    }


def _rewards(rollout: Rollout) -> Any:
    """(G,) verdicts of the embedded judge."""
    return _judge_of(rollout)(rollout.images, rollout.prompts).to(rollout.tokens.device)


def _looked(model: Any, rollout: Rollout, rewards: Any) -> Any:
    """(G, T) which objects the embedded judge found right (+) or wrong (-), for its rewards (G,)."""
    from ..config.sections import RewardConfig
    from ..rewards.maps import PartMap, RewardMaps

    part = PartMap("geneval", 1.0, _judge_of(rollout), RewardConfig.model_validate(LOOKS))
    return RewardMaps([part], {}, None)(model, rollout, {"geneval": rewards}, seed=0)


def _objects(rollout: Rollout) -> list[Any]:
    """What the judge sees, as the run folder keeps it."""
    from ..api.objects import describe_world

    return [
        [{**one, "mask": encode_mask(one["mask"])} for one in objects]
        for objects in describe_world(_world_of(rollout))(rollout)
    ]


def _judge_of(rollout: Rollout) -> Any:
    """The embedded judge of the prompts."""
    from ..rewards import REWARDS

    return REWARDS["geneval"](detector=_world_of(rollout))


def _world_of(rollout: Rollout) -> str:
    """The world of the prompts, whose detector judges."""
    return known_prompt(rollout.prompts[0].text, None)[1] or WORLDS[0]


def _says(
    method: Method, arrays: Mapping[str, np.ndarray[Any, Any]], *, scores: bool, alone: bool
) -> str:
    """A line about the credit."""
    said = [f"credit {method.name}"]
    if "hellinger" in method.assigner.needs and alone:
        said.append("the model is its own beginning, which it has not left, so the credit is even")
    if not scores:
        said.append(NO_REWARD)
    elif not np.abs(arrays["token_advantages"]).any():
        said.append("all rewards alike, so nothing is pushed: the map is the credit alone")
    return " · ".join(said)


def _array(values: Any) -> np.ndarray[Any, Any]:
    array = values.detach().cpu()
    return (
        array.numpy().astype(np.int32) if not array.is_floating_point() else array.float().numpy()
    )
