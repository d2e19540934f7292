"""The merged tree, made of real layer tars."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_bootc.disk.tar import EntryKind, TarEntry, scan
from pytest_bootc.disk.tree import Tree, implied_folder
from pytest_bootc.errors import ImageError

Member = tuple[tarfile.TarInfo, bytes]
FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}
OPAQUE = ".wh..wh..opq"


class Layers:
    """Makes layers, and puts them on top of each other."""

    def __init__(self, folder: Path, member: Callable[..., Member], tar_of: Callable[..., bytes]) -> None:
        self._folder = folder
        self._member = member
        self._tar_of = tar_of
        self.missing: list[dict[str, TarEntry]] = []

    def tree(self, *layers: list[Member]) -> Tree:
        paths = []
        for number, members in enumerate(layers):
            path = self._folder / f"{number}.tar"
            path.write_bytes(self._tar_of(*members))
            paths.append(path)
        merged = Tree(paths)
        self.missing = [merged.apply(scan(path)) for path in paths]
        return merged

    def file(self, name: str, content: bytes = b"", **header: Any) -> Member:
        return self._member(name, content, **header)

    def folder(self, name: str, **header: Any) -> Member:
        return self._member(name, **{**FOLDER, **header})

    def link(self, name: str, target: str) -> Member:
        return self._member(name, type=tarfile.SYMTYPE, linkname=target)

    def hard(self, name: str, target: str) -> Member:
        return self._member(name, type=tarfile.LNKTYPE, linkname=target)


@pytest.fixture
def layers(tmp_path: Path, member: Callable[..., Member], tar_of: Callable[..., bytes]) -> Layers:
    return Layers(tmp_path, member, tar_of)


def paths(tree: Tree) -> list[str]:
    """Everything, each name seen from below the root; the two ways to look must agree."""
    below = [path for path, _ in tree.below("")]
    assert sorted(below) == sorted(tree.nodes)
    for path in below:
        parent, _, name = path.rpartition("/")
        assert not path or name in tree.names(parent) or tree.real_path(parent) != parent
    return below


def test_layers_add_up(layers: Layers) -> None:
    tree = layers.tree(
        [layers.folder("a"), layers.file("a/x", b"low"), layers.file("a/y", b"kept")],
        [layers.folder("a", mode=0o700), layers.file("a/x", b"high"), layers.file("b", b"new")],
    )
    assert paths(tree) == ["a", "a/x", "a/y", "b"]
    assert [tree.read(path) for path in ("a/x", "a/y", "b")] == [b"high", b"kept", b"new"]
    assert tree.nodes["a"].entry.mode == 0o700
    assert [tree.nodes[path].layer for path in ("a", "a/x", "a/y")] == [1, 1, 0]
    assert layers.missing == [{}, {}]


def test_parents_come_before_their_children_in_order(layers: Layers) -> None:
    names = ["b", "a-b", "a/z", "a/b/c", "a", "a/b"]
    tree = layers.tree([layers.folder(name) for name in names])
    assert paths(tree) == ["a", "a/b", "a/b/c", "a/z", "a-b", "b"]
    assert [path for path, _ in tree.below("a")] == ["a", "a/b", "a/b/c", "a/z"]
    assert list(tree.below("nothing")) == []


def test_a_whiteout_removes_what_lower_layers_have(layers: Layers) -> None:
    tree = layers.tree(
        [layers.folder("a"), layers.file("a/gone"), layers.folder("a/f"), layers.file("a/f/inner"), layers.file("a/k")],
        [layers.folder("a"), layers.file("a/.wh.gone"), layers.file("a/.wh.f")],
    )
    assert paths(tree) == ["a", "a/k"]
    assert tree.names("a") == ("k",)
    assert tree.useless_whiteouts == []


@pytest.mark.parametrize("first", [True, False])
def test_an_opaque_whiteout_spares_its_own_layer_wherever_it_stands(layers: Layers, first: bool) -> None:  # noqa: FBT001
    opaque, new = layers.file(f"a/{OPAQUE}"), layers.file("a/new")
    tree = layers.tree(
        [layers.folder("a"), layers.file("a/old"), layers.folder("a/sub"), layers.file("a/sub/old")],
        [layers.folder("a", mode=0o711), *([opaque, new] if first else [new, opaque])],
    )
    assert paths(tree) == ["a", "a/new"]
    assert tree.nodes["a"].entry.mode == 0o711
    assert not tree.emptied_root


def test_an_opaque_root_leaves_only_its_own_layer(layers: Layers) -> None:
    tree = layers.tree([layers.file("old"), layers.file("x/old")], [layers.file(OPAQUE), layers.file("new")])
    assert paths(tree) == ["new"]
    assert tree.emptied_root


def test_a_useless_whiteout_is_told(layers: Layers) -> None:
    tree = layers.tree([layers.folder("a")], [layers.folder("a"), layers.file("a/.wh.never"), layers.file(".wh.no")])
    assert sorted(tree.useless_whiteouts) == ["a/never", "no"]
    assert paths(tree) == ["a"]


def test_what_a_removal_lies_in_is_a_folder(layers: Layers) -> None:
    """Who unpacks a layer makes the folder to put the whiteout in."""
    tree = layers.tree(
        [layers.folder("kept", mode=0o700), layers.file("kept/old"), layers.file("file")],
        [
            layers.file("x/y/.wh.z"),
            layers.file(f"empty/{OPAQUE}"),
            layers.file(f"filled/{OPAQUE}"),
            layers.file("filled/new"),
            layers.file(f"kept/{OPAQUE}"),
            layers.file(f"file/{OPAQUE}"),
        ],
    )
    assert paths(tree) == ["empty", "file", "filled", "filled/new", "kept", "x", "x/y"]
    assert tree.lookup("filled/new") is not None
    made = {path: (node.entry.kind, node.entry.mode) for path, node in tree.below("") if path != "filled/new"}
    assert set(made.values()) == {(EntryKind.FOLDER, 0o755), (EntryKind.FOLDER, 0o700)}
    assert made["kept"][1] == 0o700
    assert sorted(layers.missing[1]) == ["empty", "file", "filled", "kept", "x", "x/y"]
    assert layers.missing[1]["kept"].mode == 0o700


def test_a_file_takes_the_place_of_a_folder(layers: Layers) -> None:
    tree = layers.tree(
        [layers.folder("a"), layers.file("a/x"), layers.folder("a/s"), layers.file("a/s/y")],
        [layers.file("a", b"file")],
    )
    assert paths(tree) == ["a"]
    assert tree.read("a") == b"file"
    assert tree.names("a") == ()


@pytest.mark.parametrize("listed", [True, False])
def test_a_folder_takes_the_place_of_a_file_or_link(layers: Layers, listed: bool) -> None:  # noqa: FBT001
    below = [layers.file("a", b"file"), layers.link("l", "elsewhere")]
    above = [layers.file("a/x", b"x"), layers.file("l/x", b"y")]
    tree = layers.tree(below, [*([layers.folder("a"), layers.folder("l")] if listed else []), *above])
    assert paths(tree) == ["a", "a/x", "l", "l/x"]
    assert tree.nodes["l"].entry.kind is EntryKind.FOLDER
    assert (tree.read("a/x"), tree.read("l/x")) == (b"x", b"y")
    assert sorted(layers.missing[1]) == ([] if listed else ["a", "l"])


def test_parents_that_no_layer_lists_are_implied(layers: Layers) -> None:
    tree = layers.tree([layers.file("a/b/c/file")])
    assert paths(tree) == ["a", "a/b", "a/b/c", "a/b/c/file"]
    assert tree.nodes["a/b"].entry == implied_folder("a/b")
    assert layers.missing == [{path: implied_folder(path) for path in ("a", "a/b", "a/b/c")}]
    folder = implied_folder("a")
    assert (folder.kind, folder.mode, folder.uid, folder.gid, folder.mtime) == (EntryKind.FOLDER, 0o755, 0, 0, 0)


def test_a_folder_that_is_not_listed_keeps_what_lower_layers_said(layers: Layers) -> None:
    tree = layers.tree(
        [layers.folder("a", mode=0o750, uid=7, pax_headers={"SCHILY.xattr.user.x": "1"}), layers.file("a/old")],
        [layers.file("a/new")],
    )
    (told,) = layers.missing[1].values()
    assert (told.mode, told.uid, told.xattrs) == (0o750, 7, {"user.x": b"1"})
    assert tree.nodes["a"].layer == 0


def test_hard_links_are_one_file(layers: Layers) -> None:
    tree = layers.tree(
        [layers.file("one", b"content"), layers.hard("two", "one"), layers.hard("x/three", "two")],
        [layers.file(".wh.one"), layers.file("four", b"other")],
    )
    assert paths(tree) == ["four", "two", "x", "x/three"]
    assert tree.nodes["two"].entry is tree.nodes["x/three"].entry
    assert tree.read("x/three") == b"content"
    assert tree.nodes["four"].entry is not tree.nodes["two"].entry


@pytest.mark.parametrize("target", ["there", "nowhere", "folder"])
def test_a_hard_link_does_not_leave_its_layer(layers: Layers, target: str) -> None:
    with pytest.raises(ImageError) as caught:
        layers.tree(
            [layers.file("there", b"x")],
            [layers.file("folder/x"), layers.hard("link", target)],
        )
    assert caught.value.brief == f"layer 2 makes /link a hard link to /{target}, and has no such file itself"
    assert caught.value.resolution


def test_a_file_that_is_linked_anew_is_one_of_its_own_layer(layers: Layers) -> None:
    tree = layers.tree(
        [layers.file("a", b"old"), layers.hard("b", "a"), layers.hard("c", "a")],
        [layers.file("a", b"new"), layers.hard("b", "a")],
    )
    assert [tree.read(name) for name in "abc"] == [b"new", b"new", b"old"]
    assert tree.nodes["a"].entry is tree.nodes["b"].entry is not tree.nodes["c"].entry


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("etc/conf", "etc/conf"),
        ("/etc//./conf", "etc/conf"),
        ("", ""),
        ("..", ""),
        ("lib/mod", "usr/lib/mod"),
        ("lib", "usr/lib"),
        ("usr/abs/mod", "usr/lib/mod"),
        ("usr/up", "etc"),
        ("usr/up/conf", "etc/conf"),
        ("chain/conf", "etc/conf"),
        ("usr/out", "etc"),
        ("lib/../lib/mod", "usr/lib/mod"),
        ("dangling", None),
        ("dangling/x", None),
        ("loop", None),
        ("self", None),
        ("etc/conf/x", None),
        ("nothing", None),
    ],
)
def test_links_are_followed_inside_the_image(layers: Layers, path: str, real: str | None) -> None:
    tree = layers.tree(
        [
            layers.folder("etc"),
            layers.file("etc/conf", b"conf"),
            layers.folder("usr"),
            layers.folder("usr/lib"),
            layers.file("usr/lib/mod"),
            layers.link("lib", "usr/lib"),
            layers.link("usr/abs", "/usr/lib"),
            layers.link("usr/up", "../etc"),
            layers.link("usr/out", "../../../../etc"),
            layers.link("chain", "usr/up"),
            layers.link("dangling", "no/where"),
            layers.link("loop", "pool"),
            layers.link("pool", "loop"),
            layers.link("self", "self/x"),
        ]
    )
    assert tree.real_path(path) == real
    assert tree.lookup(path) is (tree.nodes.get(real) if real else None)
    assert tree.is_file(path) == (real in ("etc/conf", "usr/lib/mod"))
    if real == "usr/lib":
        assert tree.names(path) == ("mod",)


def test_forty_links_are_followed_and_no_more(layers: Layers) -> None:
    chain = [layers.link(f"l{n}", f"l{n + 1}") for n in range(41)]
    tree = layers.tree([*chain, layers.file("l41")])
    assert tree.real_path("l1") == "l41"
    assert tree.real_path("l0") is None


def test_what_cannot_be_read_is_an_error_that_names_it(layers: Layers) -> None:
    tree = layers.tree([layers.folder("etc"), layers.link("l", "gone")])
    for path in ("etc", "l", "gone"):
        with pytest.raises(ImageError, match=f"the image has no file /{path}"):
            tree.read(path)


def test_the_root_has_an_entry_only_where_a_layer_lists_it(layers: Layers) -> None:
    assert layers.tree([layers.file("a")]).lookup("") is None
    tree = layers.tree([layers.folder("./", mode=0o700), layers.file("./a")], [layers.file("b")])
    assert paths(tree) == ["", "a", "b"]
    root = tree.lookup("")
    assert root is not None
    assert root.entry.mode == 0o700
    assert layers.missing == [{}, {}]


def test_folders_may_be_as_deep_as_a_path_may_be_long(layers: Layers) -> None:
    deep = "/".join("d" * 2000)
    tree = layers.tree([layers.file(f"{deep}/file")], [layers.file(".wh.d")], [layers.file(f"{deep}/other")])
    assert len(list(tree.below(""))) == 2001
    assert tree.real_path(f"{deep}/other") == f"{deep}/other"
    assert tree.real_path(f"{deep}/file") is None
