import errno
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_bootc.cache import SCHEMAS, About, Cache, default_home
from pytest_bootc.deadline import Deadline
from pytest_bootc.errors import Blame, ConfigError, DiskError
from pytest_bootc.progress import Silent


class Announced(Silent):
    """Keeps what was announced."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.announced = threading.Event()

    @contextmanager
    def stage(self, what, total=None):
        self.stages.append(what)
        self.announced.set()
        yield self


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


EMPTY = {"locks", *(f"{name}{version}" for name, schema in SCHEMAS.items() for version in ("", f"/{schema}"))}


def test_home_follows_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/cache")
    assert default_home() == Path("/var/tmp/cache/pytest-bootc")
    monkeypatch.setenv("HOME", "/home/me")
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_home() == Path("/home/me/.cache/pytest-bootc")


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # nobody in any passwd
    with pytest.raises(ConfigError) as caught:
        default_home()
    assert "XDG_CACHE_HOME" in caught.value.resolution


def test_folders_are_private(tmp_path):
    cache = Cache(tmp_path / "a" / "b")
    assert cache.home.stat().st_mode & 0o777 == 0o700
    assert everything(cache.home) == EMPTY
    Cache(cache.home)
    assert everything(cache.home) == EMPTY


def test_publish_a_file_and_a_folder(tmp_path):
    cache = Cache(tmp_path)
    seen = []

    def build(path):
        seen.append(path.name)
        assert not (cache.disks / "thing").exists()
        path.mkdir()
        (path / "content").write_text("x")

    cache.publish(lambda path: path.write_text("x") and None, cache.layers / "file")
    cache.publish(build, cache.disks / "thing")

    assert seen == ["thing"]
    assert everything(cache.home) == EMPTY | {"layers/v1/file", "disks/v2/thing", "disks/v2/thing/content"}


def test_publish_replaces_what_was_there(tmp_path):
    cache = Cache(tmp_path)
    for text in ("old", "new"):

        def build(path, text=text):
            path.mkdir()
            (path / text).touch()

        cache.publish(build, cache.disks / "thing")
    assert everything(cache.home) == EMPTY | {"disks/v2/thing", "disks/v2/thing/new"}


def test_a_failed_build_leaves_nothing(tmp_path):
    cache = Cache(tmp_path)

    def build(path):
        path.mkdir()
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.publish(build, cache.disks / "thing")
    assert everything(cache.home) == EMPTY


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path, number):
    cache = Cache(tmp_path)

    def build(path):
        path.touch()
        raise OSError(number, os.strerror(number), str(path))

    with pytest.raises(DiskError) as caught:
        cache.publish(build, cache.disks / "thing")
    assert "thing cannot be stored in" in caught.value.brief
    assert "the disk is full" in caught.value.brief
    assert "MiB are free on the disk of" in caught.value.details
    assert "XDG_CACHE_HOME" in caught.value.resolution
    assert caught.value.blame is Blame.LAB
    assert everything(cache.home) == EMPTY


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(tmp_path):
    cache = Cache(tmp_path)

    def build(_):
        with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"x")

    with pytest.raises(DiskError, match="the disk is full"):
        cache.publish(build, cache.disks / "thing")


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError) as caught:
        Cache(tmp_path / "file" / "cache")
    assert "cannot be made" in caught.value.brief
    assert "Not a directory" in caught.value.details


def test_require_free(tmp_path):
    cache = Cache(tmp_path)
    cache.require_free(1, "a byte")
    with pytest.raises(DiskError) as caught:
        cache.require_free(1 << 60, "an exbibyte")
    assert "no room for an exbibyte" in caught.value.brief
    assert "needed 1099511627776 MiB at least" in caught.value.details


def test_a_lock_on_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    cache = Cache(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskError, match="it cannot be locked: the disk is full"), cache.lock("it", Deadline.after(5)):
        pass
    assert list((tmp_path / "locks").iterdir()) == []
    monkeypatch.undo()
    with cache.lock("it", Deadline.after(5)):
        assert (tmp_path / "locks" / "it").exists()


def test_lock_excludes_threads(tmp_path):
    cache, active, most = Cache(tmp_path), [], []

    def work():
        for _ in range(1500):
            try:
                with cache.lock("x", Deadline.after(0)):
                    active.append(1)
                    os.sched_yield()
                    most.append(len(active))
                    active.pop()
            except DiskError:  # another one had it
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) > 100
    assert set(most) == {1}
    assert everything(cache.home) == EMPTY


def test_a_wait_is_announced_and_ends(tmp_path):
    cache, announced = Cache(tmp_path), Announced()

    def second():
        with cache.lock("layer-x", Deadline.after(20), announced):
            announced.stages.append("got it")

    with cache.lock("layer-x", Deadline.after(1)):
        thread = threading.Thread(target=second)
        thread.start()
        assert announced.announced.wait(10)
        assert announced.stages == [f"waiting for process {os.getpid()}, which works on layer-x"]
    thread.join()
    assert announced.stages[1:] == ["got it"]


def test_a_lock_that_is_never_released(tmp_path):
    cache = Cache(tmp_path)
    with cache.lock("x", Deadline.after(1)):
        with pytest.raises(DiskError) as caught, cache.lock("x", Deadline.after(0.1)):
            pass
        assert f"waited 0.1 s for process {os.getpid()}, which works on x" in caught.value.brief
    with cache.lock("x", Deadline.after(0)):
        pass


def test_a_wait_can_be_given_up(tmp_path):
    cache = Cache(tmp_path)

    def give_up():
        raise InterruptedError

    with (
        cache.lock("x", Deadline.after(1)),
        pytest.raises(InterruptedError),
        cache.lock("x", Deadline.after(20), check=give_up),
    ):
        pass


def test_what_is_made_beside_an_entry_is_made_where_leftovers_are_looked_for(tmp_path):
    cache = Cache(tmp_path)
    thing = make(cache, cache.layers / "thing")
    with cache.draft(thing / "index") as draft:
        assert draft.path.parent.parent == cache.layers
        assert not list(thing.iterdir())
        draft.path.touch()
        draft.publish()
    assert everything(tmp_path) == EMPTY | {"layers/v1/thing", "layers/v1/thing/index"}


BUILDER = """
import sys, time
from pathlib import Path
from pytest_bootc.deadline import Deadline
from pytest_bootc.cache import Cache

