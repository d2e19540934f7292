"""The marker needs: words are probed once per machine, and an unmet one skips the test and is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]
Write = Callable[[Mapping[str, str]], None]

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
        def probes(): return [command for command in asked if "base-check" not in command and command != "@pulse"]
        """
    )
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.needs("unit:sshd.service")
        @pytest.mark.parametrize("n", range(3))
        def test_it(vm, n, probes): assert len(probes) == 1

        @pytest.mark.needs("unit:sshd.service", "file:/etc/os-release", "program:odd name")
        def test_several(vm, probes): assert len(probes) == 2 and "systemctl" not in probes[1]
        """
    )
    judge(apart=True).assert_outcomes(passed=4)


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


@pytest.mark.parametrize("status", range(8))
def test_each_of_several_words_has_its_answer(
    judge: Judge, pytester: pytest.Pytester, script: Script, status: int
) -> None:
    script(f'[[control]]\nmatch = "unmet=0"\nstatus = {status}')
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.needs("program:a", "program:b", "program:c")
        def test_it(vm): pass
        """
    )
    result = judge("-rs")
    unmet = [f"program:{name}" for n, name in enumerate("abc") if status >> n & 1]
    result.assert_outcomes(passed=not unmet, skipped=bool(unmet))
    if unmet:
        result.stdout.fnmatch_lines([f"SKIPPED*needs {', '.join(unmet)}"])


NOTHING = "from behave import given\n@given('nothing')\ndef nothing(context): pass\n"
TAGS = """
@needs.unit.sshd.service
Feature: Tags
  @needs.program.odd%20name @needs.file:/etc/os-release @needs.network
  Scenario: Met
    Given nothing

  @needs.unit.other.service
  Scenario: A unit
    Given nothing

  @needs.extension.one@two.example
  Scenario: An at sign
    Given nothing

  Scenario Outline: Rows <n>
    Given nothing

    Examples:
      | n |
      | 1 |

    @needs.program:sh
    Examples:
      | n |
      | 2 |
"""


def test_tags_of_features_mean_the_same(judge: Judge, pytester: pytest.Pytester, script: Script, write: Write) -> None:
    script(MET)
    write({"tags.feature": TAGS, "steps/steps.py": NOTHING})
    result = judge("-rs")
    result.assert_outcomes(passed=2, skipped=3)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*needs unit:other.service",
            "SKIPPED*needs extension:one@two.example",
            "SKIPPED*needs program:sh",
            "  skipped for unmet needs: extension:one@two.example (1), program:sh (1), unit:other.service (1)",
        ]
    )


def test_names_of_images(judge: Judge, pytester: pytest.Pytester, layout: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    pytester.makepyfile(
        """
        import pytest
        image = pytest.mark.image

        @image("serv")
        def test_part(image): pass

        @image("server", "desktop")
        def test_one_of_two(vm): pass

        @image("desktop")
        def test_other(vm): pass

        @image("v1")
        def test_tag(vm): pass

        @image("folder")
        def test_above(image): pass

        @image("desktop")
        @pytest.mark.needs("live")
        def test_both(vm): pass
        """
    )
    result = judge("-rs", image=layout("folder/server"))
    result.assert_outcomes(passed=2, skipped=4)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*needs an image named desktop",
            "SKIPPED*needs an image named v1",
            "SKIPPED*needs an image named folder",
            "SKIPPED*needs live, an image named desktop",
        ]
    )


def test_names_of_images_as_tags(judge: Judge, write: Write) -> None:
    feature = """
    Feature: Images
      @image.server @image.desktop
      Scenario: One of two
        Given nothing
      @image.desktop
      Scenario: Another
        Given nothing
    """
    write({"images.feature": feature, "steps/steps.py": NOTHING})
    judge().assert_outcomes(passed=1, skipped=1)


@pytest.mark.parametrize(
    ("release", "passed"),
    [("ID=desktop-os", 2), ("ID=x\\nVARIANT_ID=desktop", 2), ("ID=x\\nIMAGE_ID=a-desktop", 2), ("ID=x", 0)],
)
def test_names_of_what_was_booted_from_a_file(
    pytester: pytest.Pytester, script: Script, release: str, passed: int
) -> None:
    script(f'[[control]]\nmatch = "/etc/os-release"\noutput = "{release}\\nNAME=server\\n"')
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.image("server")
        def test_other(vm): pass

        @pytest.mark.image("desktop")
        @pytest.mark.parametrize("n", range(2))
        def test_it(vm, n): pass
        """
    )
    result = pytester.runpytest_inprocess("--backend=fake", f"--disk={_disk(pytester)}")
    result.assert_outcomes(passed=passed, skipped=3 - passed)


def test_an_images_name_without_a_machine(pytester: pytest.Pytester, script: Script) -> None:
    script("")
    pytester.makepyfile("import pytest\n@pytest.mark.image('desktop')\ndef test_it(): pass")
    result = pytester.runpytest_inprocess("--backend=fake", f"--disk={_disk(pytester)}")
    assert result.ret == 4
    result.stdout.fnmatch_lines(["*the test needs an image's name, but uses no machine*"])


def _disk(pytester: pytest.Pytester) -> Path:
    disk = pytester.path / "disk.raw"
    disk.write_bytes(bytes(510) + b"\x55\xaa" + bytes(512))
    return disk
