"""What happens when a machine does not boot, reboots, or cannot do what a test asks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pytest_bootc import command
from pytest_bootc.deadline import Deadline, wait_until

Judge = Callable[..., pytest.RunResult]
Script = Callable[..., Path]


def test_a_broken_image_is_booted_once(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    log = script('boots = ["panic", "ready"]')
    pytester.makepyfile("def test_one(vm): pass\ndef test_two(vm): pass\ndef test_three(ssh): pass")
    result = judge()
    result.assert_outcomes(errors=3)
    assert result.ret == 1
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["provision", "start", "stop", "release"]
    text = result.stdout.str()
    assert text.count("Attempted to kill init") == 1
    assert text.count("the machine did not boot: the kernel panicked (see the first error)") >= 2
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pool.py*")


def test_a_skipped_test_stays_skipped_on_a_broken_image(
    judge: Judge, pytester: pytest.Pytester, script: Script
) -> None:
    script('boots = ["panic"]')
    pytester.makepyfile(
        "import pytest\ndef test_one(vm): pass\n@pytest.mark.skip(reason='not now')\ndef test_two(vm): pass"
    )
    judge().assert_outcomes(errors=1, skipped=1)


def test_each_image_has_its_own_failure(
    judge: Judge, pytester: pytest.Pytester, script: Script, layout: Callable[..., str]
) -> None:
    log = script('boots = ["panic"]')
    pytester.makepyfile("def test_one(vm): pass\ndef test_two(vm): pass")
    judge(f"--image={layout('other')}").assert_outcomes(errors=4)
    assert log.read_text().count("provision") == 2


def test_after_a_failed_reboot_the_next_test_has_a_fresh_machine(
    judge: Judge, pytester: pytest.Pytester, script: Script
) -> None:
    script('boots = ["ready", "panic"]')
    pytester.makepyfile("def test_one(vm): vm.reboot()\ndef test_two(vm): pass")
    result = judge()
    result.assert_outcomes(failed=1, passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*fail: *::test_one*: the kernel panicked"])


def test_a_boot_that_is_interrupted_leaves_no_machine(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    log = script('boots = ["silent"]')
    pytester.makeconftest(
        f"""
        import _thread, threading
        from pytest_bootc.machine.fake import FakeMachine

        def ctrl_c(self, deadline, start=FakeMachine.start):
            threading.Timer(0.3, _thread.interrupt_main).start()
            start(self, deadline)

        FakeMachine.start = ctrl_c

        def pytest_unconfigure(config):
            with open({str(log)!r}, "a") as log:
                log.write("end\\n")
        """
    )
    pytester.makepyfile("def test_it(vm): pass")
    result = judge("--boot-timeout=30", apart=True)
    assert result.ret == 2
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["provision", "start", "release", "end"]


def test_what_the_backend_lacks_skips_the_test(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(vm, tmp_path): vm.screenshot(tmp_path / 'x.png')")
    judge("-rs").stdout.fnmatch_lines(["SKIPPED*the backend fake has no display"])


def test_what_a_machine_can_do(judge: Judge, pytester: pytest.Pytester, script: Script) -> None:
    script('console = "login: \\n"\n[[control]]\nmatch = "uname"\noutput = "Linux\\n"')
    pytester.makepyfile(
        """
        def test_it(vm):
            assert vm.wait_for_console_text("log.n") == "login: "
            assert vm.control("uname -s") == (0, "Linux\\n")
            assert vm.power_state().value == "running"
            vm.stop()
            assert vm.power_state().value == "off"
            vm.start()
            vm.crash()
            assert vm.power_state().value == "off"
            assert vm.name.startswith("fake-")
        """
    )
    judge().assert_outcomes(passed=1)


def test_an_image_without_sshd_is_named(judge: Judge, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(guest): pass\ndef test_other(vm): pass")
    result = judge()
    result.assert_outcomes(errors=1, passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the image has no sshd*"])


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[str]:
    """A real sshd on loopback; its section of the script."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    keys = {}
    for name in ("host", "user"):
        key = Ed25519PrivateKey.generate()
        private = tmp_path / f"{name}_key"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        private.chmod(0o600)
        keys[name] = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (tmp_path / "authorized_keys").write_text(keys["user"])
    log = tmp_path / "sshd.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{number}\nHostKey {tmp_path}/host_key\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
    )
    program = command.find_program("sshd", resolution="install openssh-server")
    with log.open("wb") as sink:
        process = command.spawn([program, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=sink)
    try:

        def listening() -> bool:
            assert process.poll() is None, log.read_text()
            return "Server listening" in log.read_text()

        wait_until(listening, Deadline.after(10), what="sshd to listen", last=log.read_text)
        yield f'[ssh]\nhost = "127.0.0.1"\nport = {number}\nprivate_key = "user_key"\nhost_key = "{keys["host"]}"\n'
    finally:
        process.kill()
        process.wait()


def test_ssh_and_guest_survive_a_reboot(judge: Judge, pytester: pytest.Pytester, script: Script, sshd: str) -> None:
    script(sshd)
    pytester.makepyfile(
        """
        def test_it(vm, ssh, guest):
            first = ssh.succeed("echo $PPID")
            assert guest.succeed("echo $PPID") == first
            vm.reboot()
            second = ssh.succeed("echo $PPID")
            assert second != first, "another connection"
            assert guest.succeed("echo $PPID") == second

        def test_next(guest):
            guest.succeed("true")
        """
    )
    judge().assert_outcomes(passed=2)


def test_needs_are_probed_over_ssh_where_there_is_no_control_channel(
    judge: Judge, pytester: pytest.Pytester, script: Script, sshd: str
) -> None:
    script(sshd)
    pytester.makeconftest(
        """
        import pytest
        from pytest_bootc.machine.fake import FakeMachine
        del FakeMachine.control
        """
    )
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.needs("program:sh", "file:/etc/passwd")
        def test_met(guest): pass
        @pytest.mark.needs("program:no-such-program")
        def test_unmet(guest): pass
        """
    )
    judge(apart=True).assert_outcomes(passed=1, skipped=1)
