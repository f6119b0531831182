"""Truth of text: what samples hold, which characters decide, and what a token was worth."""

import numpy as np
import pytest
import torch
from tiny_text import TAUGHT, taught_model

from t2i_credit.errors import ConfigError
from t2i_credit.measure.truth.assigners import parse_assigner
from t2i_credit.measure.truth.text import causality, deciding_tokens, specificity, truth_of_text
from t2i_credit.models.text_model import build_text_model, build_tokenizer
from t2i_credit.text.sampling import TextSamples, next_logprobs, rewards_of, sample
from t2i_credit.worlds.pretrain.text import to_tensors

PROMPT = "17+25*3:"


@pytest.fixture(scope="module")
def pupil():
    return taught_model()


def samples_of(texts, group_size=1, prompt=PROMPT):
    """Hand-made samples of one problem, one token per character and one for the end."""
    length = max(map(len, texts)) + 1
    mask = torch.arange(length) <= torch.tensor([len(text) for text in texts])[:, None]
    zeros = torch.zeros(mask.shape)
    return TextSamples(
        prompts=[prompt] * len(texts),
        group_size=group_size,
        rows=[[1]] * len(texts),
        texts=list(texts),
        tokens=zeros.long(),
        mask=mask,
        rewards=rewards_of([prompt] * len(texts), texts),
        logprobs=zeros,
        negative_logprobs=zeros,
        entropy=zeros,
        full_kl=zeros,
    )


# Samples ----------------------------------------------------------------------------------------------------------


def test_padding_changes_no_log_probability(pupil):
    model, tokenizer = pupil
    rows = [tokenizer(prompt)["input_ids"] for prompt in TAUGHT]
    added = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TAUGHT.values()]
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in added], True)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([len(one) for one in added])[:, None]
    together = next_logprobs(model, rows, tokens, mask)
    for b, (row, one) in enumerate(zip(rows, added, strict=True)):
        alone = model(torch.tensor([row + one])).logits[0, len(row) - 1 : -1].log_softmax(-1)
        assert torch.allclose(together[b, : len(one)], alone, atol=1e-5)


def test_samples_hold_what_both_prompts_think_of_each_token(pupil):
    model, tokenizer = pupil
    found = sample(model, tokenizer, list(TAUGHT), ["1+2:", "17+25*3:"], group_size=3, seed=0)
    assert found.prompts == [prompt for prompt in TAUGHT for _ in range(3)]
    ends = found.mask.sum(1)
    for b, text in enumerate(found.texts):
        assert tokenizer.decode(found.tokens[b, : ends[b]], skip_special_tokens=True) == text
        whole = torch.tensor([found.rows[b] + found.tokens[b, : ends[b]].tolist()])
        logprobs = model(whole).logits[0, len(found.rows[b]) - 1 : -1].log_softmax(-1)
        taken = found.tokens[b, : ends[b], None]
        assert torch.allclose(
            found.logprobs[b, : ends[b]], logprobs.gather(1, taken)[:, 0], atol=1e-5
        )
    assert (found.full_kl >= -1e-5).all() and found.full_kl.max() > 0.1
    assert not torch.equal(found.logprobs, found.negative_logprobs)
    for values in (found.logprobs, found.negative_logprobs, found.entropy, found.full_kl):
        assert (values[~found.mask] == 0).all()
    # the pupil knows one right answer and one wrong one
    assert found.rewards.view(2, 3).mean(1).tolist() == [1.0, 0.0]


# Specificity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decisive", "filler"),
    [
        # a wrong result decides; fillers are the words
        (" first 25*3=65, so 17+65=82 #82", None, None),  # "so" is no link: malformed
        (
            " first 25*3=65, 17+65=82 so #82",
            "............^^..................",
            ".^^^^^...................^^....",
        ),
        # a right chain is decided where it could have gone wrong: 17+75 carries, 25*3 is easy
        (
            " 25*3=75, then 17+75=92 #92",
            ".....................^^.....",
            "..........^^^^..............",
        ),
        # the sum before the product: its operands
        (" 17+25=42, 42*3=126 #126", ".^^.^^..................", "........................"),
        # all steps right, another answer announced
        (" 25*3=75, 17+75=92 #93", "....................^^", "......................"),
        # two wrong steps that make a right answer: nothing is to be blamed
        (" 25*3=65, 17+65=92 #92", None, None),
    ],
)
def test_the_deciding_characters_are_those_of_the_step_that_went_or_could_go_wrong(
    text, decisive, filler
):
    found = deciding_tokens(PROMPT, text, len(text) + 3)
    if decisive is None:
        assert found is None
        return
    shown = ["".join(".^"[int(one)] for one in marks) for marks in found]
    assert [marks.rstrip(".") for marks in shown] == [decisive.rstrip("."), filler.rstrip(".")]
    assert all(len(marks) == len(text) + 3 for marks in found)