cache = Cache(Path(sys.argv[1]))

def build(path):
    path.mkdir()
    (path / "half").touch()
    print("building", flush=True)
    time.sleep(60)

with cache.lock("x", Deadline.after(1)):
    cache.publish(build, cache.disks / "thing")
"""


@pytest.fixture
def builder(tmp_path):
    """Another process in the middle of a build."""
    with subprocess.Popen([sys.executable, "-c", BUILDER, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        yield process
        process.kill()


def test_what_a_living_builder_makes_is_left_alone(tmp_path, builder):
    before = everything(tmp_path)
    cache = Cache(tmp_path)
    assert everything(tmp_path) == before
    assert any(name.endswith("/half") for name in before)
    assert not (cache.disks / "thing").exists()
    with (
        pytest.raises(DiskError, match=f"for process {builder.pid}, which works on x"),
        cache.lock("x", Deadline.after(0.05)),
    ):
        pass


def test_what_a_dead_builder_made_is_removed(tmp_path, builder):
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert any(name.endswith("/half") for name in everything(tmp_path))

    cache = Cache(tmp_path)

    assert everything(tmp_path) == EMPTY
    with cache.lock("x", Deadline.after(0)):
        cache.publish(Path.touch, cache.disks / "thing")
    assert everything(tmp_path) == EMPTY | {"disks/v2/thing"}


USER = """
import sys
from pathlib import Path
from pytest_bootc.deadline import Deadline
from pytest_bootc.cache import Cache

cache = Cache(Path(sys.argv[1]))
with cache.lease(cache.disks / "thing", Deadline.after(5)):
    print("using", flush=True)
    sys.stdin.read()
