"""What the configuration refuses as a combination: values that each are allowed, but make no sense together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import Config

# Credit that `refresh` cannot change, and why.
NEVER_REFRESHED = {
    "uniform": "it never changes",
    "distribution_guided": "it is taken anew at every update as it is",
    "critical_tokens": "its tokens are those of the rollout, its weights are new at every update as it is",
    "similarity": "it depends on the sampled tokens alone",
}

# Credit whose weights of the KL term are not made of the credit itself.
OWN_KL_WEIGHTS = ("critical_tokens", "similarity")


def disagreements(config: Config) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) for every pair of values that each are allowed, but not together."""
    yield from _of_the_loss(config)
    yield from _of_the_credit(config)
    yield from _of_gold(config)
    yield from _of_the_reward(config)
    if config.train.micro_batch_size and config.train.micro_batch_tokens:
        yield "train.micro_batch_tokens", "is refused with train.micro_batch_size: one of the two"


def _of_the_loss(config: Config) -> Iterator[tuple[str, str]]:
    rollout, credit, loss = config.rollout, config.credit, config.loss
    if loss.ratio == "sequence" and credit.name != "uniform":
        yield (
            "loss.ratio",
            f"'sequence' is refused with credit.name '{credit.name}': one ratio per image gives "
            "all its tokens the same gradient, and the credit cancels; use sequence_token",
        )
    if (
        (rollout.top_k > 0 or rollout.top_p < 1)
        and loss.policy == "guided"
        and loss.updates_per_rollout > 1
    ):
        key = "rollout.top_k" if rollout.top_k > 0 else "rollout.top_p"
        yield (
            key,
            "truncated sampling is refused with loss.policy 'guided' and loss.updates_per_rollout "
            "above 1: the ratio would not be that of the sampled policy; use top_k 0 and top_p 1, "
            "or one update",
        )
    if loss.kl_weight == "credit" and loss.kl_coef == 0:
        yield (
            "loss.kl_weight",
            "'credit' is refused with loss.kl_coef 0: there is no KL term to weigh",
        )


def _of_the_credit(config: Config) -> Iterator[tuple[str, str]]:
    credit, loss = config.credit, config.loss
    if credit.refresh and credit.name in NEVER_REFRESHED:
        yield (
            "credit.refresh",
            f"true is refused with credit.name '{credit.name}': {NEVER_REFRESHED[credit.name]}",
        )
    if loss.kl_weight == "credit" and credit.name == "uniform":
        yield (
            "loss.kl_weight",
            "'credit' is refused with credit.name 'uniform': it would halve the KL term everywhere; "
            "use half the kl_coef",
        )
    elif (
        loss.kl_weight == "credit"
        and credit.params.get("strength") == 0
        and credit.name not in OWN_KL_WEIGHTS
    ):
        yield (
            "loss.kl_weight",
            "'credit' is refused with credit.strength 0: the credit is uniform, and it would halve the "
            "KL term everywhere; use half the kl_coef",
        )
    if loss.kl_coef > 0 and loss.kl_weight == "none" and credit.name == "critical_tokens":
        yield (
            "loss.kl_weight",
            "'none' is refused with credit.name 'critical_tokens' and a kl_coef: the method has its "
            "KL term on the critical tokens only; use kl_weight credit, or kl_coef 0",
        )


def _of_gold(config: Config) -> Iterator[tuple[str, str]]:
    rollout, loss = config.rollout, config.loss
    if not rollout.gold:
        return
    if rollout.gold_reward <= rollout.fail_below:
        yield (
            "rollout.gold_reward",
            f"value {rollout.gold_reward} is not allowed; above rollout.fail_below "
            f"({rollout.fail_below}), or a golden reference would count as a failure",
        )
    if loss.ratio == "token":
        yield (
            "rollout.gold",
            "true is refused with loss.ratio 'token': a golden reference was never sampled token by "
            "token; use sequence, or sequence_token with token credit",
        )
    if loss.kl_coef > 0:
        yield (
            "rollout.gold",
            f"true is refused with loss.kl_coef {loss.kl_coef}: the KL term pulls the policy away "
            "from the golden reference; use kl_coef 0",
        )
    if config.prompts.source == "shapes" and config.prompts.split == "heldout":
        yield (
            "rollout.gold",
            "true is refused with prompts.split 'heldout': held-out compositions are never drawn, so "
            "none has a golden reference; use split train",
        )
    for name, part in config.reward.items():
        if part.normalize != "none":
            yield (
                "rollout.gold",
                f"true is refused with reward.{name}.normalize '{part.normalize}': a golden reference "
                "has a total reward and no parts to normalise; use normalize none",
            )


def _of_the_reward(config: Config) -> Iterator[tuple[str, str]]:
    if all(part.heldout for part in config.reward.values()):
        yield "reward", "holds only held-out parts; at least one must be trained on"
    for name, part in config.reward.items():
        for key, default in (("weight", 1.0), ("normalize", "none")):
            if part.heldout and getattr(part, key) != default:
                yield (
                    f"reward.{name}.{key}",
                    f"value {getattr(part, key)!r} is refused with heldout: such a part is logged as "
                    "it is and never trained on",
                )
