"""Steps of fixed shapes: that they draw what ordinary steps draw, and that they are fit to be recorded. A GPU records them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from tiny_checkpoints import write_tiny_emu3, write_tiny_janus, write_tiny_llamagen
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import WideConfig, tiny_model

from t2i_credit.app.studio import Watched
from t2i_credit.config.sections import TuneConfig
from t2i_credit.errors import T2ICreditWarning
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.models import fixed_decoding, load_pretrained
from t2i_credit.models.embedded_model import EmbeddedModel
from t2i_credit.models.llama_image import LlamaImageModel
from t2i_credit.rollout import captured
from t2i_credit.rollout import sampling as rollout
from t2i_credit.rollout.captured import eager_reason
from t2i_credit.rollout.sampling import decode_batch, sample_rollout, sampling_noise
from t2i_credit.training.tune import cast_parameters, choose_trained

WRITERS = {"janus": write_tiny_janus, "emu3": write_tiny_emu3, "llamagen": write_tiny_llamagen}
TEXTS = ["a red circle", "a photo of two blue square left of a red circle", "a blue square"]
PADDED = [
    Prompt(text, negative)
    for text, negative in zip(TEXTS, [None, "a blue circle", ""], strict=True)
]
EVEN = [Prompt(TEXTS[0], None)] * 2  # no row is padded
SETTINGS: dict[str, Any] = {"group_size": 2, "cfg_scale": 3.0, "temperature": 0.8, "seed": 5}
OPTIONAL = {"full_kl": True, "guided_entropy": True, "code_spread": True, "code_shift": True}
EVERYTHING: dict[str, Any] = {**OPTIONAL, "alternatives": 3}


@pytest.fixture(scope="module", params=["embedded", *WRITERS])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "embedded":
        return tiny_model(WideConfig)
    return load_pretrained(str(WRITERS[request.param](tmp_path_factory.mktemp("models") / "it")))


class Unrecorded:
    """Runs every step as it is, where `Replayed` would record it."""

    def __init__(self, step: Callable[[Any], None], device: torch.device) -> None:
        self.step, self.failed = step, None

    def __call__(self, kind: Any) -> None:
        self.step(kind)


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Steps of fixed shapes are taken on this machine, in views that grow twice or more."""
    monkeypatch.setattr(rollout, "eager_reason", lambda model: None)
    monkeypatch.setattr(captured, "Replayed", Unrecorded)
    monkeypatch.setattr(fixed_decoding, "PIECE", 8)
    return monkeypatch


def assert_alike(fixed: Rollout, plain: Rollout, atol: float = 1e-5) -> None:
    assert torch.equal(fixed.tokens, plain.tokens)
    for field in fields(Rollout):
        ours, theirs = getattr(fixed, field.name), getattr(plain, field.name)
        assert (ours is None) == (theirs is None), field.name
        if isinstance(theirs, Tensor):
            torch.testing.assert_close(ours, theirs, atol=atol, rtol=0, msg=field.name)


# The same tokens and log-probs ------------------------------------------------------------------------------------


