"""What the documentation says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actorstore.event import Event
from actorstore.payload import PAYLOADS
from actorstore.state import RULES

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
ROW = re.compile(r"^\| `([a-z_.]+)` \| (.*?) \| ?(.*?) ?\|$", re.MULTILINE)


def section(heading: str) -> str:
    text = (ROOT / "docs/events.md").read_text()
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_table_of_rules_says_what_each_rule_says_of_itself():
    documented = {type: effect for type, effect, _ in ROW.findall(section("Rules"))}
    assert documented == {type: (rule.__doc__ or "").strip() for type, rule in RULES.items()}


def test_the_table_of_rules_names_a_payload_where_a_rule_has_one():
    documented = {type for type, _, payload in ROW.findall(section("Rules")) if payload}
    assert documented == set(PAYLOADS)


def test_the_table_of_fields_has_every_field_in_order():
    assert [name for name, _, _ in ROW.findall(section("Fields"))] == list(Event.__struct_fields__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_on_the_page_runs(page: Path):
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(code, str(page), "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_what_the_readme_prints_is_what_it_says(capsys: pytest.CaptureFixture[str]):
    code = re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert code is not None
    exec(compile(code[1], "README.md", "exec"), {"__name__": "docs"})
    assert f"# {capsys.readouterr().out}" in code[1].replace("    # ", "# ")
