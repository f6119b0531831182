"""The arithmetic world: problems, chains, checker, mistakes, and what each character is."""

import re
from collections import Counter

import numpy as np
import pytest

from t2i_credit.errors import PromptError
from t2i_credit.worlds.arithmetic.chains import LINKS, OPENERS, check, judge, labels, parse, write
from t2i_credit.worlds.arithmetic.mistakes import (
    EASY,
    HARD,
    SLIPS,
    hazards,
    is_hard,
    noisy,
    systematic,
    wrong,
    wrong_results,
)
from t2i_credit.worlds.arithmetic.problems import (
    MOST_HARD,
    STEP_SHARES,
    STEPS,
    dataset,
    draw_question,
    problem,
)
from t2i_credit.worlds.arithmetic.questions import (
    LARGEST,
    Question,
    Step,
    negative,
    read,
    wording,
    work,
)

# Questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "steps"),
    [
        ("17+25*3", ["25*3=75", "17+75=92"]),
        ("50-20-10", ["50-20=30", "30-10=20"]),  # from the left, not 50-(20-10)
        ("2*5+3*4", ["2*5=10", "3*4=12", "10+12=22"]),  # both products before the sum
        ("40-3*5+2", ["3*5=15", "40-15=25", "25+2=27"]),
        ("9+9", ["9+9=18"]),
    ],
)
def test_products_are_worked_first_and_then_from_left_to_right(question, steps):
    assert [str(step) for step in work(read(f"{question}:"))] == steps


def test_a_wrong_result_is_carried_on_by_the_steps_that_follow():
    steps = work(read("17+25*3:"), changes={0: 65})
    assert [str(step) for step in steps] == ["25*3=65", "17+65=82"]


def test_both_wordings_and_the_negative_prompt_ask_the_same_question():
    question = Question((17, 25, 3), ("+", "*"))
    assert wording(question, words=False) == "17+25*3:"
    assert wording(question, words=True) == "17 plus 25 times three:"
    assert negative("17 plus 25 times three:") == "17 plus 25 times three, answer wrongly:"
    for words in (False, True):
        prompt = wording(question, words=words)
        assert read(prompt) == read(negative(prompt)) == question


@pytest.mark.parametrize(
    "prompt",
    [
        *(
            "",
            ":",
            "17+25",
            "17:",
            "+:",
            "17+:",
            "+3:",
            "017+2:",
            "100+2:",
            "1++2:",
            "1/2:",
            "2**3:",
        ),
        *(
            "one plus:",
            "plus one:",
            "ten plus 2:",
            "1 7+2:",
            "1 + 2:",
            "one+two:",
            "1 plus plus 2:",
        ),
        *("17+25: ", " 17+25:", "1  plus 2:", "__import__('os'):", "1+2, answer:", "1+2=3:"),
    ],
)
def test_a_text_that_is_no_problem_is_refused_in_one_line(prompt):
    for refuses in (read, negative):
        with pytest.raises(PromptError, match="not a problem") as error:
            refuses(prompt)
        assert repr(prompt) in str(error.value) and "\n" not in str(error.value)


def test_a_prompt_that_asks_for_a_wrong_answer_has_no_second_negative():
    with pytest.raises(PromptError, match="already"):
        negative(negative("1+2:"))


# Problems ---------------------------------------------------------------------------------------------------------


def test_a_problem_comes_with_a_right_chain_of_numbers_within_range():
    rng = np.random.default_rng(0)
    for _ in range(300):
        drawn = problem(rng)
        verdict = judge(drawn.prompt, drawn.chain)
        assert (verdict.kind, verdict.correct) == ("right", True), drawn
        assert check(drawn.chain, drawn.answer)
        steps = work(read(drawn.prompt))
        assert all(1 <= step.result <= LARGEST for step in steps)
        assert sum(map(is_hard, steps)) <= MOST_HARD


def test_problems_have_as_many_steps_as_was_asked_for():
    rng = np.random.default_rng(0)
    for count in STEPS:
        assert len(parse(problem(rng, steps=count).chain).steps) == count
    drawn = Counter(len(draw_question(rng).operators) for _ in range(3000))
    for count, share in zip(STEPS, STEP_SHARES, strict=True):
        # standard deviation at most sqrt(0.25 / 3000) = 0.0091
        assert abs(drawn[count] / 3000 - share) < 0.04, count


def test_a_dataset_holds_different_problems_and_a_longer_one_begins_with_a_shorter():
    rows = dataset(200, seed=3)
    assert rows[:50] == dataset(50, seed=3)
    assert rows != dataset(200, seed=4)
    assert len({read(row["prompt"]) for row in rows}) == 200
    for row in rows:
        assert set(row) == {"prompt", "answer", "gold"}
        assert check(row["gold"], row["answer"])


