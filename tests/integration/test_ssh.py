"""The SSH session against OpenSSH's own server."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_bootc.deadline import Deadline, wait_until
from pytest_bootc.errors import BootError, ConfigError, SSHCommandError, SSHConnectError, WaitTimeoutError
from pytest_bootc.ssh import SSHSession

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture
def session(sshd) -> Iterator[SSHSession]:
    with SSHSession.connect(sshd.endpoint, Deadline.after(20)) as session:
        yield session


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """The point of many of these tests is that something ends long before it would by itself."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@contextmanager
def later(seconds: float, act, *arguments) -> Iterator[None]:
    """Do something in another thread, so many seconds from now."""
    timer = threading.Timer(seconds, act, arguments)
    timer.start()
    yield
    timer.join()


class TestCommands:
    def test_a_command_leaves_its_status_and_both_streams(self, session):
        result = session.execute("echo out; echo err >&2; exit 3")

        assert (result.status, result.stdout, result.stderr, result.signal) == (3, "out\n", "err\n", None)

    def test_words_are_quoted_and_a_line_is_shell(self, session):
        assert session.succeed(["printf", "%s|", "a b", "$HOME", "it's", ""]) == "a b|$HOME|it's||"
        assert session.succeed("for i in 1 2; do printf $i; done") == "12"

    def test_commands_that_succeed_are_joined(self, session):
        assert session.succeed("echo a", ["echo", "b"]) == "a\nb\n"

    def test_an_unexpected_failure_shows_what_was_printed(self, session):
        with pytest.raises(SSHCommandError) as caught:
            session.succeed("echo half; echo why >&2; exit 4")

        assert caught.value.brief == "`echo half; echo why >&2; exit 4` gave exit status 4"
        assert caught.value.details == "$ echo half; echo why >&2; exit 4\nhalf\nwhy"

    def test_an_unexpected_success_is_an_error(self, session):
        assert session.fail("echo out; false") == "out\n"
        with pytest.raises(SSHCommandError, match="`true` succeeded, and should not have"):
            session.fail("true")

    def test_variables_reach_lines_and_words(self, session):
        env = {"WORD": "a 'b' $c"}

        assert session.succeed("true && echo $WORD", env=env) == "a 'b' $c\n"
        assert session.succeed(["printenv", "WORD"], env=env) == "a 'b' $c\n"

    def test_streams_of_five_megabytes_each_do_not_block_each_other(self, session):
        result = session.execute(f"head -c {5 * MIB} /dev/zero >&2; head -c {5 * MIB} /dev/zero", timeout=30)

        assert (len(result.stdout_bytes), len(result.stderr_bytes)) == (5 * MIB, 5 * MIB)

    def test_text_is_utf_8_and_bytes_are_kept(self, session):
        result = session.execute(r"printf 'Grüße, \316\273\n\377\000'")

        assert result.stdout == "Grüße, λ\n\ufffd\0"
        assert result.stdout_bytes == "Grüße, λ\n".encode() + b"\xff\0"

    def test_standard_input_is_sent_and_ended(self, session):
        assert session.execute("cat", stdin=b"Gr\xc3\xbc\xc3\x9fe\0").stdout_bytes == b"Gr\xc3\xbc\xc3\x9fe\0"

    def test_without_standard_input_a_reader_sees_its_end(self, session):
        assert session.execute("cat", timeout=10).status == 0

    def test_long_standard_input_comes_back_whole(self, session):
        sent = os.urandom(6 * MIB)

        assert session.execute("cat", stdin=sent, timeout=30).stdout_bytes == sent

    def test_standard_input_that_nobody_reads_is_no_error(self, session):
        assert session.execute("exit 7", stdin=bytes(6 * MIB), timeout=30).status == 7

    def test_a_signal_is_told_from_an_exit_status(self, session):
        result = session.execute("kill -9 $$")

        assert (result.status, result.signal) == (-1, "KILL")
        with pytest.raises(SSHCommandError, match="was ended by signal SEGV"):
            session.succeed("kill -s SEGV $$")

    def test_twenty_commands_at_once_share_the_sessions_that_sshd_allows(self, session):
        with ThreadPoolExecutor(20) as pool:
            printed = list(pool.map(lambda i: session.succeed(f"sleep 0.1; echo {i}", timeout=30), range(20)))

        assert printed == [f"{i}\n" for i in range(20)]

    def test_an_image_may_allow_fewer_sessions(self, make_sshd):
        server = make_sshd("MaxSessions 2")
        with SSHSession.connect(server.endpoint, Deadline.after(20)) as session, ThreadPoolExecutor(6) as pool:
            printed = list(pool.map(lambda i: session.succeed(f"sleep 0.2; echo {i}", timeout=30), range(6)))

        assert printed == [f"{i}\n" for i in range(6)]

    def test_an_image_that_allows_no_session_is_told_soon(self, make_sshd):
        server = make_sshd("MaxSessions 0")
        refused = pytest.raises(SSHConnectError, match="it refused another session")
        with SSHSession.connect(server.endpoint, Deadline.after(20)) as session, at_most(6), refused:
            session.execute("true")

    def test_a_command_waits_for_its_turn_no_longer_than_its_deadline(self, session):
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(session.execute, "sleep 1.5") for _ in range(8)]
            time.sleep(0.5)
            with pytest.raises(SSHCommandError, match=r"`true` could not start within 0\.3 s"):
                session.execute("true", timeout=0.3)
            assert [command.result().status for command in running] == [0] * 8

    def test_waiting_for_a_command_to_succeed(self, session, tmp_path):
        marker = tmp_path / "marker"
        with later(0.5, marker.touch):
            session.wait_until_succeeds(["test", "-e", str(marker)], timeout=10)
        with later(0.5, marker.unlink):
            session.wait_until_fails(["test", "-e", str(marker)], timeout=10)

    def test_waiting_in_vain_tells_the_last_try(self, session):
        with pytest.raises(WaitTimeoutError) as caught:
            session.wait_until_succeeds("echo not yet; exit 5", timeout=0.5)

        assert caught.value.brief == "waited 0.5 s for `echo not yet; exit 5` to succeed"
        assert caught.value.details == "$ echo not yet; exit 5\nnot yet\nIt gave exit status 5."


