"""The file of a fitted critic: weights, its latest rollouts, and what it was fitted to. Fits nothing.

One safetensors file; what is no tensor stands in its metadata as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ...config.schema import Config
from ...errors import ConfigError, one_line
from ...files import MOST_GIVEN
from ...models.files import require_finite
from ...run_folder.atomic import make_folder, write_atomic
from .critic import Critic

MARK, FORMAT = "t2i_credit_critic", 1


@dataclass(frozen=True)
class CriticFile:
    """What stands in such a file.

    Attributes:
        path: where it lies.
        about: model (the fingerprint of its weights), reward, kind, width, rank, least, most, images, and what was measured.
        state: as `Critic.load` takes it.
    """

    path: Path
    about: dict[str, Any]
    state: dict[str, Any]

    def require_run(self, config: Config) -> None:
        """Raises ConfigError where a run has another reward or another critic."""
        for name, value in subject_of(config).items():
            if (fitted := self.about.get(name)) != value:
                what = f"the reward {fitted}" if name == "reward" else f"critic.{name} {fitted}"
                raise ConfigError(
                    f"critic.file: {self.path}: was fitted to {what}; this run has {value}"
                )

    def require_model(self, fingerprint: str) -> None:
        """Raises ConfigError where a run begins with other weights."""
        if self.about.get("model") != fingerprint:
            raise ConfigError(
                f"critic.file: {self.path}: was fitted to the weights of another model; fit one to this model by "
                "t2i-credit fit-critic"
            )


def subject_of(config: Config) -> dict[str, Any]:
    """What a critic's file and a run must agree on, but for the model."""
    trained = {
        name: {"weight": part.weight, **part.params}
        for name, part in config.reward.items()
        if not part.heldout
    }
    critic = config.critic
    found = {name: getattr(critic, name) for name in ("kind", "width", "least", "most")}
    if critic.kind == "lora":
        found["rank"] = critic.rank
    return {"reward": json.dumps(trained, sort_keys=True), **found}


def write_critic(
    path: Path, critic: Critic, config: Config, *, model: str, measured: Mapping[str, Any]
) -> None:
    """Writes a fitted critic, whole or not at all.

    Args:
        path: the file.
        critic: with the rollouts that are to be kept.
        config: what it was fitted with.
        model: the fingerprint of the generator's weights.
        measured: what was found on held-out images.
    """
    tensors: dict[str, Tensor] = {
        f"network.{name}": tensor for name, tensor in critic.weights()["network"].items()
    }
    texts = []
    for number, batch in enumerate(critic.replay.batches):
        tensors[f"tokens.{number}"] = batch.tokens
        tensors[f"rewards.{number}"] = batch.rewards
        texts.append(list(batch.texts))
    about = {"format": FORMAT, "model": model, **subject_of(config), **measured}
    about |= {"texts": texts, "trust": critic.trust.state()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    make_folder(path.parent)
    write_atomic(path, save(plain, {MARK: json.dumps(about)}))


def read_critic(path: Path) -> CriticFile:
    """Reads what `write_critic` wrote.

    Raises:
        ConfigError: there is none, it is damaged, of a newer format, or something else; in one line.
    """
    where = f"critic.file: {path}"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file; t2i-credit fit-critic writes one")
    try:
        with safe_open(path, framework="pt") as file:
            marked = (file.metadata() or {}).get(MARK)
            if marked is None or len(marked) > MOST_GIVEN:
                raise ConfigError(f"{where}: is no critic that t2i-credit fit-critic wrote")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(marked)
        if about["format"] != FORMAT:
            raise ConfigError(
                f"{where}: format {about['format']!r}; this t2i-credit reads {FORMAT}: update it"
            )
        replay = [
            {"texts": texts, "tokens": tensors[f"tokens.{i}"], "rewards": tensors[f"rewards.{i}"]}
            for i, texts in enumerate(about.pop("texts"))
        ]
        network = {
            name.removeprefix("network."): tensor
            for name, tensor in tensors.items()
            if name.startswith("network.")
        }
        state = {"network": network, "replay": replay, "trust": about.pop("trust")}
        _require_whole(state)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: damaged: {one_line(error):.200}") from error
    require_finite(network.items(), str(path))
    return CriticFile(path, about, state)


def critic_file_of(config: Config) -> CriticFile | None:
    """What a critic begins with, if the configuration names a file.

    Raises:
        ConfigError: see `read_critic`; or it was fitted to another reward or with another critic.
    """
    if config.critic.file is None:
        return None
    found = read_critic(Path(config.critic.file))
    found.require_run(config)
    return found


def _require_whole(state: Mapping[str, Any]) -> None:
    """Raises ValueError where parts of it do not fit each other."""
    for one in state["replay"]:
        groups = len(one["texts"])
        fits = one["tokens"].dim() == 3 and one["tokens"].dtype == torch.int32
        fits = fits and one["tokens"].shape[:2] == one["rewards"].shape == (
            groups,
            *one["rewards"].shape[1:],
        )
        if (
            not fits
            or not groups
            or not bool(((one["rewards"] >= 0) & (one["rewards"] <= 1)).all())
        ):
            raise ValueError("its rollouts do not fit each other")
    if not isinstance(state["trust"], list):
        raise ValueError("its trust is no list")
    for one in state["trust"]:
        for name in ("error", "plain", "crossed", "moved"):
            if not all(isinstance(number, float) for number in one[name]):
                raise ValueError(f"its {name} holds something else than numbers")
