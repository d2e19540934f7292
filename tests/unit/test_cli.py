from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_bootc.cli import main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"pytest-bootc {version('pytest-bootc')}\n"


def test_a_mistake_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["dance"])
    assert end.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_alone_it_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "pytest --image REF" in capsys.readouterr().out


def test_an_error_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(tmp_path / "none")]) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"pytest-bootc: error: there is no folder {tmp_path / 'none'}\n"
        f"What to do: make some: pytest --image REF --alluredir {tmp_path / 'none'}\n"
    )


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from pytest_bootc.cli import parser; parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"pytest", "allure", "allure_commons", "oras", "paramiko", "subprocess"} & set(done.stdout.split())


def test_a_reader_who_has_had_enough_gets_no_traceback() -> None:
    program = "import sys; from pytest_bootc.cli import main; sys.exit(main(['steps']))"
    # What it has to say is more than the pipe takes, so it cannot end before the reader has gone.
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pipesize=4096
    ) as listing:
        assert listing.stdout is not None
        assert listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr is not None
        errors = listing.stderr.read()
    assert (listing.returncode, errors) == (141, "")
