"""What is kept of a failed test, and that keeping it never hides the failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]

# What the guest prints to the one request for evidence, with a secret in it.
ANSWER = r'''
[[control]]
match = "pytest_bootc_evidence"
output = """
\u001efacts
kernel: Linux 6.12 x86_64
\u001efacts=0
\u001ejournal
1000000.50
[1000000.400000] vm sshd[1]: just now
  and more of it, token=abc
[    5.000000] vm kernel: long ago
\u001ejournal=0
\u001eunits
failed units:
bad.service loaded failed failed Bad
\u001eunits=0
\u001ecoredumps
\u001ecoredumps=0
"""
'''
HOST_SIDE = {"console.log", "reproduce.txt", "timeline.txt", "versions.txt"}


def kept(pytester: pytest.Pytester, folder: str = "test-results") -> dict[str, str]:
    root = pytester.path / folder
    return {
        f"{path.parent.name[:-7]}/{path.name}": path.read_text() for path in sorted(root.rglob("*.*")) if path.is_file()
    }


def kept_of(pytester: pytest.Pytester, test: str, folder: str = "test-results") -> dict[str, str]:
    """The files of one test, by name."""
    found = (key.partition("/") for key in kept(pytester, folder))
    return {name: kept(pytester, folder)[f"{of}/{name}"] for of, _, name in found if of == f"{test}-server-v1"}


def test_what_is_kept_of_a_failure(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('console = "booting\\n"\n' + ANSWER)
    pytester.makepyfile(
        test_a="""
        def test_good(vm): pass

        def test_bad(vm):
            with vm.console_log().open("a") as console:
                console.write("oops, password=hunter2\\n")
            assert False
        """
    )
    judge("--evidence-dir=kept/here").stdout.fnmatch_lines(["evidence: *kept/here"])
    files = kept_of(pytester, "test_a.py-test_bad", "kept/here")
    assert files.keys() == HOST_SIDE | {"guest.txt", "journal.txt", "units.txt", "coredumps.txt"}
    assert files["console.log"] == "booting\n[the test began here]\noops, password=[hidden]\n"
    assert files["journal.txt"] == "[1000000.400000] vm sshd[1]: just now\n  and more of it, token=[hidden]\n"
    assert files["units.txt"] == "failed units:\nbad.service loaded failed failed Bad\n"
    assert files["coredumps.txt"] == "no process has dumped core since the machine booted\n"
    assert files["guest.txt"] == "[for want of time the guest was not asked for: processes, mounts, core]\n"
    assert not kept_of(pytester, "test_a.py-test_good", "kept/here")


def test_which_versions_were_judged(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script(ANSWER)
    pytester.makepyfile(test_a="def test_bad(vm): assert False")
    judge()
    text = kept_of(pytester, "test_a.py-test_bad")["versions.txt"]
    said = dict(line.split(": ", 1) for line in text.splitlines())
    assert said["subject"].endswith("server:v1")
    assert said["digest"].startswith("sha256:")
    assert said["backend"] == "fake"
    assert said["pytest"] == pytest.__version__
    assert said["kernel"] == "Linux 6.12 x86_64"


def test_the_timeline_has_what_happened_before_and_during_the_test(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="""
        def test_good(vm): pass

        def test_bad(vm):
            vm.reboot()
            assert False
        """
    )
    judge()
    heading, *lines = kept_of(pytester, "test_a.py-test_bad")["timeline.txt"].splitlines()
    assert heading == "seconds since the test began"
    events = [line.split(maxsplit=1) for line in lines]
    assert [float(at) for at, _ in events] == sorted(float(at) for at, _ in events)
    texts = [text.partition("fake-")[0] + text[-12:] if "fake-" in text else text for _, text in events]
    began = texts.index("the test begins")
    assert "a machine is made" in texts[:began]
    assert any(text.endswith("is rebooted") for text in texts[began:])
    assert texts[-1] == "evidence was taken"


def test_the_console_of_a_machine_that_did_not_boot(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('boots = ["panic"]\nconsole = "booting\\n"')
    pytester.makepyfile(test_a="def test_one(vm): pass")
    judge()
    files = kept_of(pytester, "test_a.py-test_one")
    assert files.keys() == HOST_SIDE | {"guest.txt"}
    assert files["guest.txt"].startswith("[the guest was not asked: panic: Kernel panic")
    assert files["console.log"].startswith("booting\nKernel panic")
    assert "did not come up" in files["timeline.txt"]


def test_a_guest_that_does_not_come_up_may_still_answer(
    judge: Judge, pytester: pytest.Pytester, script: Script
) -> None:
    script('boots = ["silent"]\nconsole = "booting\\n"' + ANSWER)
    pytester.makepyfile(test_a="def test_one(vm): pass\ndef test_two(vm): pass")
    result = judge("--boot-timeout=0.2")
    result.assert_outcomes(errors=2)
    files = kept_of(pytester, "test_a.py-test_one")
    assert files.keys() == HOST_SIDE | {"guest.txt", "journal.txt", "units.txt", "coredumps.txt"}
    assert files["console.log"] == "booting\n"
    assert files["units.txt"] == "failed units:\nbad.service loaded failed failed Bad\n"
    assert "long ago" in files["journal.txt"], "all of the boot"
    assert "kernel: Linux 6.12 x86_64" in files["versions.txt"]


def test_of_a_setup_that_fails_later(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script(ANSWER)
    pytester.makepyfile(
        test_a="""
        import pytest

        @pytest.fixture
        def broken(vm): raise RuntimeError("no")

        def test_one(broken): pass
        """
    )
    judge().assert_outcomes(errors=1)
    assert kept_of(pytester, "test_a.py-test_one").keys() >= HOST_SIDE | {"journal.txt", "units.txt"}


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


@pytest.mark.parametrize(("match", "seconds"), [("pytest_bootc_evidence", 10), (":", 4)])
def test_a_guest_that_answers_nothing_costs_some_seconds(
    judge: Judge, pytester: pytest.Pytester, script: Script, match: str, seconds: float
) -> None:
    script(f'[[control]]\nmatch = "{match}"\nhang = true')
    pytester.makepyfile(test_a="def test_it(vm): assert 1 == 2")
    began = time.monotonic()
    result = judge()
    assert time.monotonic() - began < seconds
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*assert 1 == 2"])
    files = kept_of(pytester, "test_a.py-test_it")
    assert files.keys() == HOST_SIDE | {"guest.txt"}
    (line,) = files["guest.txt"].splitlines()
    assert line.startswith("[guest.txt could not be taken: the script has no answer to")


def test_a_guest_that_panicked_is_not_asked(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('[[control]]\nmatch = "pytest_bootc_evidence"\nhang = true')
    pytester.makepyfile(
        test_a="""
        import time

        def test_it(vm):
            with vm.console_log().open("a") as console:
                console.write("[    9.000000] Kernel panic - not syncing: sysrq\\n")
            time.sleep(20)
        """
    )
    began = time.monotonic()
    judge()
    assert time.monotonic() - began < 4
    files = kept_of(pytester, "test_a.py-test_it")
    assert files["guest.txt"].startswith("[the guest was not asked: panic: ")
    assert "Kernel panic" in files["console.log"]


def test_what_is_always_kept(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="""
        def test_it(evidence):
            evidence.attach("boot.svg", "<svg/>", always=True)
            evidence.attach("list.txt", "nothing special")
        """
    )
    assert judge().ret == 0
    assert kept_of(pytester, "test_a.py-test_it") == {"boot.svg": "<svg/>"}
    assert judge("--evidence=off", "--evidence-dir=none").ret == 0
    assert not (pytester.path / "none").exists()


def test_of_a_test_that_is_run_twice_both_tries_are_kept(
    judge: Judge, pytester: pytest.Pytester, tmp_path: Path
) -> None:
    pytester.makepyfile(
        test_a=f"""
        from pathlib import Path

        def test_it(evidence):
            tries = Path({str(tmp_path)!r}) / "tries"
            before = len(tries.read_text()) if tries.exists() else 0
            tries.write_text("x" * (before + 1))
            evidence.attach("try.txt", str(before + 1))
            assert False
        """
    )
    judge("--rerun-failed")
    (folder,) = (pytester.path / "test-results").iterdir()
    assert (folder / "try.txt").read_text() == "2"
    assert (folder / "first-try" / "try.txt").read_text() == "1"


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


@pytest.mark.parametrize(("options", "told"), [((), "no"), (("--alluredir=a",), "yes"), (("--evidence=on",), "yes")])
def test_whether_a_pass_is_reported(
    judge: Judge, pytester: pytest.Pytester, options: tuple[str, ...], told: str
) -> None:
    pytester.makepyfile(f"def test_it(evidence): assert evidence.reported is {told == 'yes'}")
    judge(*options).assert_outcomes(passed=1)