def test_no_question_is_in_both_splits_whatever_its_wording():
    held = {read(row["prompt"]) for row in dataset(300, 0, "heldout")}
    seen = {read(row["prompt"]) for row in dataset(2000, 0, "train")}
    assert not held & seen
    assert {question.split for question in held} == {"heldout"}
    assert {question.split for question in seen} == {"train"}


def test_one_question_in_eight_is_held_out():
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 100, size=(4000, 3)).tolist()
    share = np.mean([Question(tuple(n), ("+", "-")).split == "heldout" for n in numbers])
    assert abs(share - 1 / 8) < 0.025  # standard deviation sqrt(0.109 / 4000) = 0.0052


def test_an_unknown_split_or_number_of_steps_is_refused():
    with pytest.raises(PromptError, match="split: 'test' is not allowed; allowed: train, heldout"):
        dataset(1, 0, split="test")
    with pytest.raises(PromptError, match="steps: 5 is not allowed; allowed: 2, 3, 4"):
        problem(np.random.default_rng(0), steps=5)


# Chains -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "completion",
    [
        " 25*3=75, 17+75=92 #92",
        "25*3=75, 17+75=92 #92",
        " first 25*3=75, then 17+75=92 so #92",
        " well, 25*3=75, now 17+75=92 thus #92",
        " 25*3=74, 17+75=92 #92",  # the steps are not judged
        " 1+1=2 #92",
    ],
)
def test_a_well_formed_chain_that_announces_the_answer_is_right(completion):
    assert check(completion, 92)
    assert not check(completion, 91)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        " #92",  # an answer without work
        " 25*3=75, 17+75=92",
        " 25*3=75, 17+75=92 #",
        " 25*3=75, 17+75=92 #92 ",
        " 25*3=75, 17+75=92 #92\n",
        " 25*3=75, 17+75=92 #92 #92",
        " 25*3=75, 17+75=92 #092",
        " 25*3=75, 17+75=92 #+92",
        " 25*3=75, 17+75=92 #9 2",
        " 25*3=75, 17+75=92 #91+1",
        " 25*3=75, 17+75=92 # 92",
        " 25*3=75 17+75=92 #92",
        " 25*3=75,17+75=92 #92",
        " 25*3=, 17+75=92 #92",
        " 25*3=75, 17+=92 #92",
        " 25/3=75, 17+75=92 #92",
        " 25*3=75, first 17+75=92 #92",  # an opener is no link
        " then 25*3=75, 17+75=92 #92",
        "  25*3=75, 17+75=92 #92",
        " 25*3=75, 17+75=92 so thus #92",
        " ２５*3=75, 17+75=92 #92",  # digits, but not ours
        " __import__('os')=1 #92",
        " 25*3=75, 17+75=92 #" + "9" * 5000,
    ],
)
def test_a_chain_with_one_character_out_of_place_is_never_right(completion):
    assert parse(completion) is None
    assert not check(completion, 92)
    assert judge("17+25*3:", completion).kind == "malformed"


@pytest.mark.parametrize(
    ("completion", "kind", "wrong_steps", "correct"),
    [
        (" 25*3=75, 17+75=92 #92", "right", (), True),
        (" 25*3=65, 17+65=82 #82", "slip", (0,), False),
        (" 25*3=75, 17+75=82 so #82", "slip", (1,), False),
        (" 25*3=75, 17+75=92 #82", "slip", (2,), False),  # the announcement
        (" 25*3=65, 17+65=92 #92", "slips", (0, 1), True),  # two wrongs make a right
        (" 17+25=42, 42*3=126 #126", "lost", (0,), False),  # the sum before the product
        (" 25*3=65, 17+75=92 #92", "lost", (0, 1), True),  # not carried on
        (" 25*3=75 #75", "lost", (1,), False),
        (" 25*3=75, 17+75=92, 92+1=93 #93", "lost", (2,), False),
    ],
)
def test_the_verdict_names_the_wrong_steps(completion, kind, wrong_steps, correct):
    verdict = judge("17+25*3:", completion)
    assert (verdict.kind, verdict.wrong, verdict.correct) == (kind, wrong_steps, correct)
    assert verdict.decisive == (wrong_steps[0] if wrong_steps else None)
    assert judge("17 plus 25 times three, answer wrongly:", completion) == verdict


def test_every_character_has_its_role_and_step():
    found = labels(" first 25*3=75, then 17+75=92 so #92")
    roles = {"glue": ".", "filler": "f", "operand": "o", "result": "r", "answer": "a"}
    assert "".join(roles[role] for role in found.role) == ".fffff.oo.o.rr..ffff.oo.oo.rr.ff..aa"
    steps = "".join("." if step < 0 else str(step) for step in found.step)
    assert steps == ".......0000000.......11111111.....22"
    assert labels(" 25*3=75") is None


