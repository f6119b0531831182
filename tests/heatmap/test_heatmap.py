import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from t2i_credit.errors import RunError
from t2i_credit.heatmap.colours import USUAL, diverging, table
from t2i_credit.heatmap.draw import display
from t2i_credit.heatmap.files import gif_bytes, sample_view, write_animation, write_heatmaps
from t2i_credit.heatmap.sample import SampleView, common_scale, credit_overlay
from t2i_credit.heatmap.sheets import contact_sheet, credit_animation, panel
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter

H, W = 3, 5


def view(seed=0, *, size=(50, 30), grid=(H, W), **changes):
    """A sample with an image of `size` = (width, height)."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    credit = random.random(grid).astype(np.float32)
    given = SampleView(
        image=Image.fromarray(pixels),
        grid=grid,
        credit=credit / credit.mean(),
        contrast=credit,
        signed_contrast=random.normal(size=grid).astype(np.float32),
        token_advantages=credit / credit.mean() * 0.7,
        prompt="a red circle to the left of a blue triangle",
        negative=None,
        reward=0.5,
        advantage=0.7,
    )
    return replace(given, **changes)


def same(a, b):
    return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


def test_a_small_image_grows_by_a_whole_factor_with_crisp_pixels():
    image = view(size=(48, 48)).image
    grown = display(image)
    assert grown.size == (288, 288)
    np.testing.assert_array_equal(np.asarray(grown), np.asarray(image).repeat(6, 0).repeat(6, 1))
    assert display(Image.new("RGB", (50, 30))).size == (300, 180)  # factor round(288 / 50) = 6
    assert display(Image.new("RGB", (384, 768))).size == (144, 288)


# ---- pictures


def test_a_map_lies_on_the_image_where_its_token_is():
    pushed = np.zeros((H, W))
    pushed[0, 4] = 1.0  # first row, last column: top right
    sample = view(image=Image.new("RGB", (50, 30), "white"), token_advantages=pushed)
    picture = np.asarray(credit_overlay(sample, 1.0, longest=288)).astype(int)
    height, width = picture.shape[:2]
    assert (width, height) == (300, 180)
    blue = picture[..., 2] - picture[..., 0] > 20
    assert blue[: height // 3, width * 4 // 5 :].all()
    assert blue.sum() == (height // 3) * (width // 5)


@pytest.mark.parametrize("size", [(48, 48), (50, 30), (30, 50), (384, 200)])
def test_panels_follow_the_images_shape(size):
    picture = panel(view(size=size))
    shown = display(Image.new("RGB", size))
    cell = max(shown.width, 216)
    assert picture.width == 4 * cell + 3 * 28 + 2 * 44  # four cells, three gaps, two margins
    assert picture.height > shown.height + 150


def test_the_scale_of_a_group_covers_every_sample_and_says_what_it_clips():
    small, large = view(0), view(1)
    large = replace(large, token_advantages=np.full((H, W), -4.0), credit=np.full((H, W), 1.0))
    scale = common_scale([small, large])
    assert scale.advantage == 4.0
    assert scale.credit == max(2.0, small.credit.max())
    assert "advantage" not in scale.clipped
    many = [replace(small, signed_contrast=np.ones((H, W)))] * 70
    spike = np.ones((H, W))
    spike[0, 0] = (
        15.0  # of 71 x 15 = 1,065 values: beyond the 99th percentile, and more than twice that
    )
    scale = common_scale([*many, replace(small, signed_contrast=spike)])
    assert (scale.contrast, scale.clipped) == (1.0, {"contrast"})
    steep = np.full((H, W), 0.5)
    steep[0, 0] = 300.0
    scale = common_scale([*many, replace(small, credit=steep)])
    assert scale.credit < 3 and scale.clipped == {"credit"}


def test_a_sample_without_a_negative_branch_says_so_and_its_group_still_has_a_scale():
    with_branch, without = view(), view(signed_contrast=None, contrast=None)
    assert common_scale([without]).contrast == 0.0
    assert panel(without).size == panel(with_branch).size
    assert not same(panel(without), panel(with_branch))


def test_a_panel_has_one_picture_more_where_a_critic_said_something():
    values = np.linspace(-0.2, 0.3, H * W).reshape(H, W)
    plain, valued = view(), view(value_change=values)
    assert common_scale([plain]).value == 0 and 0.25 < common_scale([plain, valued]).value < 0.31
    one = (panel(plain).width - panel(valued).width) / -1
    assert one == pytest.approx((panel(plain).width - 2 * 44 + 28) / 4)  # margins 44, gaps 28
    assert not same(panel(valued), panel(view(value_change=-values)))


@pytest.mark.parametrize(
    "changes",
    [
        {"negative": ""},
        {"negative": "blurry"},
        {"reward": 0.25},
        {"advantage": -0.7},
        {"gold": True},
        {"prompt": "a blue circle"},
    ],
    ids=str,
)
def test_everything_known_of_a_sample_is_written_on_its_panel(changes):
    assert not same(panel(view()), panel(replace(view(), **changes)))


@pytest.mark.parametrize("prompt", ["", "word " * 300, "x" * 2000, "two\nlines\tand a tab"])
def test_any_prompt_fits_into_the_picture(prompt):
    sample = view(prompt=prompt, negative=prompt)
    assert panel(sample).width == panel(view()).width
    assert panel(sample).height <= panel(view()).height + 2 * 36  # at most three lines
    contact_sheet([[sample]])


def test_numbers_that_are_not_finite_are_drawn_as_unknown():
    sample = view(reward=float("nan"), advantage=float("inf"), credit=np.full((H, W), np.nan))
    panel(sample)
    contact_sheet([[sample, view()]])
    credit_animation([(1, sample), (2, view())])


def test_flat_maps_and_tensors_of_any_precision_give_the_same_picture():
    sample = view()
    maps = {
        name: torch.tensor(getattr(sample, name)).bfloat16()
        for name in ("credit", "contrast", "signed_contrast", "token_advantages")
    }
    as_grid = replace(sample, **{name: value.float().numpy() for name, value in maps.items()})
    as_row = replace(sample, **{name: value.reshape(-1) for name, value in maps.items()})
    assert same(panel(as_grid), panel(as_row))


def test_nothing_that_is_given_is_changed():
    sample = view(credit=torch.full((H * W,), float("nan")), token_advantages=torch.randn(H * W))
    pixels, pushed = sample.image.copy(), sample.token_advantages.clone()
    panel(sample)
    contact_sheet([[sample]])
    credit_animation([(1, sample), (2, sample)])
    assert sample.credit.isnan().all()
    assert torch.equal(sample.token_advantages, pushed)
    assert same(sample.image, pixels)


def test_a_contact_sheet_shows_the_best_reward_first_whatever_the_order():
    samples = [view(n, reward=n / 4) for n in range(4)]
    assert same(contact_sheet([samples]), contact_sheet([samples[::-1]]))


def test_a_contact_sheet_breaks_rows_and_stacks_groups():
    samples = [view(n) for n in range(5)]
    one_row = contact_sheet([samples])
    two_rows = contact_sheet([samples], columns=3)
    assert two_rows.width < one_row.width
    assert two_rows.height > one_row.height
    assert contact_sheet([samples, samples]).height > 1.7 * one_row.height
    assert contact_sheet([samples, []]).size == one_row.size


def test_an_animation_has_a_frame_per_step_of_one_size_on_one_scale():
    frames = [(10 * n, view(n, reward=n / 3)) for n in range(4)]
    pictures = credit_animation(frames)
    assert len(pictures) == 4
    assert len({picture.size for picture in pictures}) == 1
    assert not same(pictures[0], pictures[1])
    louder = [*frames[:3], (30, replace(frames[3][1], credit=frames[3][1].credit * 5))]
    assert not same(credit_animation(louder)[0], pictures[0])  # the last frame's range counts


@pytest.mark.parametrize("palettes", [{}, {"credit": "magma", "advantage": "glow"}])
def test_the_bars_of_a_film_keep_their_colours(palettes):
    pictures = credit_animation(
        [(n, view(n)) for n in range(3)], palettes
    )  # of noise: every colour
    with Image.open(io.BytesIO(gif_bytes(pictures, palettes))) as film:
        for number, picture in enumerate(pictures):
            film.seek(number)
            drawn, read = (np.asarray(one.convert("RGB")).astype(int) for one in (picture, film))
            for kind in ("credit", "advantage"):
                shades = table({**USUAL, **palettes}[kind]).astype(int)
                starts, ends = ((drawn == shades[end]).all(-1) for end in (0, -1))
                row = int(np.flatnonzero(starts.any(1) & ends.any(1))[-1])  # the last: of the bar
                first, last = np.flatnonzero(starts[row])[0], np.flatnonzero(ends[row])[-1]
                assert last - first > 200
                off = np.abs(read[row, first : last + 1] - drawn[row, first : last + 1])
                assert off.max() <= 12, (kind, number)
                assert max(off[0].max(), off[-1].max()) <= 3, (kind, number)


# ---- files


def recorded_run(path, steps=(1, 2)):
    """Two groups of two samples per step on a 3 x 5 grid; the second prompt is new each step."""
    run = RunWriter.create(path, config={}, environment={}, total=9)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        logprobs = -torch.rand(4, H * W, generator=generator)
        texts = ["a red star", "a red star", f"prompt of step {step}", f"prompt of step {step}"]
        rollout = Rollout(
            prompts=[Prompt(text) for text in texts],
            group_size=2,
            tokens=torch.zeros(4, H * W, dtype=torch.long),
            mask=torch.ones(4, H * W, dtype=torch.bool),
            logprobs=logprobs,
            negative_logprobs=logprobs * 1.5,
            guided_logprobs=logprobs,
            sampling_logprobs=logprobs,
            entropy=-logprobs,
            images=torch.rand(4, 3, 30, 50, generator=generator),
            gold=torch.tensor([True, False, False, False]),
        )
        advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
        run.write_step(
            step,
            rollout,
            grid=(H, W),
            codebook_size=8,
            rewards=advantages,
            reward_parts={},
            advantages=advantages,
            credit=-logprobs,
            token_advantages=advantages[:, None] * -logprobs,
        )
    return run.path


def test_a_recorded_sample_becomes_a_view(tmp_path):
    record = RunReader(recorded_run(tmp_path / "r")).step(2)
    sample = sample_view(record, 1)
    assert (sample.grid, sample.image.size) == ((3, 5), (50, 30))
    assert (sample.prompt, sample.negative, sample.reward) == ("a red star", None, -1.0)
    assert sample.contrast is None
    # logprobs - negative_logprobs = logprobs - 1.5 logprobs
    np.testing.assert_allclose(
        sample.signed_contrast, -0.5 * record.arrays["logprobs"][1], rtol=1e-5
    )
    assert sample_view(record, 0).gold


def test_heatmaps_of_a_step_are_a_contact_sheet_and_a_panel_per_sample(tmp_path):
    run = recorded_run(tmp_path / "r")
    written = write_heatmaps(run)
    assert [path.relative_to(run).as_posix() for path in written] == [
        "heatmaps/000002/contact_sheet.png",
        *(f"heatmaps/000002/{n:04d}.png" for n in range(4)),
    ]
    record = RunReader(run).step(2)
    scale = common_scale([sample_view(record, 2), sample_view(record, 3)])
    with Image.open(written[3]) as picture:
        assert same(picture, panel(sample_view(record, 2), scale))


def test_heatmaps_go_where_they_are_sent(tmp_path):
    run = recorded_run(tmp_path / "r")
    written = write_heatmaps(run, step=1, out=tmp_path / "a" / "b")
    assert {path.parent for path in written} == {tmp_path / "a" / "b"}
    assert not (run / "heatmaps").exists()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/x: cannot be written"):
        write_heatmaps(run, out=tmp_path / "file" / "x")


@pytest.mark.parametrize("link", ["heatmaps", "heatmaps/000002"])
def test_nothing_is_drawn_through_a_link_out_of_the_run(tmp_path, link):
    run = recorded_run(tmp_path / "run")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (run / link).parent.mkdir(exist_ok=True)
    (run / link).symlink_to(elsewhere)
    with pytest.raises(RunError, match="leads out of"):
        write_heatmaps(run, 2)
    assert not list(elsewhere.iterdir())


def test_an_animation_follows_the_prompt_that_the_most_steps_recorded(tmp_path):
    run = recorded_run(tmp_path / "r", steps=(1, 2, 3))
    path = write_animation(run)
    assert path == run / "heatmaps" / "credit.gif"
    with Image.open(io.BytesIO(path.read_bytes())) as film:
        assert film.n_frames == 3
    reader = RunReader(run)
    frames = [(step, sample_view(reader.step(step), 1)) for step in (1, 2, 3)]  # 0 is gold
    with Image.open(path) as film:
        assert film.size == credit_animation(frames)[0].size


def test_a_prompt_of_one_step_cannot_be_animated(tmp_path):
    run = recorded_run(tmp_path / "r")
    with pytest.raises(RunError, match=r"'prompt of step 2' was recorded at 1 step\(s\);"):
        write_animation(run, "prompt of step 2")


def test_a_panel_shows_where_the_judge_looked_if_that_is_known():
    plain, looked = view(), view(reward_map=np.full((H, W), -0.3, np.float32))
    narrow, wide = panel(plain), panel(looked)
    assert wide.width > narrow.width and wide.height == narrow.height
    assert common_scale([plain]).map == 0 and common_scale([looked]).map == pytest.approx(0.3)
    ends = diverging(np.float32([-0.3, 0.3]), 0.3, USUAL["map"]).tolist()
    colours = {colour for _, colour in wide.crop((narrow.width, 0, *wide.size)).getcolors(1 << 20)}
    assert tuple(ends[0]) in colours  # every token lowered the reward as much as any
