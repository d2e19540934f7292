"""The variants, made from a small stand-in for the server image."""

import hashlib
from pathlib import Path

import oci
import oddities
import pytest
import variants
from oci import Compression, Entry, Layer, Layout

KERNEL = "usr/lib/modules/6.1.0/vmlinuz"
MODULES = {name: f"usr/lib/modules/6.1.0/kernel/{name}.ko.xz" for name in ("virtio_blk", "erofs", "nls_utf8")}
LDCONFIG = "usr/lib/systemd/system/sysinit.target.wants/ldconfig.service"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
NEWUIDMAP = Entry("usr/bin/newuidmap", data=b"map", mode=0o4755, xattrs={"security.capability": b"all"})
CONFIG = {"architecture": "amd64", "os": "linux", "config": {}}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A few hundred files, hard links across folders, and the two odd layers."""
    files = [Entry(f"usr/share/part-{number % 7}/{number}", data=b"%d" % number) for number in range(200)]
    files += [Entry(f"usr/{name}/linked", data=b"linked", inode="linked") for name in ("a", "z")]
    for path in (*variants.SSHD, KERNEL, *MODULES.values(), LDCONFIG):
        files += [Entry(path, data=path.encode()), Entry(f"{path}-neighbour")]
    files += [Entry(f"{LIBRARIES}/libz.so.1.3", data=b"ELF libc.so.6\0libz.so.1\0"), NEWUIDMAP]
    files += [oci.symlink(f"{LIBRARIES}/libz.so.1", "libz.so.1.3")]
    tree = {entry.path: entry for entry in files} | {"empty": oci.directory("empty", 0o700)}
    for path in list(tree):
        tree |= {folder: oci.directory(folder) for folder in oci.parents(path)}
    writer = oci.LayoutWriter(tmp_path_factory.mktemp("server") / "layout")
    writer.add_layer(Layer(list(tree.values()), Compression.ZSTD, "files"))
    writer.add_layer(Layer(oddities.below(Entry("busybox", data=b"busybox")), Compression.NONE, "below"))
    writer.add_layer(Layer(oddities.above(), Compression.GZIP, "above"))
    writer.finish(CONFIG, "latest")
    return Layout.read(writer.path)


def make(name: str, server: Layout, folder: Path) -> Layout:
    variants.MAKERS[name](server, folder / name, "v1")
    return Layout.read(folder / name)


def merged(layout: Layout, folder: Path) -> dict[str, Entry]:
    scratch = folder / f"scratch-{layout.path.name}"
    scratch.mkdir()
    return oci.merge(layout.entries(scratch))


def wrong_blobs(layout: Layout) -> list[str]:
    described = [layout.manifest["config"], *layout.manifest["layers"]]
    bodies = {digest: oci.blob(layout.path, digest).read_bytes() for digest in (each["digest"] for each in described)}
    return [digest for digest, body in bodies.items() if digest != "sha256:" + hashlib.sha256(body).hexdigest()]


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("no-kernel", {KERNEL}),
        ("no-sshd", set(variants.SSHD)),
        ("no-virtio-blk", {MODULES["virtio_blk"]}),
    ],
)
def test_hiding_variants_hide_just_that(server: Layout, tmp_path: Path, name: str, hidden: set[str]) -> None:
    before = merged(server, tmp_path)
    after = merged(make(name, server, tmp_path), tmp_path)
    assert set(before) - set(after) == hidden
    assert set(after) <= set(before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-kernel", r"expected one file with a path that ends with /vmlinuz, found \[\]"),
        ("no-sshd", r"nothing to hide at \['etc/.*sshd\.service', "),
    ],
)
def test_hiding_what_is_not_there_is_an_error(server: Layout, tmp_path: Path, name: str, message: str) -> None:
    bare = make(name, server, tmp_path)
    with pytest.raises(variants.VariantError, match=message):
        variants.MAKERS[name](bare, tmp_path / "again", "v1")


@pytest.mark.parametrize(
    ("name", "unit", "line"),
    [
        ("failing-unit", "multi-user.target.wants/broken-on-purpose", b"ExecStart=/usr/bin/false\n"),
        ("stuck-unit", "multi-user.target.wants/stuck-on-purpose", b"TimeoutStartSec=infinity\n"),
        ("ordering-cycle", "multi-user.target.wants/egg-on-purpose", b"Before=hen-on-purpose.service\n"),
        ("skipped-unit", "multi-user.target.wants/skipped-on-purpose", b"ConditionPathExists=/nowhere\n"),
        ("boot-panic", "sysinit.target.wants/panic-on-purpose", b"DefaultDependencies=no\n"),
        ("hang-before-sshd", "multi-user.target.wants/hang-on-purpose", b"Before=ssh.service sshd.service\n"),
        ("neglected", "multi-user.target.wants/neglect", b"ExecStart=/usr/libexec/neglect\n"),
    ],
)
def test_units_are_enabled(server: Layout, tmp_path: Path, name: str, unit: str, line: bytes) -> None:
    tree = merged(make(name, server, tmp_path), tmp_path)
    wanted = tree[f"etc/systemd/system/{unit}.service"]
    assert line in oci.content(tree[wanted.target.lstrip("/")])


def test_boots_that_go_elsewhere(server: Layout, tmp_path: Path) -> None:
    emergency = merged(make("emergency-shell", server, tmp_path), tmp_path)
    assert oci.content(emergency["etc/fstab"]).startswith(b"/dev/disk/by-label/nowhere /var/nowhere ext4 ")
    target = merged(make("wrong-target", server, tmp_path), tmp_path)["etc/systemd/system/default.target"]
    assert target.target == "/usr/lib/systemd/system/rescue.target"


def test_another_module_has_the_name_of_the_roots(server: Layout, tmp_path: Path) -> None:
    tree = merged(make("unknown-root", server, tmp_path), tmp_path)
    assert oci.content(tree[MODULES["erofs"]]) == MODULES["nls_utf8"].encode()


def test_neglected_has_all_its_faults(server: Layout, tmp_path: Path) -> None:
    tree = merged(make("neglected", server, tmp_path), tmp_path)
    helper = tree[NEWUIDMAP.path]
    assert (helper.mode, helper.xattrs, oci.content(helper)) == (0o755, {}, b"map")
    assert oci.content(tree[f"{LIBRARIES}/libq.so.1"]) == b"ELF libc.so.6\0libq.so.1\0"
    assert LDCONFIG not in tree
    assert tree["usr/libexec/neglect"].mode == 0o755


def test_arm64_changes_only_what_the_image_says(server: Layout, tmp_path: Path) -> None:
    layout = make("arm64", server, tmp_path)
    assert layout.config["architecture"] == "arm64"
    assert layout.manifest["layers"] == server.manifest["layers"]


def test_flipped_breaks_one_blob_and_leaves_the_server_whole(server: Layout, tmp_path: Path) -> None:
    layout = make("flipped", server, tmp_path)
    last = layout.manifest["layers"][-1]
    assert wrong_blobs(layout) == [last["digest"]]
    assert oci.blob(layout.path, last["digest"]).stat().st_size == last["size"]
    assert wrong_blobs(server) == []


def test_128_layers_show_the_same_root(server: Layout, tmp_path: Path) -> None:
    layout = make("server-128", server, tmp_path)
    scratch = tmp_path / "layers"
    scratch.mkdir()
    layers = layout.entries(scratch)
    assert len(layers) == 128
    for entries in layers:
        paths = {entry.path for entry in entries}
        assert {folder for path in paths for folder in oci.parents(path)} <= paths
    tree, expected = oci.merge(layers), merged(server, tmp_path)
    assert set(tree) == set(expected)
    assert all(oci.content(tree[path]) == oci.content(entry) for path, entry in expected.items())
    assert {path: entry.mode for path, entry in tree.items()} == {path: entry.mode for path, entry in expected.items()}
    assert tree["usr/a/linked"].inode == tree["usr/z/linked"].inode != ""