def test_credit_on_the_deciding_digits_is_specific_and_credit_on_filler_words_is_not():
    texts = [" first 25*3=65, 17+65=82 so #82", " 25*3=75, then 17+75=92 #92"]
    samples = samples_of(texts)
    scores = {
        "digits": torch.zeros(samples.mask.shape),
        "words": torch.zeros(samples.mask.shape),
        "uniform": samples.mask.float(),
    }
    for b, text in enumerate(texts):
        decisive, filler = deciding_tokens(PROMPT, text, samples.tokens.shape[1])
        scores["digits"][b, decisive] = 5.0
        scores["words"][b, filler] = 5.0
    found = specificity(samples, scores)
    for outcome, text in (("wrong", texts[0]), ("right", texts[1])):
        row = found[outcome]
        assert row["samples"] == 1
        assert row["share"][0] == pytest.approx(2 / (len(text) + 1))  # two digits, and the end
        by_name = {
            name: {k: v[0] for k, v in one.items()} for name, one in row["assigners"].items()
        }
        assert by_name["digits"] == {
            "auroc": 1.0,
            "against_filler": 1.0,
            "lift": pytest.approx((len(text) + 1) / 2),
        }
        assert by_name["uniform"] == {
            "auroc": 0.5,
            "against_filler": 0.5,
            "lift": pytest.approx(1.0),
        }
        assert by_name["words"]["against_filler"] == 0.0 and by_name["words"]["lift"] == 0.0


def test_samples_without_a_deciding_step_are_left_out():
    found = specificity(samples_of([" 25*3", " 25*3=65, 17+65=92 #92"]), {"one": torch.ones(2, 23)})
    assert found["right"]["samples"] == found["wrong"]["samples"] == 0
    assert np.isnan(found["wrong"]["assigners"]["one"]["auroc"][0])


# Causality --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undecided():
    """A tiny model that answers 18 or 8, and says "so" or not, each as often as not."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_text_model(tokenizer, hidden_size=32, layers=2, heads=2)
    texts = [f" 9+9={n}{word} #{n}" for n in (18, 8) for word in (" so", "")]
    lesson = to_tensors(tokenizer, [("9+9:", text) for text in texts])
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model(**lesson).loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


def test_the_token_that_decides_is_worth_the_reward_and_a_filler_word_nothing(undecided):
    model, tokenizer = undecided
    samples = sample(model, tokenizer, ["9+9:"], ["9+9, answer wrongly:"], group_size=300, seed=0)
    assert 0.4 < samples.rewards.mean() < 0.6  # standard deviation 0.029
    digit = torch.zeros(samples.mask.shape)
    digit[:, 5] = 1.0  # " 9+9=" and then 1 or 8
    noise = torch.rand(digit.shape, generator=torch.Generator().manual_seed(0))
    told = []
    found = causality(
        model,
        tokenizer,
        samples,
        {"digit": digit, "random": noise},
        seed=1,
        done=lambda: told.append(1),
    )
    assert len(told) == 4
    # Of 300, a quarter has a fresh draw at neither place, and a quarter each at the digit, at the word, at both. Where
    # the digit is drawn afresh the answer turns: worth 1; the word is worth 0. Highest takes the digit wherever it can:
    # 2 of 3; lowest takes it where it must: 1 of 3. Standard deviation sqrt(0.22 / 225) = 0.031.
    row = found["assigners"]["digit"]
    assert abs(row["highest"]["all"][0] - 2 / 3) < 0.13
    assert abs(row["lowest"]["all"][0] - 1 / 3) < 0.13
    assert abs(found["changeable"] - 1.0) < 0.2
    # at random the place is either where both could be changed: 1 of 2
    assert abs(found["assigners"]["random"]["highest"]["all"][0] - 1 / 2) < 0.13
    for outcome in ("right", "wrong"):
        assert abs(row["highest"][outcome][0] - 2 / 3) < 0.18


def test_truth_of_text_measures_assigners_beside_the_baselines(undecided):
    model, tokenizer = undecided
    told = []
    found = truth_of_text(
        model,
        tokenizer,
        [parse_assigner("guidance_contrast"), parse_assigner("guidance_contrast,kind=full_kl")],
        problems=2,
        group_size=2,
        progress=lambda done, of: told.append((done, of)),
    )
    names = ["uniform", "random", "entropy", "guidance_contrast", "guidance_contrast,kind=full_kl"]
    assert found["samples"] == 4
    assert list(found["causality"]["assigners"]) == names
    assert list(found["specificity"]["wrong"]["assigners"]) == names
    assert told == [(n, 11) for n in range(1, 12)]


def test_an_assigner_that_reads_what_text_does_not_have_is_refused_by_name(undecided):
    with pytest.raises(ConfigError, match="visual,kind=spread: needs code_spread") as error:
        truth_of_text(*undecided, [parse_assigner("visual,kind=spread")], problems=1)
    assert "\n" not in str(error.value)
