"""The formats of prompt files: texts, tables and lists as data sets publish them, and refusals by file, line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prompt_refusals import refusal

from t2i_credit.prompts.files import load_prompts

CHOOSE = "--prompt-column of a command, prompts.column of a recipe"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a file into the current folder, so that messages show a short name."""
    monkeypatch.chdir(tmp_path)

    def _write(name: str, content: str | bytes) -> str:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return _write


def texts(name: str, **options: Any) -> list[str]:
    return [prompt.text for prompt in load_prompts(name, **options)]


def test_a_text_file_has_one_prompt_a_line(write: Any) -> None:
    # T2I-CompBench's files end their lines with CR LF, and some have letters with accents
    content = "a green bench and a red car\r\n\r\n a café \r\n"
    for coded in (content.encode(), content.encode("utf-8-sig")):
        assert texts(write("p.txt", coded)) == ["a green bench and a red car", "a café"]
    assert texts(write("p.TXT", "a\rb")) == ["a", "b"]


def test_what_stands_behind_a_tab_and_quotes_around_a_whole_line_are_no_prompt(write: Any) -> None:
    lines = ['a dog\t["a dog"]\t1', '"a cat, and a ""big"" dog"', 'a sign "STOP"', '"GO" on a wall']
    assert texts(write("p.txt", "\n".join(lines))) == [
        "a dog",
        'a cat, and a "big" dog',
        'a sign "STOP"',
        '"GO" on a wall',
    ]
    assert refusal(write("p.txt", 'a\n""\n')) == "p.txt:2: prompt is empty; a prompt needs words"


def test_a_text_file_of_json_lines_is_read_as_such(write: Any) -> None:
    (prompt,) = load_prompts(write("p.txt", '{"text": "a", "negative": "b"}\n'))
    assert (prompt.text, prompt.negative) == ("a", "b")


def test_drawbench_is_a_table_whose_column_is_called_prompts(write: Any) -> None:
    content = (
        'Prompts,Category\nA red colored car.,Colors\n"A ""cat"", a dog\nand more",Rare Words\n'
    )
    wanted = ["A red colored car.", 'A "cat", a dog\nand more']
    assert texts(write("DrawBench.csv", content)) == wanted
    assert texts(write("DrawBench.csv", "\ufeff" + content.replace("\n", "\r\n"))) == [
        wanted[0],
        wanted[1].replace("\n", "\r\n"),
    ]


def test_partiprompts_is_a_table_with_tabs_whose_quotes_are_its_own(write: Any) -> None:
    # line 1562 of PartiPrompts.tsv begins with a quote that a reader of CSV would take away
    graffiti = '"G I G G L E" painted in thick colorful lettering as graffiti on a wall'
    content = (
        f"Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tBiology\n{graffiti}\tA\tB\t\n"
    )
    assert texts(write("PartiPrompts.tsv", content)) == ["bond", graffiti]


def test_another_column_is_taken_by_name(write: Any) -> None:
    name = write("p.csv", "id,Beschreibung,prompt\n1,ein Hund,a dog\n")
    assert texts(name) == ["a dog"]
    assert texts(name, column="Beschreibung") == texts(name, column="beschreibung") == ["ein Hund"]
    name = write("p.jsonl", '{"id": 1, "promt": "a dog", "prompt": "a cat"}\n')
    assert texts(name, column="promt") == ["a dog"]


def test_a_json_list_holds_texts_or_objects(write: Any) -> None:
    items = ["a", {"Caption": "b", "id": 7}, {"prompt": "c", "negative": "d"}]
    for name in ("p.json", "p.jsonl"):
        found = load_prompts(write(name, json.dumps(items, indent=1)))
        assert [(p.text, p.negative) for p in found] == [("a", None), ("b", None), ("c", "d")]


def test_the_key_of_a_prompt_may_be_any_of_the_four_in_any_case(write: Any) -> None:
    for key in ("prompt", "PROMPTS", "Caption", "Text"):
        assert texts(write("p.jsonl", json.dumps({key: "a dog"}))) == ["a dog"]


def test_a_record_of_geneval_2_is_a_text(write: Any) -> None:
    # facebookresearch/GenEval2, geneval2_data.jsonl, line 2
    record = {
        "prompt": "seven green croissants",
        "atom_count": 3,
        "vqa_list": [["How many croissants are in the image?", "seven"]],
        "skills": ["count", "attribute", "object"],
    }
    (prompt,) = load_prompts(write("geneval2_data.jsonl", json.dumps(record) + "\n"))
    assert (prompt.text, prompt.spec) == ("seven green croissants", None)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "p.csv",
            "id,Beschreibung\n1,ein Hund\n",
            "1: no column is prompt, prompts, caption, text (its columns: 'id', 'Beschreibung'); name one with "
            + CHOOSE,
        ),
        (
            "p.csv",
            "prompt,Text\na,b\n",
            "1: several columns are prompt, prompts, caption, text (its columns: 'prompt', 'Text'); name one with "
            + CHOOSE,
        ),
        (
            "p.csv",
            "prompt,id\na,1\n\nb\n",
            "4: has 1 cells where the header has 2 ('prompt', 'id')",
        ),
        (
            "p.tsv",
            "prompt\tid\na\t1\t2\n",
            "2: has 3 cells where the header has 2 ('prompt', 'id')",
        ),
        ("p.csv", "prompt,id\n,1\n", "2: prompt is empty; a prompt needs words"),
        ("p.csv", 'prompt\n"a\n', "2: is not a row of comma-separated values (unexpected end of"),
        ("p.csv", 'prompt\n"GO" on a wall\n', "2: is not a row of comma-separated values ('"),
        ("p.json", "[3]", " item 1: must be a text or an object like {'text': ...}, got 3"),
        (
            "p.json",
            '["a",\n "b"',
            " is not JSON (Expecting ',' delimiter, line 2, column 5); one o",
        ),
        (
            "p.json",
            '[{"id": 3}]',
            " item 1: lacks the prompt, no key is prompt, prompts, caption, ",
        ),
        ("p.json", "[]", " holds no prompt"),
        ("p.txt", "\n \n", " holds no prompt"),
        ("p.csv", "prompt\n", " holds no prompt"),
        ("p.csv", "", "1: no column is prompt, prompts, caption, text (its columns: none); name"),
        ("p.txt", "a dog".encode("utf-16"), " is not a text file (UTF-8); prompt files are .jsonl"),
        ("p.txt", "a dog".encode("utf-16-le"), " is not a text file (UTF-8); prompt files are .j"),
    ],
)
def test_a_wrong_file_is_refused_by_name_line_and_what_is_allowed(
    write: Any, name: str, content: str | bytes, problem: str
) -> None:
    assert refusal(write(name, content)).startswith(f"{name}:{problem}")


def test_a_column_that_is_not_there_is_refused_with_those_that_are(write: Any) -> None:
    message = refusal(write("p.tsv", "Prompt\tNote\na\tb\n"), column="caption")
    assert message.startswith("p.tsv:1: no column is 'caption' (its columns: 'Prompt', 'Note')")
    message = refusal(write("p.jsonl", '{"prompt": "a"}'), column="caption")
    assert message.startswith(
        "p.jsonl:1: lacks the prompt, no key is 'caption' (its keys: 'prompt')"
    )
    message = refusal(write("p.txt", "a\n"), column="caption")
    assert message == f"p.txt: has no columns, and 'caption' was asked for ({CHOOSE})"
