"""The marker needs: words are probed once per machine, and an unmet one skips the test and is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]

MET = """
[[control]]
match = "command -v 'odd name';"
[[control]]
match = "systemctl cat sshd.service;"
[[control]]
match = "test -e /etc/os-release;"
"""


def test_words(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script(MET)
    pytester.makepyfile(
        """
        import pytest
        needs = pytest.mark.needs

        @needs("program:odd name", "unit:sshd.service", "file:/etc/os-release", "network")
        def test_met(vm): pass

        @needs("program:sh")
        def test_program(vm): pass

        @needs("unit:other.service")
        @needs("file:/nowhere", "program:sh")
        def test_several(vm): pass

        @needs("live")
        def test_live(vm): pass
        """
    )
    result = judge("-rs")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*needs program:sh",
            "SKIPPED*needs file:/nowhere, program:sh, unit:other.service",
            "SKIPPED*needs live",
            "  skipped for unmet needs: file:/nowhere (1), live (1), program:sh (2), unit:other.service (1)",
        ]
    )


def test_the_network_that_was_not_given(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.needs('network')\ndef test_it(vm): pass")
    judge("--vm-network=restricted").assert_outcomes(skipped=1)
    judge("--vm-network=user").assert_outcomes(passed=1)


def test_a_word_is_probed_once_per_machine(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script(MET)
    pytester.makeconftest(
        """
        import pytest
        from pytest_bootc.machine.fake import FakeMachine
        asked = []
        answer = FakeMachine.control
        FakeMachine.control = lambda self, command, deadline: asked.append(command) or answer(self, command, deadline)
        @pytest.fixture
        def probes(): return [command for command in asked if "base-check" not in command]
        """
    )
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.needs("unit:sshd.service")
        @pytest.mark.parametrize("n", range(3))
        def test_it(vm, n, probes): assert len(probes) == 1
        """
    )
    judge(apart=True).assert_outcomes(passed=3)


@pytest.mark.parametrize("word", ["programm:sh", "program:", "lvie"])
def test_a_word_that_does_not_exist(judge: Judge, pytester: pytest.Pytester, word: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.needs({word!r})\ndef test_it(vm): pass")
    result = judge()
    assert result.ret == 4
    result.stdout.fnmatch_lines([f"*the marker needs does not know '{word}'*"])


def test_needs_without_a_machine(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.needs('live')\ndef test_it(): pass")
    result = judge()
    assert result.ret == 4
    result.stdout.fnmatch_lines(["*the test needs live, but uses no machine*"])