def test_filler_words_are_drawn_and_change_nothing():
    steps = work(read("17+25*3:"))
    rng = np.random.default_rng(0)
    chains = {write(steps, rng) for _ in range(400)}
    assert len(chains) == len(OPENERS) * len(LINKS) * 3  # 48 combinations, each missed with e^-8
    assert {judge("17+25*3:", chain).kind for chain in chains} == {"right"}
    assert write(steps) == " 25*3=75, 17+75=92 #92"


# Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "mistake"),
    [
        (Step(17, "+", 25, 42), 32),  # 7 + 5 carries a ten, forgotten
        (Step(52, "-", 17, 35), 45),  # 2 - 7 borrows a ten, not paid back
        (Step(8, "*", 7, 56), 48),  # 8 * 6
        (Step(17, "+", 22, 39), None),
        (Step(52, "-", 11, 41), None),
        (Step(52, "-", 12, 40), None),
        (Step(15, "+", 5, 20), 10),
        (Step(19, "*", 5, 95), None),  # a small second factor
    ],
)
def test_hard_steps_have_one_systematic_mistake(step, mistake):
    assert is_hard(step) == (mistake is not None)
    if mistake is not None:
        assert systematic(step) == mistake


def test_a_mistake_leaves_every_later_result_within_range():
    question = read("17+25*3:")
    # 25*3 is easy: 75 + off; 17 + 85 would leave the range, so +10 is no slip here
    assert wrong_results(question, 0) == [65, 73, 74, 76, 77]
    assert wrong_results(question, 1) == [82]
    # 91-2=89 is hard, but 99+5 would leave the range; 89+5=94 forgets its ten
    assert wrong_results(read("91-2+5:"), 0) == []
    assert hazards(read("91-2+5:")) == [0.0, HARD]


def test_noisy_chains_go_wrong_at_most_once_and_as_often_as_their_steps_tempt():
    question, rng, count = read("17+25*3:"), np.random.default_rng(0), 4000
    verdicts = [judge("17+25*3:", noisy(question, rng)) for _ in range(count)]
    assert {verdict.kind for verdict in verdicts} == {"right", "slip"}
    shares = Counter(verdict.decisive for verdict in verdicts)
    # the easy step goes wrong with EASY, the hard one with HARD where the easy one did not; standard deviations below
    # sqrt(0.25 / 4000) = 0.0079
    for step, share in (
        (0, EASY),
        (1, (1 - EASY) * HARD),
        (None, (1 - EASY) * (1 - HARD)),
    ):
        assert abs(shares[step] / count - share) < 0.035, step
    assert all(verdict.correct == (verdict.decisive is None) for verdict in verdicts)


@pytest.mark.parametrize(
    ("prompt", "results"),
    [
        ("17+25*3:", {(75, 82)}),  # the one hard step forgets its ten
        (
            "17+28-9:",
            {(35, 26)},
        ),  # 45 - 10; 35 - 9 borrows too, and 36 = right would come out: once only
        ("17+28+9:", {(35, 34)}),  # both forget their ten
        ("2+3*2:", {(6, 8 + off) for off in SLIPS if 8 + off >= 1}),
    ],
)
def test_wrong_chains_go_wrong_wherever_it_is_hard(prompt, results):
    rng = np.random.default_rng(0)
    chains = [wrong(read(prompt), rng) for _ in range(200)]
    verdicts = [judge(prompt, chain) for chain in chains]
    assert not any(verdict.correct for verdict in verdicts)
    assert {tuple(map(int, re.findall(r"=(\d+)", chain))) for chain in chains} == results


def test_a_wrong_chain_never_has_the_right_answer():
    rng = np.random.default_rng(0)
    drawn = [draw_question(rng) for _ in range(2000)]
    chains = [(f"{question}:", chain) for question in drawn if (chain := wrong(question, rng))]
    assert len(chains) > 1900
    kinds = Counter(judge(prompt, chain).kind for prompt, chain in chains)
    assert set(kinds) == {"slip", "slips"} and kinds["slips"] > 100
    assert not any(judge(prompt, chain).correct for prompt, chain in chains)


def test_a_question_without_room_for_a_mistake_has_no_wrong_chain():
    assert wrong(read("1+9:"), np.random.default_rng(0)) is None  # the ten forgotten leaves 0
    assert judge("1+9:", noisy(read("1+9:"), np.random.default_rng(0))).kind == "right"


def test_chains_come_again_from_the_same_seed():
    question = read("17+25*3:")
    for make in (noisy, wrong):
        chains = [[make(question, np.random.default_rng(7)) for _ in range(3)] for _ in "ab"]
        assert chains[0] == chains[1]
