"""What is kept of a failed test, and that keeping it never hides the failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]

JOURNAL = """
[[control]]
match = "journalctl"
output = '''
1000000.50 900.00
[    5.000000] vm kernel: long ago
[1000000.400000] vm sshd[1]: just now
  and more of it
'''
"""


def kept(pytester: pytest.Pytester, folder: str = "test-results") -> dict[str, str]:
    root = pytester.path / folder
    return {
        f"{path.parent.name[:-7]}/{path.name}": path.read_text() for path in sorted(root.rglob("*.*")) if path.is_file()
    }


def test_console_and_journal(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('console = "booting\\n"\n' + JOURNAL)
    pytester.makepyfile(
        test_a="""
        def test_good(vm): pass

        def test_bad(vm):
            with vm.console_log().open("a") as console:
                console.write("oops\\n")
            assert False
        """
    )
    judge("--evidence-dir=kept/here").stdout.fnmatch_lines(["evidence: *kept/here"])
    assert kept(pytester, "kept/here") == {
        "test_a.py-test_bad-server-v1/console.log": "booting\n[the test began here]\noops\n",
        "test_a.py-test_bad-server-v1/journal.txt": "[1000000.400000] vm sshd[1]: just now\n  and more of it\n",
    }


def test_the_console_of_a_machine_that_did_not_boot(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('boots = ["panic"]\nconsole = "booting\\n"')
    pytester.makepyfile(test_a="def test_one(vm): pass")
    judge()
    (text,) = kept(pytester).values()
    assert text.startswith("booting\nKernel panic")


@pytest.mark.parametrize(("when", "names"), [("on", ["bad", "good"]), ("off", []), ("retain-on-failure", ["bad"])])
def test_when(judge: Judge, pytester: pytest.Pytester, when: str, names: list[str]) -> None:
    pytester.makepyfile(
        test_a="""
        def test_good(evidence): evidence.attach("list.txt", "all well")
        def test_bad(evidence):
            evidence.attach("../list.txt", b"all bad")
            assert False
        """
    )
    judge(f"--evidence={when}")
    found = {name: text for name, text in kept(pytester).items() if name.endswith("list.txt")}
    assert found == {
        f"test_a.py-test_{name}-server-v1/list.txt": {"good": "all well", "bad": "all bad"}[name] for name in names
    }


def test_of_an_earlier_run_nothing_is_left(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a="def test_it(evidence):\n    evidence.attach('a.txt', 'x')\n    assert False")
    judge()
    assert kept(pytester)
    pytester.makepyfile(test_a="def test_it(evidence):\n    evidence.attach('a.txt', 'x')")
    assert judge().ret == 0
    assert not kept(pytester)


def test_a_source_that_hangs_hides_nothing(
    judge: Judge, pytester: pytest.Pytester, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_bootc.evidence.record._SOURCE_SECONDS", 0.1)
    script('[[control]]\nmatch = "journalctl"\nhang = true')
    pytester.makepyfile(test_a="def test_it(vm): assert 1 == 2")
    result = judge()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*assert 1 == 2"])
    assert kept(pytester)["test_a.py-test_it-server-v1/journal.txt"].startswith(
        "[journal.txt could not be taken: no answer"
    )


def test_a_folder_that_cannot_be_written_hides_nothing(judge: Judge, pytester: pytest.Pytester) -> None:
    (pytester.path / "test-results").write_text("a file")
    pytester.makepyfile(test_a="def test_it(evidence):\n    evidence.attach('a.txt', 'x')\n    assert 1 == 2")
    result = judge()
    result.assert_outcomes(failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E*assert 1 == 2", "*evidence could not be kept*"])


def test_it_is_taken_before_the_finalisers(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="""
        import pytest

        @pytest.fixture
        def console(vm):
            vm.console_log().write_text("")
            yield vm.console_log()
            vm.console_log().write_text("")

        def test_it(console):
            with console.open("a") as log:
                log.write("before\\n")
            assert False
        """
    )
    judge()
    assert kept(pytester)["test_a.py-test_it-server-v1/console.log"] == "before\n"