"""


def make(cache: Cache, final: Path, about: About | None = None) -> Path:
    cache.publish(Path.mkdir, final, about)
    return final


@pytest.fixture
def user(tmp_path):
    """Another process that uses an entry."""
    command = [sys.executable, "-c", USER, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"using\n"
        yield process
        process.kill()


def test_what_is_used_is_not_removed(tmp_path, user):
    cache = Cache(tmp_path)
    thing = make(cache, cache.disks / "thing")
    assert not cache.remove(thing)
    with cache.lease(thing, Deadline.after(0)):  # both may use it
        user.stdin.close()
        user.wait()
        assert not cache.remove(thing)
    assert cache.remove(thing)
    assert everything(tmp_path) == EMPTY


def test_what_a_dead_process_used_is_free(tmp_path, user):
    cache = Cache(tmp_path)
    thing = make(cache, cache.disks / "thing")
    user.send_signal(signal.SIGKILL)
    user.wait()
    assert cache.remove(thing)
    assert everything(tmp_path) == EMPTY


def test_a_lease_is_handed_on(tmp_path):
    cache = Cache(tmp_path)
    thing = make(cache, cache.disks / "thing")
    with cache.lease(thing, Deadline.after(5)) as lease:
        heir = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lease.fileno()])
    with heir:
        assert not cache.remove(thing)
        assert not Cache(tmp_path).remove(thing)
        assert thing.exists()
    assert cache.remove(thing)
    assert everything(tmp_path) == EMPTY


def test_a_child_that_is_just_being_started_keeps_no_lease(tmp_path):
    """Until it has become its program it has copies of all descriptors."""
    cache = Cache(tmp_path)
    with cache.lease(cache.layers / "aa", Deadline.after(5)) as lease:
        copy = os.dup(lease._descriptor)
    assert list((tmp_path / "locks").iterdir()) == []
    os.close(copy)


def test_leases_that_end_one_after_the_other(tmp_path):
    cache = Cache(tmp_path)
    with cache.lease(cache.layers / "aa", Deadline.after(5)):
        with cache.lease(cache.layers / "aa", Deadline.after(5)):
            pass
        assert not cache.remove(cache.layers / "aa")
        assert cache.users(cache.layers / "aa")
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_lease_waits_while_its_entry_is_removed(tmp_path):
    cache, got = Cache(tmp_path), threading.Event()
    thing = make(cache, cache.disks / "thing")

    def use():
        with cache.lease(thing, Deadline.after(20)):
            got.set()

    thread = threading.Thread(target=use)

    def needed() -> bool:
        thread.start()
        with (
            pytest.raises(DiskError, match=r"which works on disks\.thing\.lease"),
            cache.lease(thing, Deadline.after(0)),
        ):
            pass
        return got.is_set()

    assert cache.remove(thing, needed)
    thread.join()
    assert got.is_set()


def test_what_is_needed_stays(tmp_path):
    cache = Cache(tmp_path)
    thing = make(cache, cache.disks / "thing")
    assert not cache.remove(thing, lambda: True)
    assert thing.exists()
    assert cache.remove(thing)
    assert not cache.remove(thing)


def test_the_time_of_the_last_use(tmp_path):
    cache = Cache(tmp_path)
    thing = make(cache, cache.disks / "thing")
    os.utime(thing, (1, 1))
    with cache.lease(thing, Deadline.after(5)):
        assert thing.stat().st_mtime > 1
        os.utime(thing, (1, 1))
    assert thing.stat().st_mtime > 1


def test_what_an_entry_says_of_itself(tmp_path):
    cache = Cache(tmp_path)
    said = About("example.org/os:1", "sha256:ab", (cache.name_of(cache.layers / "cd"),))
    thing = make(cache, cache.warm / "thing", said)
    assert said.needs == ("layers/cd",)
    assert cache.about(thing) == said
    assert cache.about(make(cache, cache.disks / "silent")) is None
    (thing / "entry.json").write_text('{"image": "x"}')
    assert cache.about(thing) is None


def test_a_draft_is_published_or_gone(tmp_path):
    cache = Cache(tmp_path)
    for publish in (False, True):
        with cache.draft(cache.warm / "thing") as draft:
            draft.path.mkdir()
            (draft.path / "ram").touch()
            Cache(tmp_path)  # whoever begins meanwhile leaves it alone
            if publish:
                draft.publish(About("os"))
            assert (cache.warm / "thing").exists() == publish
    assert everything(tmp_path) == EMPTY | {f"warm/v1/thing{name}" for name in ("", "/ram", "/entry.json")}


def test_other_versions_are_left_alone(tmp_path):
    others = [tmp_path / "disks" / "v1" / "key", tmp_path / "layers" / "v99" / ".x.building"]
    for other in others:
        other.mkdir(parents=True)
    cache = Cache(tmp_path)
    assert all(other.exists() for other in others)
    assert not any(store in other.parents for other in others for store in (cache.disks, cache.layers))