class TestDeadline:
    def test_a_command_that_takes_too_long_is_ended_in_the_guest(self, session, tmp_path):
        with at_most(10), pytest.raises(SSHCommandError) as caught:
            session.execute(f"echo $$ > {tmp_path}/pid; echo began; sleep 100; true", timeout=1)

        assert caught.value.brief.endswith("did not end within 1 s")
        assert "\nbegan\n" in caught.value.details
        assert caught.value.details.endswith("Its processes in the guest were ended.")
        assert not alive(int((tmp_path / "pid").read_text()))

    def test_only_the_late_one_of_several_is_ended(self, session, tmp_path):
        session.read_file("/proc/version")
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(session.succeed, "sleep 3; echo done", timeout=20)
            time.sleep(0.2)
            late = pool.submit(session.execute, f"echo $$ > {tmp_path}/pid; sleep 100; true", timeout=1)
            time.sleep(0.2)
            last = pool.submit(session.succeed, "sleep 2.5; echo done", timeout=20)
            with pytest.raises(SSHCommandError, match="did not end"):
                late.result()
            assert not alive(int((tmp_path / "pid").read_text()))
            assert (first.result(), last.result()) == ("done\n", "done\n")

    def test_a_command_may_clean_up_before_it_ends(self, session, tmp_path):
        with pytest.raises(SSHCommandError, match="were ended"):
            session.execute(f"trap 'echo told > {tmp_path}/told; exit' TERM; while true; do sleep 0.1; done", timeout=1)

        assert (tmp_path / "told").read_text() == "told\n"

    def test_a_command_that_ignores_being_told_is_killed(self, session, tmp_path):
        with pytest.raises(SSHCommandError, match="Its processes in the guest were ended"):
            session.execute(f"trap '' TERM; echo $$ > {tmp_path}/pid; while true; do sleep 0.1; done", timeout=1)

        wait_until(lambda: not alive(int((tmp_path / "pid").read_text())), Deadline.after(5), what="the process to end")

    def test_output_held_by_a_process_in_the_background_is_told(self, session):
        with pytest.raises(SSHCommandError, match="something that it started still holds its output"):
            session.execute("sleep 3 & echo started", timeout=1)

    def test_endless_output_does_not_fill_the_memory_or_outrun_the_deadline(self, session):
        with at_most(10), pytest.raises(SSHCommandError, match=r"`yes` (did not end within|printed too much)"):
            session.execute("yes", timeout=1)

    def test_output_that_fills_the_memory_ends_the_command(self, session, monkeypatch):
        monkeypatch.setattr("pytest_bootc.ssh.streams.MOST_OUTPUT", 3 * MIB)

        with at_most(10), pytest.raises(SSHCommandError, match="`yes` printed too much"):
            session.execute("yes", timeout=60)
        assert session.succeed("echo still here") == "still here\n"

    def test_the_session_works_on_after_a_deadline(self, session):
        with pytest.raises(SSHCommandError):
            session.execute("sleep 100", timeout=0.3)

        assert session.succeed("echo still here") == "still here\n"


