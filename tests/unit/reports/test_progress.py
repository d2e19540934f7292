"""What is drawn, letter by letter."""

from __future__ import annotations

import re

from pytest_bootc.reports.progress import Terminal, TerminalProgress


class Paper:
    """A terminal that keeps everything."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, msg: str, *, flush: bool = False) -> None:
        assert flush
        self.text += msg

    def ensure_newline(self) -> None:
        if self.text and not self.text.endswith("\n"):
            self.text += "\n"


def test_a_log_gets_one_line_for_each_operation() -> None:
    paper = Paper()
    paper.write("suites/boot ", flush=True)
    with TerminalProgress(Terminal(paper, live=False)).stage("booting server", 100) as stage:
        stage.advance(50)
    assert re.fullmatch(r"suites/boot \nbootc: booting server \.\.\. 0\.\d s\n", paper.text)


def test_a_terminal_gets_a_line_that_counts() -> None:
    paper = Paper()
    with TerminalProgress(Terminal(paper, live=True)).stage("pulling", 8 << 20) as stage:
        stage._drawn -= 1
        stage.advance(2 << 20)
        stage.advance(2 << 20)
    assert paper.text.split("\r\x1b[K")[:2] == ["bootc: pulling ...", "bootc: pulling ... 25 % of 8 MiB"]
    assert re.fullmatch(r"bootc: pulling: 0\.\d s\n", paper.text.split("\r\x1b[K")[2])


def test_the_end_is_told_when_it_failed_too() -> None:
    paper = Paper()
    try:
        with TerminalProgress(Terminal(paper, live=False)).stage("booting"):
            raise OSError
    except OSError:
        paper.write("failed", flush=True)
    assert re.fullmatch(r"bootc: booting \.\.\. 0\.\d s\nfailed", paper.text)
