"""A trained run as a folder that others load, and what its card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emu3_upstream import greedy_rows
from tiny_checkpoints import write_tiny_emu3, write_tiny_janus
from tiny_hub import tiny_hub
from toys import PROMPTS, recipe
from transformers import (
    Emu3ForConditionalGeneration,
    Emu3Processor,
    JanusForConditionalGeneration,
    JanusProcessor,
)

import t2i_credit
from t2i_credit.api.export import card, export
from t2i_credit.cli.commands import main
from t2i_credit.errors import RunError, UserError
from t2i_credit.models import load_pretrained
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.run_folder.writer import RunWriter

TUNE = {"lora_rank": 2, "lora_alpha": 16.0}


def greedy(model: Any, cfg_scale: float = 3.0) -> Any:
    return sample_rollout(model, PROMPTS[:2], group_size=1, cfg_scale=cfg_scale, top_k=1, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a tiny Janus with an adapter."""
    folder = tmp_path_factory.mktemp("janus")
    write_tiny_janus(folder / "janus")
    sections: dict[str, Any] = {"model": {"name": str(folder / "janus")}, "tune": TUNE}
    config = recipe(folder, **sections, train={"steps": 2}, optim={"lr": 0.1})
    return t2i_credit.train(config)


def test_an_exported_janus_is_one_that_transformers_loads_and_it_draws_the_same_image(
    run: Path, tmp_path: Path
) -> None:
    export(str(run), tmp_path / "out")
    upstream = JanusForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    processor = JanusProcessor.from_pretrained(tmp_path / "out")
    chats = [[{"role": "user", "content": [{"type": "text", "text": p.text}]}] for p in PROMPTS[:2]]
    shown = [processor.apply_chat_template(c, add_generation_prompt=True) for c in chats]
    inputs = processor(text=shown, generation_mode="image", padding=True)
    theirs = upstream.generate(
        **inputs, generation_mode="image", do_sample=False, guidance_scale=3.0
    )
    ours = greedy(t2i_credit.load_model(run, device="cpu"))
    assert torch.equal(ours.tokens, theirs)
    untrained = greedy(load_pretrained(str(run.parent.parent / "janus")))
    assert not torch.equal(untrained.tokens, theirs)  # the adapter does something


def test_an_exported_emu3_is_one_that_transformers_loads_and_it_draws_the_same_image(
    tmp_path: Path,
) -> None:
    write_tiny_emu3(tmp_path / "emu3")
    sections: dict[str, Any] = {"model": {"name": str(tmp_path / "emu3")}, "tune": TUNE}
    config = recipe(tmp_path, **sections, train={"steps": 2}, optim={"lr": 0.1})
    run = t2i_credit.train(config)
    export(str(run), tmp_path / "out")
    upstream = Emu3ForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    processor = Emu3Processor.from_pretrained(tmp_path / "out")
    texts = [prompt.text for prompt in PROMPTS[:2]]
    form = {"return_for_image_generation": True, "padding": True, "padding_side": "left"}
    form |= {"ratio": "3:2", "image_area": 384, "return_tensors": "pt"}
    inputs, nothing = processor(text=texts, **form), processor(text=["", ""], **form)
    height, width = inputs.pop("image_sizes")[0]
    rows = greedy_rows(upstream, inputs, nothing, height, width)
    theirs = upstream.vocabulary_mapping.convert_bpe2img(rows).flatten(1).long()
    ours = greedy(t2i_credit.load_model(run, device="cpu"))
    assert torch.equal(ours.tokens, theirs)
    closing = rows.new_zeros(2, 3)  # end of frame, image and text, which transformers drops
    pixels = upstream.decode_image_tokens(
        image_tokens=torch.cat([rows.flatten(1), closing], 1), height=height, width=width
    )
    drawn = processor.postprocess(list(pixels), return_tensors="PIL.Image.Image")["pixel_values"]
    for image, picture in zip(ours.images, drawn, strict=True):
        there = torch.from_numpy(np.array(picture)) / 255  # cut to whole steps
        assert (image.permute(1, 2, 0) - there).abs().max() <= 1.001 / 255
    untrained = greedy(load_pretrained(str(tmp_path / "emu3")))
    assert not torch.equal(untrained.tokens, theirs)  # the adapter does something


def test_an_exported_folder_is_a_model_like_any_other(run: Path, tmp_path: Path) -> None:
    export(f"{run}@2", tmp_path / "out")
    again = greedy(load_pretrained(str(tmp_path / "out")))
    ours = greedy(t2i_credit.load_model(run, device="cpu"))
    assert torch.equal(again.tokens, ours.tokens)
    assert (tmp_path / "out/credit.png").read_bytes().startswith(b"\x89PNG")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not any(name.startswith(".") for name in names)


def test_the_card_holds_recipe_scores_and_credit(run: Path, tmp_path: Path) -> None:
    summary = {"overall": {"correct": 0.75}}
    change = {"before": 0.5, "after": 0.75, "change": 0.25, "low": 0.1, "high": 0.4}
    RunWriter(run).write_evaluation("toy", {"summary": summary, "paired": {"overall": change}}, [])
    export(str(run), tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "| overall | 0.500 | 0.750 | +0.250 [+0.100, +0.400] |" in text
    assert "lora_rank: 2" in text and "credit.png" in text and "after 2 steps" in text


def test_a_run_without_evaluations_says_how_to_get_them() -> None:
    config = {
        "model": {"name": "someone/Janus"},
        "credit": {"name": "uniform"},
        "reward": {"geneval": {}},
    }
    text = card(config, {}, step=3, pictured=False)
    assert "base_model: someone/Janus" in text and "credit.png" not in text
    assert "t2i-credit evaluate RUN --against BASE" in text


def test_a_folder_that_exists_is_refused_and_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_text("mine")
    with pytest.raises(RunError, match="exists; name another folder"):
        export(str(run), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["file"]


def test_a_step_without_a_checkpoint_is_refused_and_nothing_is_written(
    run: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="there is no checkpoint of step 7"):
        export(f"{run}@7", tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_push_that_fails_names_the_reason_and_keeps_the_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--push someone/model: .*the folder .* is complete"):
        export(str(run), tmp_path / "out", push="someone/model")
    assert (tmp_path / "out/config.json").is_file()


def test_a_push_sends_the_whole_folder_to_a_private_repository(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_hub(monkeypatch) as hub:
        export(str(run), tmp_path / "out", push="someone/model")
    wanted = {"organization": "someone", "name": "model", "visibility": "private"}
    assert hub.created == [wanted]
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_a_push_without_a_network_is_one_line_and_keeps_the_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_hub(monkeypatch):
        pass  # nobody listens at its address any more
    with pytest.raises(UserError, match=r"--push someone/model: .*refused; the folder .* complete"):
        export(str(run), tmp_path / "out", push="someone/model")
    assert (tmp_path / "out/config.json").is_file()


def test_the_command_exports(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["t2i-credit", "export", str(run), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and "out" in capsys.readouterr().out
    assert load_pretrained(str(tmp_path / "out")).grid == (4, 4)