def alive(process: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestLosingTheGuest:
    def test_a_connection_that_is_lost_is_told_from_a_command_that_failed(self, make_sshd):
        server = make_sshd()
        with SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
            with later(0.5, server.stop), at_most(5), pytest.raises(SSHConnectError) as caught:
                session.execute("echo began; sleep 100", timeout=30)
            assert not session.alive()

        endpoint = server.endpoint
        assert caught.value.brief == (
            f"{endpoint.user}@127.0.0.1:{endpoint.port} was lost while running `echo began; sleep 100`: "
            "it closed the connection"
        )
        assert caught.value.details == "$ echo began; sleep 100\nbegan"

    def test_a_frozen_guest_is_noticed_while_a_command_runs(self, make_sshd):
        server = make_sshd()
        with SSHSession.connect(server.endpoint, Deadline.after(20), keepalive=1) as session:
            server.signal(signal.SIGSTOP)
            with at_most(4), pytest.raises(SSHConnectError, match="stopped answering"):
                session.execute("sleep 100", timeout=60)

    def test_a_guest_that_freezes_in_the_middle_is_noticed(self, make_sshd):
        server = make_sshd()
        frozen = pytest.raises(SSHConnectError, match="stopped answering")
        freezing = later(1, server.signal, signal.SIGSTOP)
        session = SSHSession.connect(server.endpoint, Deadline.after(20), keepalive=1)
        with session, at_most(6), frozen, freezing:
            session.execute("sleep 100", timeout=60)

    def test_a_guest_that_freezes_while_it_is_sent_a_file_is_noticed(self, make_sshd, tmp_path):
        server = make_sshd()
        with SSHSession.connect(server.endpoint, Deadline.after(20), keepalive=1) as session:
            session.write_file(f"{tmp_path}/small", b"")
            server.signal(signal.SIGSTOP)
            with at_most(6), pytest.raises(SSHConnectError, match="stopped answering"):
                session.write_file(f"{tmp_path}/large", bytes(32 * MIB))

    def test_a_guest_that_is_only_slow_is_told_from_one_that_is_lost(self, make_sshd):
        server = make_sshd()
        with SSHSession.connect(server.endpoint, Deadline.after(20), keepalive=8) as session:
            with later(0.5, server.signal, signal.SIGSTOP), pytest.raises(SSHCommandError) as caught:
                session.execute("echo began; sleep 100", timeout=1)
            assert "did not end within 1 s" in caught.value.brief
            assert "Its processes may still run in the guest" in caught.value.details
            with pytest.raises(SSHCommandError, match=r"`true` could not start within 0\.5 s"):
                session.execute("true", timeout=0.5)
            with pytest.raises(SSHCommandError, match=r"/proc/version cannot be read within 0\.5 s"):
                session.read_file("/proc/version", timeout=0.5)
            server.signal(signal.SIGCONT)
            assert session.succeed("echo awake") == "awake\n"
            assert session.read_file("/proc/version")

    def test_whether_the_guest_answers(self, make_sshd):
        server = make_sshd("MaxSessions 1")
        with SSHSession.connect(server.endpoint, Deadline.after(20), keepalive=0.5) as session:
            assert session.alive()
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(session.succeed, "sleep 1.5")
                time.sleep(0.7)
                assert session.alive()
                running.result()
            server.signal(signal.SIGSTOP)
            assert not session.alive()
        assert not session.alive()

    def test_a_silent_command_is_no_frozen_guest(self, make_sshd):
        server = make_sshd()
        with SSHSession.connect(server.endpoint, Deadline.after(20), keepalive=1) as session:
            assert session.succeed("sleep 3; echo awake") == "awake\n"

    def test_a_guest_that_was_paused_while_nobody_asked_is_as_good_as_before(self, make_sshd):
        server = make_sshd()
        with SSHSession.connect(server.endpoint, Deadline.after(20), keepalive=1) as session:
            server.signal(signal.SIGSTOP)
            time.sleep(1.5)
            # The question comes first: what counts is the silence since then.
            with later(0.6, server.signal, signal.SIGCONT):
                assert session.succeed("echo awake") == "awake\n"

    def test_another_thread_ends_a_command_with_an_error_of_its_own(self, session):
        error = BootError("the kernel panicked")

        with later(0.3, session.interrupt, error), at_most(5), pytest.raises(BootError) as caught:
            session.execute("sleep 100", timeout=60)

        assert caught.value is error
        with pytest.raises(BootError):
            session.execute("true")
        session.reconnect(Deadline.after(20))
        assert session.succeed("echo again") == "again\n"

    def test_closing_ends_what_runs(self, session):
        with later(0.3, session.close), at_most(5), pytest.raises(SSHConnectError, match="was closed"):
            session.execute("sleep 100", timeout=60)
        with pytest.raises(SSHConnectError, match="there is no connection"):
            session.execute("true")

    def test_no_thread_is_left_behind(self, sshd):
        before = threading.active_count()
        with SSHSession.connect(sshd.endpoint, Deadline.after(20)) as session:
            session.succeed("true")
            session.read_file("/proc/version")
            assert threading.active_count() > before

        assert threading.active_count() == before


class TestLoggingIn:
    def test_another_host_key_is_refused_at_once_and_named(self, sshd, make_key):
        endpoint = replace(sshd.endpoint, host_key=make_key().public)

        with at_most(5), pytest.raises(SSHConnectError, match="its host key is not the one that was expected"):
            SSHSession.connect(endpoint, Deadline.after(30))

    def test_another_key_is_refused_at_once(self, sshd, make_key):
        endpoint = replace(sshd.endpoint, private_key=make_key().private)

        with at_most(5), pytest.raises(SSHConnectError, match="it refused our key") as caught:
            SSHSession.connect(endpoint, Deadline.after(30))

        assert "sshd's journal" in caught.value.resolution

    def test_a_login_that_breaks_off_says_nothing_about_the_key(self, make_sshd, make_key):
        # sshd hangs up at the first key that it does not like.
        endpoint = replace(make_sshd("MaxAuthTries 1").endpoint, private_key=make_key().private)

        with pytest.raises(SSHConnectError, match="it closed the connection") as caught:
            SSHSession.connect(endpoint, Deadline.after(2))
        assert "Tried 1 times" not in caught.value.details

    def test_a_closed_port_is_tried_until_the_deadline(self, sshd, closed_port):
        with at_most(5), pytest.raises(SSHConnectError, match="nothing listens there") as caught:
            SSHSession.connect(replace(sshd.endpoint, port=closed_port), Deadline.after(1.5))

        assert 3 <= int(caught.value.details.split("Tried ")[1].split()[0]) <= 12

    def test_a_port_that_opens_later_is_found(self, make_sshd):
        server = make_sshd()
        server.stop()
        with later(1, server.start), SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
            assert session.succeed("echo up") == "up\n"

    def test_a_port_that_says_nothing_costs_one_attempt(self, sshd):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = replace(sshd.endpoint, port=silent.getsockname()[1])
            with at_most(5), pytest.raises(SSHConnectError, match="did not answer in time") as caught:
                SSHSession.connect(endpoint, Deadline.after(1.5))

        assert "Tried 1 times" in caught.value.details

    def test_a_port_that_hangs_up_is_tried_again_with_pauses(self, sshd):
        with socket.create_server(("127.0.0.1", 0)) as rude:
            callers = 0

            def hang_up() -> None:
                nonlocal callers
                while True:
                    try:
                        caller, _ = rude.accept()
                    except OSError:
                        return
                    callers += 1
                    caller.close()

            thread = threading.Thread(target=hang_up, daemon=True)
            thread.start()
            endpoint = replace(sshd.endpoint, port=rude.getsockname()[1])
            with pytest.raises(SSHConnectError, match="it closed the connection"):
                SSHSession.connect(endpoint, Deadline.after(2))
            rude.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert 2 <= callers <= 8

    def test_a_name_that_does_not_exist_is_not_tried_again(self, sshd):
        with at_most(20), pytest.raises(SSHConnectError, match="its name cannot be resolved"):
            SSHSession.connect(replace(sshd.endpoint, host="no-such-host.invalid"), Deadline.after(60))

    def test_keys_that_cannot_be_read_are_usage_errors(self, sshd):
        with pytest.raises(ConfigError, match=r"private key .* cannot be read"):
            SSHSession.connect(replace(sshd.endpoint, private_key="-----BEGIN"), Deadline.after(5))
        with pytest.raises(ConfigError, match=r"host key .* cannot be read"):
            SSHSession.connect(replace(sshd.endpoint, host_key="ssh-ed25519 AAAA"), Deadline.after(5))

    def test_a_broken_handshake_is_not_logged_as_well(self, sshd, make_key, caplog, capfd):
        with pytest.raises(SSHConnectError):
            SSHSession.connect(replace(sshd.endpoint, host_key=make_key().public), Deadline.after(5))
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SSHConnectError):
            SSHSession.connect(replace(sshd.endpoint, port=silent.getsockname()[1]), Deadline.after(0.5))

        assert caplog.records == []
        assert capfd.readouterr() == ("", "")


