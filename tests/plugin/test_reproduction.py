"""The line that a failed test shows to be run again, run again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]


def shown_lines(result: pytest.RunResult) -> list[str]:
    """What stands under the heading of each failure."""
    lines = result.outlines
    return [lines[number + 1] for number, line in enumerate(lines) if line.strip("- ") == "Reproduce"]


def rerun(pytester: pytest.Pytester, line: str) -> pytest.RunResult:
    """Run what somebody would have pasted, in a process of its own."""
    words = shlex.split(line)
    variables = dict(word.split("=", 1) for word in words[: words.index("pytest")])
    assert words[words.index("pytest")] == "pytest"
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        return pytester.runpytest_subprocess("-v", *words[words.index("pytest") + 1 :])
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_it_runs_that_one_test(judge: Judge, pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("it's here")
    (folder / "test_a.py").write_text(
        "import pytest\n\n"
        "class TestIt:\n"
        "    @pytest.mark.parametrize('word', ['a b', \"it's\"])\n"
        "    def test_bad(self, vm, word): assert False\n\n"
        "    def test_good(self, vm): pass\n"
    )
    lines = shown_lines(judge("--vm-memory=3G", "--vm-cpus=3"))
    assert len(lines) == 2
    for line in lines:
        assert "--vm-memory 3072 --vm-cpus 3" in line
        again = rerun(pytester, line)
        again.assert_outcomes(failed=1)
        assert shown_lines(again) == [line], "it is the same test, on the same image"


def test_it_can_be_pasted_where_the_run_was_started(
    judge: Judge, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    folder = pytester.mkdir("below")
    (pytester.path / "test_a.py").write_text("def test_bad(vm): assert False")
    monkeypatch.chdir(folder)
    (line,) = shown_lines(judge("..", f"--rootdir={pytester.path}"))
    assert " '../test_a.py::test_bad[server:v1]'" in line
    rerun(pytester, line).assert_outcomes(failed=1)


def test_an_image_that_a_tag_names_is_pinned(
    judge: Judge, pytester: pytest.Pytester, layout: Callable[..., str]
) -> None:
    pytester.makepyfile(test_a="def test_bad(vm): assert False")
    without_tag = layout(tag="latest").removesuffix(":latest")
    (line,) = shown_lines(judge(image=without_tag))
    assert "@sha256:" in line
    assert "[server]" not in line, "pinned, it has another id"
    rerun(pytester, line).assert_outcomes(failed=1)


def test_what_chose_the_files_is_said(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="""
        import os

        def test_bad(vm, request):
            seed = os.environ.get("BOOTC_FILES_SEED", "made up")
            request.node.user_properties.append(("files_seed", seed))
            assert seed == ""
        """
    )
    (line,) = shown_lines(judge())
    assert line.startswith("BOOTC_FILES_SEED='made up' pytest --image ")
    again = rerun(pytester, line)
    again.assert_outcomes(failed=1)
    assert shown_lines(again) == [line]


@pytest.mark.parametrize("wheel", [True, False])
def test_a_shipped_test_is_named_by_its_suite(
    judge: Judge, pytester: pytest.Pytester, install: Callable[..., Path], *, wheel: bool
) -> None:
    install(
        {
            "boot/test_boot.py": "def test_good(vm): pass\ndef test_bad(vm): assert False",
            "other/test_boot.py": "def test_bad(vm): assert False",
        },
        wheel=wheel,
    )
    lines = shown_lines(judge("--suite=other", apart=True))
    assert [line.rsplit(" ", 1)[1] for line in lines] == [
        "'boot/test_boot.py::test_bad[server:v1]'", "'other/test_boot.py::test_bad[server:v1]'"]  # fmt: skip
    for line in lines:
        again = rerun(pytester, line)
        again.assert_outcomes(failed=1, deselected=again.parseoutcomes().get("deselected", 0))
        assert shown_lines(again) == [line]


def test_a_setup_that_fails_and_a_run_without_evidence_show_it_too(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="""
        import pytest

        @pytest.fixture
        def broken(vm): assert False

        def test_it(broken): pass
        def test_that_passes(vm): pass
        """
    )
    (line,) = shown_lines(judge("--evidence=off"))
    assert line.endswith("--backend fake 'test_a.py::test_it[server:v1]'")
