"""Image tokenizers by themselves: against outputs of the published code, against transformers' own, and what is damaged."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import VQModel
from safetensors.torch import load_file
from tiny_causal import CODES, LEVELS, write_chameleon, write_cosmos
from tiny_checkpoints import tiny_emu3, tiny_janus, write_tiny_llamagen
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from t2i_credit.errors import ModelError
from t2i_credit.models.description import ImageTokenizerDescription
from t2i_credit.models.tokenizers import KINDS, ImageTokenizer, read_image_tokenizer
from t2i_credit.models.tokenizers.base import nearest
from t2i_credit.models.tokenizers.torchscript import level_vectors

GRID = (3, 4)


def read(folder: Path, kind: str, **more: Any) -> ImageTokenizer:
    return read_image_tokenizer(
        folder, ImageTokenizerDescription(kind=kind, path=str(folder), **more)
    )


def write_chameleon_kind(folder: Path) -> dict[str, Any]:
    write_chameleon(folder)
    return {}


def write_janus_kind(folder: Path) -> dict[str, Any]:
    tiny_janus()[0].model.vqmodel.save_pretrained(folder)
    return {}


def write_emu3_kind(folder: Path) -> dict[str, Any]:
    tiny_emu3()[0].model.vqmodel.save_pretrained(folder)
    return {}


def write_llamagen_kind(folder: Path) -> dict[str, Any]:
    write_tiny_llamagen(folder)
    return {}


def write_vq_model_kind(folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"in_channels": 12, "out_channels": 12, "block_out_channels": (8, 8)}
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    more = {"norm_num_groups": 4, "mid_block_add_attention": False, "num_vq_embeddings": CODES}
    VQModel(**sizes, **blocks, **more, latent_channels=4).save_pretrained(folder)
    return {"patch": 2}


def write_torchscript_kind(folder: Path) -> dict[str, Any]:
    write_cosmos(folder, frames=True)
    return {"levels": LEVELS, "factor": 2, "frames": True}


WRITERS = {
    "chameleon": write_chameleon_kind,
    "janus": write_janus_kind,
    "emu3": write_emu3_kind,
    "llamagen": write_llamagen_kind,
    "vq_model": write_vq_model_kind,
    "torchscript": write_torchscript_kind,
}


def test_every_kind_is_tested_here() -> None:
    assert set(WRITERS) == set(KINDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_codes_become_pictures_and_pictures_codes_with_a_gradient(
    kind: str, tmp_path: Path
) -> None:
    found = read(tmp_path / "it", kind, **WRITERS[kind](tmp_path / "it"))
    codes = len(found.codebook)
    tokens = torch.arange(24).reshape(2, 12) * 5 % codes
    drawn = found.decode(tokens, GRID)
    assert drawn.shape == (2, 3, *found.size(GRID)) and 0 <= drawn.min() <= drawn.max() <= 1
    again = found.encode(drawn, GRID)
    assert again.shape == (2, 12) and again.dtype == torch.int64 and again.max() < codes
    vectors = found.vectors(tokens).clone().requires_grad_()
    torch.testing.assert_close(found.decode_vectors(vectors, GRID), drawn, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(found.decode_vectors(vectors, GRID).sum(), vectors)
    assert gradient.shape == (2, 12, found.codebook.shape[1]) and gradient.any()
    assert found.files and all(file.is_file() for file in found.files)


@pytest.mark.skipif(
    "CHAMELEON_VECTORS" not in os.environ,
    reason="needs recorded outputs of Chameleon's image tokenizer, in $CHAMELEON_VECTORS",
)
def test_chameleon_is_equal_to_the_published_code() -> None:
    folder = Path(os.environ["CHAMELEON_VECTORS"])
    recorded, found = load_file(folder / "vectors.safetensors"), read(folder, "chameleon")
    pixels, tokens = recorded["images"], recorded["tokens"]
    assert torch.equal(found.codes(pixels), recorded["codes_of_images"])
    drawn = found.pixels(found.vectors(tokens).permute(0, 3, 1, 2))
    torch.testing.assert_close(drawn, recorded["decoded"], atol=1e-4, rtol=0)
    grid = (tokens.shape[1], tokens.shape[2])
    assert torch.equal(found.encode(pixels / 2 + 0.5, grid), recorded["codes_of_images"].flatten(1))


def test_chameleons_encoder_is_that_of_transformers(tmp_path: Path) -> None:
    write_chameleon(tmp_path)
    found = read(tmp_path, "chameleon")
    config = ChameleonVQVAEConfig(
        embed_dim=32,
        num_embeddings=CODES,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
        resolution=8,
        attn_resolutions=[],
    )
    theirs = ChameleonVQVAE(config).eval()
    state = {n: t for n, t in found.module.state_dict().items() if n in theirs.state_dict()}
    assert len(state) == len(theirs.state_dict())
    theirs.load_state_dict(state)
    pixels = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes = theirs.encode(pixels).image_tokens
        assert torch.equal(found.codes(pixels).flatten(), codes.flatten())


def test_the_vectors_of_levels_are_those_that_cosmos_looks_up(tmp_path: Path) -> None:
    write_cosmos(tmp_path, frames=False)
    found = read(tmp_path, "torchscript", levels=LEVELS, factor=2)
    codes = torch.arange(CODES)[None, None]
    theirs = found.module.decoder.inv_quant(codes)[0, :, 0].T
    assert torch.equal(level_vectors(LEVELS), theirs)
    assert level_vectors([8, 8, 8, 5, 5, 5]).shape == (64_000, 6)
    assert level_vectors([8, 8, 8, 5, 5, 5]).min() == -1


def test_the_nearest_code_is_the_nearest() -> None:
    draw = torch.Generator().manual_seed(0)
    latents, codes = torch.randn(2, 5, 3, 4, generator=draw), torch.randn(30, 5, generator=draw)
    found = nearest(latents, codes)
    distances = torch.cdist(latents.permute(0, 2, 3, 1).flatten(0, 2), codes)
    assert torch.equal(found.flatten(), distances.argmin(1))


def damaged_yaml(folder: Path, old: str, new: str) -> None:
    path = folder / "vqgan.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


DAMAGE = {
    "no weights": (lambda f: (f / "vqgan.ckpt").unlink(), "vqgan.ckpt: missing"),
    "no configuration": (lambda f: (f / "vqgan.yaml").unlink(), "vqgan.yaml: cannot be read"),
    "no state dict": (lambda f: torch.save([1, 2], f / "vqgan.ckpt"), "holds no tensors by name"),
    "a pickle": (lambda f: (f / "vqgan.ckpt").write_bytes(b"\x80\x04N."), "damaged"),
    "other weights": (
        lambda f: torch.save({"state_dict": {"x": torch.zeros(2)}}, f / "vqgan.ckpt"),
        "is missing",
    ),
    "other sizes": (lambda f: damaged_yaml(f, "n_embed: 24", "n_embed: 25"), "the model needs"),
    "absurd sizes": (lambda f: damaged_yaml(f, "ch: 32", "ch: 32000000"), "is not allowed"),
    "absurd depth": (
        lambda f: damaged_yaml(f, "num_res_blocks: 1", "num_res_blocks: 9999"),
        "at most",
    ),
    "a text": (lambda f: damaged_yaml(f, "ch: 32", "ch: wide"), "ch: 'wide' is not allowed"),
    "odd channels": (lambda f: damaged_yaml(f, "ch: 32", "ch: 33"), "no multiple of 32"),
    "attention": (
        lambda f: damaged_yaml(f, "attn_resolutions: []", "attn_resolutions: [16]"),
        "not supported",
    ),
    "not yaml": (lambda f: (f / "vqgan.yaml").write_text("a: [1"), "vqgan.yaml"),
    "nothing": (lambda f: (f / "vqgan.yaml").write_text("a: 1"), "is this a VQGAN's"),
}


@pytest.mark.parametrize("case", list(DAMAGE))
def test_a_damaged_vqgan_is_one_line(tmp_path: Path, case: str) -> None:
    write_chameleon(tmp_path)
    damage, said = DAMAGE[case]
    damage(tmp_path)
    with pytest.raises(ModelError) as refused:
        read(tmp_path, "chameleon")
    assert said in str(refused.value) and str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_torchscript_of_another_shape_or_kind_is_one_line(tmp_path: Path) -> None:
    write_cosmos(tmp_path, frames=False)

    def refused(**more: Any) -> str:
        with pytest.raises(ModelError) as error:
            read(tmp_path, "torchscript", **{"levels": LEVELS, "factor": 2, **more})
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "encoder.jit: " in refused(factor=3)
    assert "encoder.jit: fails" in refused(frames=True)
    assert "levels: 1,073,741,824 codes" in refused(levels=[64] * 5)
    assert "decoder.jit: fails" in refused(levels=[2, 2])
    assert "levels: its codes have other vectors" in refused(levels=LEVELS[::-1])
    (tmp_path / "encoder.jit").write_bytes(b"MZ no archive")
    assert "encoder.jit: no TorchScript file" in refused()
    with zipfile.ZipFile(tmp_path / "encoder.jit", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x/constants.pkl", b"")
        packed.writestr("x/data", b"\0" * (1 << 26))
    assert "unpacks to" in refused()
    (tmp_path / "encoder.jit").unlink()
    assert "encoder.jit: missing" in refused()
