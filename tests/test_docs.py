"""What the documentation says agrees with the code."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from behave.parser import parse_feature

from pytest_bootc import cli, options
from pytest_bootc.collection import suite_names
from pytest_bootc.features.steps import definitions_of
from pytest_bootc.machine import inject, qemu_command
from pytest_bootc.verdict import ExitStatus

ROOT = Path(__file__).parents[1]
README, CHANGELOG = ROOT / "README.md", ROOT / "CHANGELOG.md"
TUTORIAL, HOW_TO, STEPS = ROOT / "docs/tutorial.md", ROOT / "docs/how-to.md", ROOT / "docs/steps.md"
REFERENCE, EXPLANATION, COVERAGE = ROOT / "docs/reference.md", ROOT / "docs/explanation.md", ROOT / "docs/coverage.md"
PAGES = [README, CHANGELOG, ROOT / "CONTRIBUTING.md", TUTORIAL, HOW_TO, REFERENCE, STEPS, EXPLANATION]
FLAGS = {option.flag for option in options.OPTIONS}
OTHERS_FLAGS = {
    "--junitxml",
    "--trace",
    "--alluredir",
    "--format",
    "--all",
    "--device",
    "--rm",
    "--bind",
    "--directory",
    "--clean-alluredir",
    "--dist",
    "--durations",
    "--lf",
    "--pdb",
    "--random",
    "--randomly-seed",
    "--tags",
}


def flags_of(command: argparse.ArgumentParser) -> set[str]:
    """The options of a command and of all below it."""
    below = [action.choices for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    return set(command._option_string_actions).union(
        *(flags_of(choice) for choices in below for choice in choices.values())
    )


COMMANDS_FLAGS = flags_of(cli.parser())

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page.read_text())


def section(page: Path, heading: str) -> str:
    """The text under a heading of the second level."""
    found = re.search(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text())
    assert found is not None, f"{page.name} has no section {heading!r}"
    return found[1]


def first_column(text: str) -> list[str]:
    """What stands in the first column of a table, without its head."""
    return re.findall(r"(?m)^\| *(.*?) *\|", text)[2:]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [REFERENCE, STEPS, COVERAGE], ids=lambda page: page.name)
def test_the_generated_pages_are_what_the_code_says(page: Path) -> None:
    assert page.read_text() == load_generator().PAGES[page.name](), "run `.venv/bin/python docs/generate.py`"


def test_features_in_the_docs_are_made_of_steps_that_there_are() -> None:
    """Those of the section that does without Python, that is."""
    examples = re.findall(r"(?ms)^```gherkin\n(.*?)^```$", section(HOW_TO, "Write a scenario without Python"))
    steps = [step for text in examples for scenario in parse_feature(text).scenarios for step in scenario.all_steps]
    assert len(steps) > 10
    assert [step.name for step in steps if not list(definitions_of(step.name))] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), f"{target}: there is no such file"
        headings = re.findall(r"(?m)^#+ (.*)$", file.read_text()) if file.suffix == ".md" else []
        anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, f"{target}: there is no such heading"


@each_page
def test_options_and_variables_exist(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= FLAGS | OTHERS_FLAGS | COMMANDS_FLAGS
    variables = {option.variable for option in options.OPTIONS}
    assert set(re.findall(r"BOOTC_[A-Z_]+", text)) <= variables
    keys = {option.dest for option in options.OPTIONS}
    assert set(re.findall(r"(?m)^(bootc_[a-z_]+) =", text)) <= keys


@each_page
def test_suites_and_scripts_exist(page: Path) -> None:
    text = page.read_text()
    for words in re.findall(r"--suite ([a-z,]+)", text):
        assert set(words.split(",")) <= set(suite_names())
    for script in re.findall(r"(?<![\w/])(scripts/\w+|docs/\w+\.\w+|tests/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), f"there is no {script}"


@pytest.mark.parametrize("page", [README, TUTORIAL, HOW_TO], ids=lambda page: page.name)
def test_python_uses_what_there_is(page: Path) -> None:
    """The fixtures of examples, and the methods that are called on them, are in the reference."""
    reference = REFERENCE.read_text()
    fixtures = set(first_column(section(REFERENCE, "Fixtures")))
    examples = blocks(page, "python")
    assert examples
    for example in examples:
        for node in ast.walk(ast.parse(example)):
            # The other arguments of a step come from its text.
            if isinstance(node, ast.FunctionDef) and [name.arg for name in node.args.args[:1]] != ["context"]:
                assert {f"`{argument.arg}`" for argument in node.args.args} <= fixtures
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id != "dataclasses":
                if node.value.id == "context":
                    assert f"`{node.attr}`" in fixtures
                    continue
                assert node.value.id == "pytest" or re.search(rf"#### `{node.attr}[(:]", reference)


def test_every_option_of_the_readme_has_its_place() -> None:
    flags = {word for row in first_column(section(README, "Options")) for word in re.findall(r"--[a-z-]+", row)}
    assert flags <= FLAGS
    assert {"--image", "--suite", "--host", "--disk"} <= flags


def test_the_readme_has_every_exit_status() -> None:
    told = {int(number) for row in first_column(section(README, "Exit status")) for number in re.findall(r"\d+", row)}
    assert told == {int(status) for status in ExitStatus}


def test_the_readme_prints_what_its_test_would() -> None:
    (example,) = blocks(README, "python")
    (output,) = (block for block in blocks(README, "console") if "bootc: " in block)
    tests = re.findall(r"(?m)^def test_", example)
    assert f"collected {len(tests)} items" in output
    assert f"tests: {len(tests)} pass" in output
    assert len(example.splitlines()) <= 14
    assert example in blocks(TUTORIAL, "python")


def test_the_files_that_come_with_a_machine_are_told() -> None:
    told = [name.strip("`") for name in first_column(section(EXPLANATION, "What the machine brings along"))]
    files = inject.guest_files(inject.Identity.generate(), ["sshd.service"])
    assert told == [file.path for file in files]


def test_the_kernels_arguments_are_told() -> None:
    text = section(EXPLANATION, "The kernel's arguments")
    assert [name.strip("`") for name in first_column(text)] == list(qemu_command._LIVE_ARGUMENTS)
    emulation = text.partition("in emulation only")[2]
    assert tuple(re.findall(r"`([^`]+)`", emulation)) == qemu_command._TCG_ARGUMENTS


def test_the_container_has_what_setup_installs() -> None:
    setup = (ROOT / "scripts/setup").read_text()
    table = re.search(r"(?s)run_programs='\n(.*?)'", setup)
    assert table is not None
    packages = {line.split()[1] for line in table[1].splitlines()}
    installed = (ROOT / "Containerfile").read_text().partition("apt-get install")[2].partition("&&")[0]
    assert packages | {"erofs-utils"} <= set(installed.split())


def test_the_changelog_has_a_place_for_what_comes() -> None:
    headings = re.findall(r"(?m)^## (.*)$", CHANGELOG.read_text())
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
