"""The command ``pytest-bootc``: what there is to do around runs. The runs themselves are pytest's."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from pytest_bootc.disk_commands import describe_disk
from pytest_bootc.errors import Blame, BootcTestError

# The exit statuses are those of runs; 2 is also argparse's own.
_GOOD = 0
_INTERRUPTED = 2
_BROKEN_PIPE = 128 + signal.SIGPIPE  # as of a program that the signal ends
_STATUSES = {Blame.USAGE: 4, Blame.LAB: 10, Blame.IMAGE: 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do what it says; the exit status."""
    command_line = parser()
    options = command_line.parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] | None = options.command
    if command is None:
        command_line.print_help()
        return _GOOD
    try:
        status = command(options) or _GOOD
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # As with `| head`: whoever reads has had enough. Nothing is to be written at the interpreter's end, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except BootcTestError as error:
        sys.stderr.write(f"pytest-bootc: error: {error}\n")
        return _STATUSES[error.blame]
    except KeyboardInterrupt:
        sys.stderr.write("pytest-bootc: interrupted\n")
        return _INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The command line: each sub-command with the function that does it."""
    whole = argparse.ArgumentParser(
        prog="pytest-bootc",
        description="Companion of the pytest plugin. To judge an image, run: pytest --image REF",
    )
    whole.add_argument("--version", action="version", version=f"pytest-bootc {version('pytest-bootc')}")
    whole.set_defaults(command=None)
    commands = whole.add_subparsers(title="commands", metavar="COMMAND")
    text = "look at the cache of disks, or empty it"
    describe_disk(commands.add_parser("disk", help=text, description=f"{text[0].upper()}{text[1:]}."), _say)
    text = "look at the machines that are kept, enter them, or end them"
    _describe_vm(commands.add_parser("vm", help=text, description=f"{text[0].upper()}{text[1:]}."))
    text = "list the steps that features can be written in without any Python"
    _describe_steps(commands.add_parser("steps", help=text, description=f"{text[0].upper()}{text[1:]}."))
    text = "make an HTML report of what runs with --alluredir left"
    _describe_report(commands.add_parser("report", help=text, description=f"{text[0].upper()}{text[1:]}."))
    return whole


def _describe_steps(steps: argparse.ArgumentParser) -> None:
    steps.set_defaults(command=_steps)
    steps.add_argument(
        "--grep", metavar="WORD", default="", help="only those that have this in their text, meaning or group"
    )


def _steps(options: argparse.Namespace) -> int | None:
    from pytest_bootc import step_commands

    return step_commands.show(options, _say)


def _describe_report(report: argparse.ArgumentParser) -> None:
    report.set_defaults(command=_report)
    report.add_argument("results", metavar="RESULTS", type=Path, nargs="+", help="folder that --alluredir named")
    report.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        help="where the report goes, replacing an earlier one (default: allure-report beside the first RESULTS)",
    )
    report.add_argument(
        "--history",
        metavar="FILE",
        type=Path,
        help="what is known of earlier runs; gets a line (default: allure-history.jsonl beside the first RESULTS)",
    )
    report.add_argument(
        "--single-file", action="store_true", help="one page with all in it, which opens without a server"
    )
    report.add_argument("--name", metavar="TEXT", default="", help="the report's title (default: what was judged)")


def _report(options: argparse.Namespace) -> None:
    from pytest_bootc.reports import html
    from pytest_bootc.reports.progress import Terminal, TerminalProgress

    first: Path = options.results[0]
    beside = first.parent if first.name not in ("", "..") else first.resolve().parent
    request = html.ReportRequest(
        results=tuple(options.results),
        output=options.output or beside / "allure-report",
        history=options.history or beside / "allure-history.jsonl",
        single_file=options.single_file,
        name=options.name,
    )
    page = html.make_report(request, TerminalProgress(Terminal(_Lines(), live=False)))
    _say(f"report: {page}")
    if not request.single_file:
        _say(f"to see it: python3 -m http.server --bind 127.0.0.1 --directory {page.parent}")


_WHICH = "the machine, as `vm list` shows it; may be left out where there is only one"


def _describe_vm(vm: argparse.ArgumentParser) -> None:
    commands = vm.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "show the machines that are kept, and who uses them"
    command = commands.add_parser("list", help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        metavar="FORMAT",
        help="`table`, or `json` for programs (default: table)",
    )
    text = "log in to a machine as root, or run a command in it; the exit status is the command's"
    ssh = commands.add_parser("ssh", help=text, description=f"{text[0].upper()}{text[1:]}.")
    ssh.add_argument("name", metavar="NAME", nargs="?", help=_WHICH)
    ssh.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run (default: a shell)")
    text = "show what a machine's serial console has printed"
    console = commands.add_parser("console", help=text, description=f"{text[0].upper()}{text[1:]}.")
    console.add_argument("name", metavar="NAME", nargs="?", help=_WHICH)
    console.add_argument("-f", "--follow", action="store_true", help="go on until the machine ends, or Ctrl-C")
    text = "end a machine; nothing of it is left"
    stop = commands.add_parser("stop", help=text, description=f"{text[0].upper()}{text[1:]}.")
    stop.add_argument("name", metavar="NAME", nargs="?", help=_WHICH)
    stop.add_argument("-a", "--all", action="store_true", help="all that nobody uses")
    for name, parser in commands.choices.items():
        parser.set_defaults(command=_vm, action=name)


def _vm(options: argparse.Namespace) -> int | None:
    from pytest_bootc import vm_commands

    actions: dict[str, Callable[[], int | None]] = {
        "list": lambda: vm_commands.show(options, _say),
        "ssh": lambda: vm_commands.ssh(options),
        "console": lambda: vm_commands.console(options),
        "stop": lambda: vm_commands.stop(options, _say),
    }
    return actions[options.action]()


class _Lines:
    """Standard error, for progress: what is piped elsewhere stays what the command says in the end."""

    def write(self, msg: str, *, flush: bool = False) -> None:
        _ = flush
        sys.stderr.write(msg)
        sys.stderr.flush()

    def ensure_newline(self) -> None:
        """Nobody else writes lines here."""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
