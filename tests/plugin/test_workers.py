"""How many workers ``-n auto`` means, where each of them has a machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, layout: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run tests that use no machine, in a run that has some, on a host of so many processors and GiB."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = layout()

    def start(*arguments: str, processors: int = 64, gib: int = 1000) -> pytest.RunResult:
        (tmp_path / "meminfo").write_text(f"MemTotal: {gib << 20} kB\nMemAvailable: {gib << 20} kB\n")
        pytester.makeconftest(
            f"""
            import os, pathlib
            from pytest_bootc import workers
            from pytest_bootc.machine import memory, reservation
            os.sched_getaffinity = lambda process: set(range({processors}))
            workers.usable_processors = lambda: {processors}
            workers.HOST = memory.HostMemory(pathlib.Path({str(tmp_path / "meminfo")!r}), pathlib.Path("/dev/null"))
            workers.machines_that_fit.__defaults__ = (workers.HOST,)
            os.access = lambda path, mode, real=os.access: path != "/dev/kvm" and real(path, mode)
            """
        )
        pytester.makepyfile("def test_it(): pass")
        return pytester.runpytest_subprocess(f"--image={image}", *arguments)

    return start


def workers_of(result: pytest.RunResult) -> int:
    found = re.search(r"created: (\d+)/\d+ workers?", result.stdout.str())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("word", ["auto", "logical"])
def test_as_many_as_there_is_ram_for(run: Run, word: str) -> None:
    result = run("-n", word, gib=9)
    # 9 GiB, less what stays free; 2 for the guest, 1 for the code that is translated, a quarter for QEMU itself.
    assert workers_of(result) == 2
    result.stdout.fnmatch_lines(["bootc: 2 workers (64 processors, RAM for 2 machines of 3.2 GiB)"])


def test_as_many_as_there_are_processors(run: Run) -> None:
    result = run("-n", "auto", processors=3)
    assert workers_of(result) == 3
    result.stdout.fnmatch_lines(["bootc: 3 workers (3 processors, RAM for 2?? machines of 3.2 GiB)"])


def test_one_at_least(run: Run) -> None:
    result = run("-n", "auto", gib=2)
    assert workers_of(result) == 1
    result.stdout.fnmatch_lines(["bootc: 1 worker (64 processors, RAM for 0 machines of 2.5 GiB)"])


def test_machines_on_kvm_need_less(run: Run, pytester: pytest.Pytester, tmp_path: Path) -> None:
    """As known from a kernel that has run on it since the host's boot."""
    pytester.makepyfile(
        kvm="""
        from pytest_bootc import workers
        from pytest_bootc.model import Accelerator
        workers.choose_without_kernel = lambda *arguments: (Accelerator.KVM, "")
        """
    )
    result = run("-n", "auto", "-p", "kvm", gib=9)
    assert workers_of(result) == 4
    result.stdout.fnmatch_lines(["bootc: 4 workers (64 processors, RAM for 4 machines of 2.1 GiB)"])


def test_without_qemu_the_first_machine_says_so(run: Run) -> None:
    result = run("-n", "auto", "--qemu=qemu-system-none", gib=9)
    result.assert_outcomes(passed=1)
    assert workers_of(result) == 2


def test_smaller_machines(run: Run) -> None:
    assert workers_of(run("-n", "auto", "--vm-memory=512M", gib=9)) == 4


def test_the_variable_wins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "3")
    result = run("-n", "auto", gib=2)
    assert workers_of(result) == 3


def test_a_limit_holds(run: Run) -> None:
    result = run("-n", "auto", "--maxprocesses=2")
    assert workers_of(result) == 2


def test_more_than_there_is_room_for(run: Run) -> None:
    result = run("-n", "3", gib=9)
    assert workers_of(result) == 3
    result.stdout.fnmatch_lines(["bootc: 3 workers, RAM for 2 machines of 3.2 GiB: the others wait for theirs"])


@pytest.mark.parametrize("arguments", [(), ("-n2",), ("-n0",), ("-nauto", "--backend=fake")])
def test_nothing_is_said_where_nothing_waits(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, processors=2)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("bootc: * worker*")


def test_machines_that_do_not_boot_here_are_not_counted(run: Run) -> None:
    assert workers_of(run("-n", "auto", "--backend=fake", processors=2, gib=1)) == 2


def test_options_that_cannot_be_read(run: Run) -> None:
    result = run("-n", "auto", "--vm-memory=lots")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --vm-memory lots: this is not a size of RAM"])


def test_a_run_that_judges_nothing(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeconftest("import os\nos.sched_getaffinity = lambda process: set(range(3))")
    pytester.makepyfile("def test_it(): pass")
    assert workers_of(pytester.runpytest_subprocess("-n", "auto")) == 3
