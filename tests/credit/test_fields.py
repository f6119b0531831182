"""The fields of a group compute only what is asked for."""

from __future__ import annotations

import torch

from t2i_credit.credit.fields import group_fields


def test_group_fields_look_the_codes_up_and_compute_only_what_is_asked_for():
    tokens = torch.tensor([[0, 1], [0, 2]])
    codebook = torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 0.0]])
    known = {"tokens": tokens, "codebook": codebook, "grid": (1, 2), "group_size": 2}
    found = group_fields(["group_similarity"], **known, advantages=torch.tensor([1.0, -1.0]))
    assert list(found) == ["group_similarity"]
    assert found["group_similarity"].tolist() == [[1.0, 0.0], [1.0, 0.0]]
