"""Preference models on tiny checkpoints in their real layouts, against their authors' formulas."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_clips import ARCHITECTURE, as_pictures, some_images, tiny_open_clip

from t2i_credit.errors import ModelError
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards.preference import hpsv2, pickscore

PROMPTS = [Prompt("a red cat"), Prompt("two dogs"), Prompt("a red cat")]


@pytest.fixture(scope="module")
def pickscore_folder(tmp_path_factory):
    """A random CLIPModel with tokenizer and image processor, as PickScore_v1 and its processor lie on the hub."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("pickscore")
    letters = "acdegortwn"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters), "s</w>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={"vocab_size": len(words), **ends, **size},
        vision_config={"image_size": 32, "patch_size": 16, **size},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def test_pickscore_says_whose_end_it_does_not_read(pickscore_folder):
    reward = pickscore(model=str(pickscore_folder), processor=str(pickscore_folder))
    assert reward.check(PROMPTS) == []
    (line,) = reward.check([*PROMPTS, Prompt("two dogs " * 40)])
    assert line.startswith("reward pickscore (") and "reads 77 tokens of a prompt" in line


def test_pickscore_is_its_authors_formula(pickscore_folder):
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = some_images(3, 48, 48)
    model = CLIPModel.from_pretrained(pickscore_folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(pickscore_folder)(
        as_pictures(images), return_tensors="pt"
    )
    texts = CLIPTokenizer.from_pretrained(pickscore_folder)(
        [p.text for p in PROMPTS], padding=True, truncation=True, max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        drawn = model.get_image_features(**pixels).pooler_output
        written = model.get_text_features(**texts).pooler_output
        drawn = drawn / drawn.norm(dim=-1, keepdim=True)
        written = written / written.norm(dim=-1, keepdim=True)
        wanted = (model.logit_scale.exp() * (written @ drawn.T)).diagonal()
    folder = str(pickscore_folder)
    found = pickscore(model=folder, processor=folder)(images, PROMPTS)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert len(set(found.tolist())) == 3


def test_pickscore_weights_with_a_hole_are_refused(pickscore_folder, tmp_path):
    for file in pickscore_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"visual_projection.weight is missing"):
        pickscore(model=str(tmp_path), processor=str(tmp_path))


def test_a_processor_that_does_not_crop_to_its_size_is_refused(pickscore_folder, tmp_path):
    for file in pickscore_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"size": {"shortest_edge": 40}}
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="is not supported"):
        pickscore(model=str(pickscore_folder), processor=str(tmp_path))


def test_a_pickscore_that_is_not_there_is_named_in_one_line(pickscore_folder):
    with pytest.raises(ModelError, match=r"pickscore: .*nowhere: cannot be loaded") as error:
        pickscore(model=f"{pickscore_folder}/nowhere", processor=str(pickscore_folder))
    assert "\n" not in str(error.value)


def test_hpsv2_is_its_authors_formula(tmp_path):
    model = tiny_open_clip(tmp_path)
    path = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": model.state_dict()}, path)
    images = some_images(3, 48, 48)
    _, _, transform = open_clip.create_model_and_transforms(ARCHITECTURE)
    pixels = torch.stack([transform(picture) for picture in as_pictures(images)])
    tokens = open_clip.get_tokenizer(ARCHITECTURE)([p.text for p in PROMPTS])
    with torch.no_grad():
        drawn, written, _ = model(pixels, tokens)
    wanted = torch.diagonal(drawn @ written.T)
    found = hpsv2(weights=str(path), model=ARCHITECTURE)(images, PROMPTS)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_hpsv2_says_where_its_weights_are():
    with pytest.raises(ModelError, match=r"HPS_v2.1_compressed.pt is at huggingface.co"):
        hpsv2(weights="nowhere.pt")
