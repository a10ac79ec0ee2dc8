"""What the documents say: their code runs, their output is real, their links lead somewhere."""

from __future__ import annotations

import ast
import re
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from itertools import pairwise
from pathlib import Path

import pytest

from fastmlp.cli import main

ROOT = Path(__file__).resolve().parents[1]
READMES = ["README.md", "README.ko.md"]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
)

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALL_AND_RUN = 'pip install ".[demo]" && fastmlp train digits'
INSTALL_AND_TEST = 'pip install ".[test]" && pytest'


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[tuple[str, str]]:
    """The (language, content) of every fenced block."""
    return FENCED.findall(read(document))


def assert_shown(shown: str, printed: str) -> None:
    """`shown` is what was printed, figures aside; "..." stands for anything."""
    shown, printed = (re.sub(r"\d[\d,.]*", "0", text) for text in (shown, printed))
    flags = ELLIPSIS | NORMALIZE_WHITESPACE
    assert OutputChecker().check_output(shown, printed, flags), f"shown:\n{shown}\nbut:\n{printed}"


@pytest.mark.parametrize("readme", READMES)
def test_python_blocks_run_and_print_what_is_shown(readme, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    found = [*blocks(readme), ("", "")]
    for (language, code), (next_language, text) in pairwise(found):
        if language == "python":
            exec(compile(code, readme, "exec"), names)
            printed = capsys.readouterr().out
            assert_shown(text if next_language == "text" else "", printed)


@pytest.mark.parametrize("readme", READMES)
def test_the_first_command_prints_what_is_shown(readme, tmp_path, monkeypatch, capsys):
    found = blocks(readme)
    assert found[0] == ("sh", f"{INSTALL_AND_RUN}\n")
    monkeypatch.chdir(tmp_path)
    assert main(INSTALL_AND_RUN.split(" && fastmlp ")[1].split()) == 0
    assert_shown(found[1][1], capsys.readouterr().out)
    assert Path("model.safetensors").stat().st_size > 0


@pytest.mark.parametrize("readme", READMES)
def test_the_second_command_is_there(readme):
    assert ("sh", f"{INSTALL_AND_TEST}\n") in blocks(readme)


def outline(document: str) -> list[str]:
    """The levels of the headings, in order."""
    return re.findall(r"^#+(?= )", FENCED.sub("", read(document)), flags=re.MULTILINE)


def code(document: str) -> list[str]:
    """Every fenced block; of Python only what is executed, since comments are translated."""
    return [
        ast.dump(ast.parse(content)) if language == "python" else content
        for language, content in blocks(document)
    ]


def test_the_readmes_say_the_same():
    english, korean = READMES
    assert outline(english) == outline(korean)
    assert code(english) == code(korean)
    marks = [re.findall(r"<!-- .*? -->", read(readme)) for readme in READMES]
    assert marks[0] == marks[1]


def anchors(path: Path) -> set[str]:
    """The names that a page gives its headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_lead_somewhere(document):
    page, text = ROOT / document, read(document)
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), anchor
    folders = r"\.ci|bench|cmake|csrc|docs|examples|python|tests"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def test_contributing_names_what_the_build_needs():
    table = re.search(r"^requires = \[(.*?)^\]", read("pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert table
    for requirement in re.findall(r'"(.+?)"', table[1]):
        assert f'"{requirement}"' in read("CONTRIBUTING.md")


COURSES = ["docs/course.md", "docs/course.ko.md"]


def test_the_courses_say_the_same():
    english, korean = COURSES
    assert outline(english) == outline(korean)
    assert code(english) == code(korean)
    for link in (r"\]\(\.\./examples/(.*?)\)", r"\]\((figures/.*?)\)"):
        assert re.findall(link, read(english)) == re.findall(link, read(korean))


@pytest.mark.parametrize("course", COURSES)
def test_a_course_has_every_lesson_in_order(course):
    lessons = sorted(path.name for path in (ROOT / "examples").glob("lesson_*.py"))
    assert re.findall(r"\]\(\.\./examples/(.*?)\)", read(course)) == lessons
    assert re.findall(r"^## (\d+)\. ", read(course), re.MULTILINE) == [
        str(number) for number in range(1, len(lessons) + 1)
    ]


def test_figures_are_shown_and_small():
    figures = {path.name: path.stat().st_size for path in (ROOT / "docs" / "figures").glob("*.png")}
    assert sorted(re.findall(r"\]\(figures/(.*?)\)", read(COURSES[0]))) == sorted(figures)
    assert max(figures.values()) < 60_000