class TestReboot:
    def test_a_session_follows_the_machine_into_its_next_boot(self, rebootable_sshd):
        server = rebootable_sshd
        with SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
            before = session.boot_id()
            with later(1, server.reboot):
                after = session.wait_for_reboot(before, Deadline.after(30))
            assert after != before
            assert session.boot_id() == after

    def test_a_machine_may_go_down_while_it_is_asked(self, rebootable_sshd):
        server = rebootable_sshd
        with SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
            before = session.boot_id()
            (server.folder / "boot_id").unlink()
            os.mkfifo(server.folder / "boot_id")  # so that the answer does not come before the machine goes down
            with later(1, server.reboot):
                assert session.wait_for_reboot(before, Deadline.after(30)) != before

    def test_a_machine_that_does_not_reboot_is_told(self, sshd, session):
        with pytest.raises(WaitTimeoutError, match="to reboot"):
            session.wait_for_reboot(session.boot_id(), Deadline.after(2))


class TestFiles:
    def test_content_goes_there_and_back(self, session, tmp_path):
        content = os.urandom(3 * MIB)
        session.write_file(f"{tmp_path}/file", content, mode=0o640)

        assert session.read_file(f"{tmp_path}/file") == content
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640

    def test_files_of_the_kernel_are_read_although_they_have_no_size(self, session):
        assert session.read_file("/proc/version") == Path("/proc/version").read_bytes()

    def test_local_files_are_copied(self, session, tmp_path):
        (tmp_path / "local").write_bytes(b"content")
        session.put(tmp_path / "local", f"{tmp_path}/remote", mode=0o755)
        session.get(f"{tmp_path}/remote", tmp_path / "back")

        assert (tmp_path / "back").read_bytes() == b"content"
        assert (tmp_path / "remote").stat().st_mode & 0o777 == 0o755

    def test_a_missing_file_is_a_missed_expectation_and_leaves_nothing(self, session, tmp_path):
        with pytest.raises(SSHCommandError, match=r"/no/such cannot be read on .*: No such file"):
            session.read_file("/no/such")
        with pytest.raises(SSHCommandError):
            session.get("/no/such", tmp_path / "copy")

        assert list(tmp_path.iterdir()) == []
        assert session.read_file("/proc/version")

    def test_a_file_that_cannot_be_written_is_an_error(self, session):
        with pytest.raises(SSHCommandError, match="/no/such cannot be written"):
            session.write_file("/no/such", b"content")

    def test_the_hosts_own_trouble_is_not_blamed_on_the_guest(self, session, tmp_path):
        with pytest.raises(ConfigError, match="cannot be copied"):
            session.put(tmp_path / "missing", "/tmp/never")
        with pytest.raises(ConfigError, match="cannot be copied"):
            session.get("/proc/version", tmp_path / "missing" / "folder")

        assert session.read_file("/proc/version")

    def test_a_file_that_takes_too_long_is_an_error(self, session):
        with at_most(5), pytest.raises(SSHCommandError, match=r"/dev/zero cannot be read within 0\.5 s"):
            session.read_file("/dev/zero", timeout=0.5)

        assert session.read_file("/proc/version")

    def test_a_file_waits_for_its_turn_no_longer_than_its_deadline(self, session):
        with ThreadPoolExecutor(1) as pool:
            endless = pool.submit(session.read_file, "/dev/zero", timeout=1.5)
            time.sleep(0.5)
            with pytest.raises(SSHCommandError, match=r"cannot be read: other files took the 0\.3 s"):
                session.read_file("/proc/version", timeout=0.3)
            with pytest.raises(SSHCommandError):
                endless.result()

    def test_the_next_file_does_not_wait_for_the_rest_of_one_that_was_given_up(self, session, tmp_path):
        with (tmp_path / "huge").open("wb") as file:
            file.truncate(64 << 30)
        with at_most(5), pytest.raises(SSHCommandError, match="cannot be read within"):
            session.get(str(tmp_path / "huge"), tmp_path / "copy", timeout=0.5)

        with at_most(2):
            assert session.read_file("/proc/version")

    def test_an_image_whose_sshd_serves_no_files_is_named(self, make_sshd):
        for options in ("", "Subsystem sftp /no/such/program"):
            server = make_sshd(options)
            with SSHSession.connect(server.endpoint, Deadline.after(20)) as session:
                with pytest.raises(SSHCommandError, match="its sshd serves no files"):
                    session.read_file("/proc/version")
                assert session.succeed("echo still here") == "still here\n"
