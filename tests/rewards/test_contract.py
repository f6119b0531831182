"""What a reward may return, and what is said of anything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t2i_credit.errors import TrainingError, UserError
from t2i_credit.geneval import Detection
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards import WeightedReward
from t2i_credit.rewards.geneval import GenevalReward

IMAGES, PROMPTS = torch.zeros(3, 3, 4, 4), [Prompt("a")] * 3


def weighted(returned, weight=2.0):
    return WeightedReward({"mine": (weight, lambda images, prompts: returned)})


@pytest.mark.parametrize(
    "returned",
    [
        [1, 2, 3],
        np.array([1.0, 2.0, 3.0]),
        np.array([1, 2, 3], dtype=np.int64),
        torch.tensor([1, 2, 3]),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
        [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)],
    ],
)
def test_one_number_per_image_is_a_reward_in_whatever_it_comes(returned):
    total, parts = weighted(returned)(IMAGES, PROMPTS)
    assert total.tolist() == [2.0, 4.0, 6.0] and total.dtype == torch.float32
    assert parts["mine"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned NoneType; a tensor, an array or a list of numbers is needed"),
        ("good", "returned str; a tensor"),
        ([None, 1.0, 2.0], "returned list; a tensor"),
        ([[1.0], [2.0, 3.0], [4.0]], "returned list; a tensor"),
        ({"a": 1.0}, "returned dict; a tensor"),
        ([1.0, 2.0], r"returned shape \(2,\); \(3,\) is needed"),
        (torch.zeros(3, 1), r"returned shape \(3, 1\); \(3,\) is needed"),
        (1.0, r"returned shape \(\); \(3,\) is needed"),
        ([1.0, float("nan"), 2.0], "returned a value that is not finite"),
        (np.array([np.inf, 0.0, 0.0]), "returned a value that is not finite"),
    ],
)
def test_anything_else_is_one_line_that_names_the_reward(returned, said):
    with pytest.raises(TrainingError, match=f"^reward mine: {said}") as error:
        weighted(returned)(IMAGES, PROMPTS)
    assert "\n" not in str(error.value)


def test_parts_of_a_part_are_held_to_the_same():
    answered = (torch.ones(3), {"sharp": [1.0, 2.0, 3.0]})
    assert weighted(answered)(IMAGES, PROMPTS)[1]["mine/sharp"].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(TrainingError, match=r"^reward mine/sharp: returned shape \(1,\)"):
        weighted((torch.ones(3), {"sharp": [1.0]}))(IMAGES, PROMPTS)


def test_a_check_of_ones_own_that_returns_nothing_says_nothing():
    class Mine:
        def check(self, prompts):
            self.asked = len(prompts)

        def __call__(self, images, prompts):
            return [0.0] * len(prompts)

    mine = Mine()
    assert WeightedReward({"mine": (1.0, mine)}).check(PROMPTS) == [] and mine.asked == 3


CAT = Prompt("a", spec={"tag": "single_object", "include": [{"class": "cat", "count": 1}]})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "returned NoneType for 2 images; one dict per image is needed"),
        ([{}], "returned 1 answers for 2 images"),
        ([{}, ["cat"]], "returned list for an image; a dict of class to detections"),
        ([{}, {"cat": [(0, 0, 2, 2)]}], "cat: returned tuple; geneval.Detection is needed"),
        ([{}, {"cat": [Detection((0, 0, 2, float("nan")), 0.9)]}], "cat: a box or a confidence"),
        (
            [{}, {"cat": [Detection((0, 0, 2, 2), 0.9, mask=np.ones((4, 4), bool))]}],
            r"cat: a mask of \(4, 4\); the images are \(4, 6\)",
        ),
    ],
)
def test_what_a_detector_of_ones_own_answers_wrongly_is_named(answer, said):
    class Mine:
        classes, colors = None, ("red",)

        def __call__(self, images, wanted):
            return answer

    reward = GenevalReward(Mine(), lambda: None, partial=False, judging={})
    with pytest.raises(UserError, match=f"detector .*Mine: {said}") as error:
        reward(torch.zeros(2, 3, 4, 6), [CAT, CAT])
    assert "\n" not in str(error.value)