# In float64, where rounding is far below what is kept, as float32: the sizes of the logits, which guidance multiplies,
# would else decide how far two orders of the same sums may lie apart.
@pytest.mark.parametrize(
    ("prompts", "more"),
    [
        (PADDED, EVERYTHING),
        (EVEN, {"top_k": 5, "top_p": 0.7}),
        (PADDED, {"cfg_scale": 1.0, "negative_branch": False}),
        (PADDED, {"batch_size": 3}),  # groups of two, one by one
    ],
)
def test_steps_of_fixed_shapes_draw_and_keep_what_ordinary_steps_do(
    model: Any, prompts: list[Prompt], more: dict[str, Any], on_a_cpu: pytest.MonkeyPatch
) -> None:
    precise = copy.deepcopy(model).double()
    fixed = sample_rollout(precise, prompts, **{**SETTINGS, **more})
    on_a_cpu.undo()
    plain = sample_rollout(precise, prompts, **{**SETTINGS, **more})
    assert_alike(fixed, plain, atol=2e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_steps_of_fixed_shapes_take_the_number_format_of_the_cache(
    autocast: bool, on_a_cpu: pytest.MonkeyPatch
) -> None:
    model = tiny_model(WideConfig)
    if not autocast:
        model.language_model.to(torch.bfloat16)
        model.image_embedding.to(torch.bfloat16)
        model.image_head.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        fixed = sample_rollout(model, PADDED, **SETTINGS)
        on_a_cpu.undo()
        plain = sample_rollout(model, PADDED, **SETTINGS)
    # later ones may hang on another draw; a bfloat16 has three digits
    assert torch.equal(fixed.tokens[:, 0], plain.tokens[:, 0])
    torch.testing.assert_close(fixed.entropy[:, :2], plain.entropy[:, :2], atol=0.05, rtol=0)


def test_the_view_of_the_cache_holds_every_input_and_grows_with_them(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_decoding, "PIECE", 8)
    state = model.prefill(model.condition(TEXTS[:1], None))
    prompt, steps = state.cache.get_seq_length(), model.fixed_steps(state, 2)
    assert steps.length < 8 * 8  # so that pieces are no larger
    kinds = [steps.kind(t) for t in range(1, model.grid[0] * model.grid[1])]
    assert sum(kind.inputs for kind in kinds) == model.image_inputs
    fed = prompt
    for kind in kinds:
        fed += kind.inputs
        assert fed <= kind.visible < fed + 8
        assert kind.visible % 8 == 0
    assert kinds[-1].visible == steps.length


# Fit to be recorded -----------------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """What runs inside: operation, shapes and devices of tensors, and every number that is not in a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.devices: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in given if isinstance(leaf, Tensor)]
        self.devices |= {tensor.device.type for tensor in tensors}
        numbers = [leaf for leaf in given if not isinstance(leaf, Tensor)]
        self.seen.append((str(func), [tuple(tensor.shape) for tensor in tensors], numbers))
        return found


def can_fake_a_gpu() -> bool:
    """Whether this torch makes fake tensors of a GPU where there is none: 2.6 and 2.9 ask for a driver, 2.14 does not."""
    try:
        with FakeTensorMode() as fakes:
            fakes.from_tensor(torch.zeros(1)).to("cuda")
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not can_fake_a_gpu(), reason="this torch makes no fake tensors of a GPU")
def test_on_a_gpu_steps_of_a_kind_are_the_same_operations_and_none_asks_or_feeds_the_host(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # fake tensors have a device, shapes and no values: whatever asks for one raises, as it does in a recording
    steps: dict[Any, list[Operations]] = {}

    class Watching(Unrecorded):
        def __call__(self, kind: Any) -> None:
            with Operations() as found:
                self.step(kind)
            steps.setdefault(kind, []).append(found)

    monkeypatch.setattr(captured, "Replayed", Watching)
    monkeypatch.setattr(fixed_decoding, "PIECE", 8)
    moved = copy.deepcopy(model)
    condition = model.condition([p.text for p in PADDED], [p.negative for p in PADDED])
    state = model.prefill(condition)
    length = model.grid[0] * model.grid[1]
    with FakeTensorMode() as fakes:

        def on_gpu(tensor: Tensor) -> Tensor:
            return fakes.from_tensor(tensor).to("cuda")

        for module in moved.modules():
            for table in (module._parameters, module._buffers):
                table |= {n: on_gpu(tensor) for n, tensor in table.items() if tensor is not None}
        for layer in state.cache.layers:
            layer.keys, layer.values = on_gpu(layer.keys), on_gpu(layer.values)
        names = ("features", "attention_mask", "position")
        state = replace(state, **{name: on_gpu(getattr(state, name)) for name in names})
        moved.prefill = lambda condition: state
        assert eager_reason(moved) is None
        noise = on_gpu(sampling_noise(0, 0, 6, length))
        settings = {"cfg_scale": 3.0, "temperature": 0.8, "top_k": 5, "top_p": 0.7}
        kept = decode_batch(
            moved, condition, 2, noise, **settings, optional=OPTIONAL, alternatives=3
        )
    assert all(column.device.type == "cuda" for column in kept.values())
    assert sum(map(len, steps.values())) == length - 1
    assert max(map(len, steps.values())) > 1
    for kind, found in steps.items():
        assert {device for step in found for device in step.devices} == {"cuda"}
        assert all(step.seen == found[0].seen for step in found), kind


def test_a_model_is_captured_on_a_gpu_unless_somebody_must_see_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    assert "the model is on cpu" in str(eager_reason(model))
    monkeypatch.setattr(LlamaImageModel, "device", torch.device("cuda"))
    assert eager_reason(model) is None
    watched = Watched(model, threading.Event(), lambda tokens: None)
    assert eager_reason(watched) == "the model is not capturable"
    handle = model.language_model.layers[0].register_forward_pre_hook(lambda *_: None)
    assert "hooks run in its passes" in str(eager_reason(model))
    handle.remove()
    assert eager_reason(model) is None


def test_a_model_whose_layers_were_recomputed_is_still_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model()
    model.recompute = True
    tokens = torch.zeros(len(TEXTS), model.grid[0] * model.grid[1], dtype=torch.long)
    model(model.condition(TEXTS, None), tokens, want=["logprobs"])["logprobs"].sum().backward()
    assert model.language_model.layers[0].gradient_checkpointing
    monkeypatch.setattr(LlamaImageModel, "device", torch.device("cuda"))
    assert eager_reason(model) is None


def test_a_step_that_cannot_be_recorded_is_told_once_and_not_tried_again(
    on_a_cpu: pytest.MonkeyPatch,
) -> None:
    class Refused(Unrecorded):
        def __init__(self, step: Callable[[Any], None], device: torch.device) -> None:
            super().__init__(step, device)
            self.failed = "CUDA error: operation not permitted when stream is capturing"

    on_a_cpu.setattr(captured, "Replayed", Refused)
    model = tiny_model(WideConfig)
    told = "capture a step of EmbeddedModel: CUDA error: operation not permitted"
    with pytest.warns(T2ICreditWarning, match=told):
        fixed = sample_rollout(model, PADDED, **SETTINGS)
    on_a_cpu.undo()
    assert not model.capturable and LlamaImageModel.capturable
    assert_alike(fixed, sample_rollout(model, PADDED, **SETTINGS))


# On a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[torch.cuda.CUDAGraph]:
    """The graphs that were replayed, one entry each time."""
    seen: list[torch.cuda.CUDAGraph] = []
    replay = torch.cuda.CUDAGraph.replay

    def watched(self: torch.cuda.CUDAGraph) -> None:
        seen.append(self)
        replay(self)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", watched)
    return seen


def eagerly(model: Any, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Rollout:
    with monkeypatch.context() as patched:
        patched.setattr(model, "capturable", False)
        return sample_rollout(model, PADDED, **SETTINGS, **settings)


@pytest.mark.gpu
def test_replayed_steps_draw_and_keep_what_ordinary_steps_do(
    model: Any, replays: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_decoding, "PIECE", 8)
    moved = copy.deepcopy(model).cuda()
    for _ in range(2):  # weights change in place between batches
        replays.clear()
        recorded = sample_rollout(moved, PADDED, **SETTINGS, **EVERYTHING)
        assert replays and len(set(map(id, replays))) < len(replays)
        replays.clear()
        assert_alike(recorded, eagerly(moved, monkeypatch, **EVERYTHING), atol=1e-4)
        assert not replays
        with torch.no_grad():
            for parameter in moved.language_model.parameters():
                parameter.mul_(1.1)


@pytest.mark.gpu
def test_truncated_replayed_steps_draw_what_ordinary_ones_do(
    monkeypatch: pytest.MonkeyPatch, replays: list[Any]
) -> None:
    model = tiny_model(WideConfig).cuda()
    recorded = sample_rollout(model, PADDED, **SETTINGS, top_k=8, top_p=0.8)
    assert replays
    assert_alike(recorded, eagerly(model, monkeypatch, top_k=8, top_p=0.8), atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["autocast", "bfloat16", "adapter"])
def test_steps_are_recorded_in_every_precision_and_with_an_adapter(
    precision: str, replays: list[Any]
) -> None:
    model = tiny_model(WideConfig).cuda()
    if precision == "bfloat16":
        cast_parameters(model, torch.bfloat16)
    if precision == "adapter":
        choose_trained(model, TuneConfig(lora_rank=2), seed=0)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "autocast"):
        rollout = sample_rollout(model, PADDED, **SETTINGS)
    assert len(replays) == 4  # of five steps, the first of which is not recorded
    assert torch.isfinite(rollout.logprobs).all()


@pytest.mark.gpu
def test_a_step_that_asks_the_gpu_is_not_recorded_and_sampling_goes_on(
    monkeypatch: pytest.MonkeyPatch, replays: list[Any]
) -> None:
    class Asking(EmbeddedModel):
        def head(self, features: Tensor) -> Tensor:
            assert not bool(features.isnan().any())
            return super().head(features)

    model = tiny_model(WideConfig).cuda()
    model.__class__ = Asking
    with pytest.warns(T2ICreditWarning, match="cannot capture a step of Asking"):
        found = sample_rollout(model, PADDED, **SETTINGS)
    assert not replays
    assert_alike(found, sample_rollout(model, PADDED, **SETTINGS), atol=1e-4)


@pytest.mark.gpu
def test_the_memory_of_graphs_is_free_after_the_batch(replays: list[Any]) -> None:
    model = tiny_model(WideConfig).cuda()
    sample_rollout(model, PADDED, **SETTINGS)  # what libraries keep
    replays.clear()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    rollout = sample_rollout(model, PADDED, **SETTINGS)
    assert replays
    replays.clear()
    held = sum(
        getattr(rollout, field.name).untyped_storage().nbytes()
        for field in fields(Rollout)
        if isinstance(getattr(rollout, field.name), Tensor)
    )
    # each of its tensors takes at most 512 bytes more than it needs
    assert torch.cuda.memory_allocated() - before < held + 20 * 512
