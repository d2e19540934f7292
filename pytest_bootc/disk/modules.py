"""Kernel modules of an image: which there are, what they need, and their bytes.

Read from the files that depmod(8) writes: modules.builtin, modules.dep, modules.softdep and modules.alias.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from pytest_bootc.disk.packed import PackedError, unpack
from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import ImageError

_ELF = b"\x7fELF"


class KernelModules:
    """The modules of one kernel release."""

    def __init__(self, tree: Tree, release: str) -> None:
        self._tree = tree
        self._folder = f"usr/lib/modules/{release}"
        self.release = release
        self._builtin = {_name(line) for line in self._lines("modules.builtin")}
        self._files: dict[str, str] = {}
        self._needs: dict[str, list[str]] = {}
        for line in self._lines("modules.dep"):
            file, _, needs = line.partition(":")
            self._files[_name(file)] = file.strip()
            self._needs[_name(file)] = [_name(need) for need in needs.split()]
        self._before = self._soft_dependencies()

    def has(self, name: str) -> bool:
        """Whether the kernel can do this: built in, or as a module."""
        return name in self._builtin or name in self._files

    def load_order(self, names: Iterable[str]) -> list[str]:
        """The modules to load for these, each after what it needs; those built in are left out.

        :raises ImageError: the kernel has one of the names neither built in nor as a module.
        """
        order: dict[str, None] = {}
        for name in names:
            if not self.has(name):
                raise ImageError(
                    f"the kernel {self.release} of the image has no {name}, neither built in nor as a module",
                    resolution="a machine of this kind needs it: add the module to the image",
                )
            self._visit(name, order, set())
        return list(order)

    def read(self, name: str) -> bytes:
        """The module as the kernel loads it: decompressed, with its signature.

        :raises ImageError: the file is missing or broken.
        """
        path = f"{self._folder}/{self._files[name]}"
        content = self._tree.read(path)
        if content.startswith(_ELF):
            return content
        try:
            module = unpack(content)
        except PackedError as error:
            raise ImageError(f"the kernel module /{path} of the image is broken: {error}") from error
        if not module.startswith(_ELF):
            raise ImageError(f"the kernel module /{path} of the image is broken: it is no ELF file")
        return module

    def _visit(self, name: str, order: dict[str, None], begun: set[str]) -> None:
        if name in begun or name in order or name in self._builtin or name not in self._files:
            return
        begun.add(name)  # soft dependencies may go in circles
        for need in [*self._before.get(name, ()), *reversed(self._needs[name])]:
            self._visit(need, order, begun)
        order[name] = None

    def _soft_dependencies(self) -> dict[str, list[str]]:
        """What ``softdep NAME pre: ...`` asks for, in any number of lines.

        A word that is no module's name is an alias, mostly of several modules (ext4 of Linux 6.1 asks for crc32c):
        all of them are loaded, as modprobe(8) does, since those that the processor has no instructions for refuse.
        """
        aliases: dict[str, list[str]] = {}
        for line in self._lines("modules.alias"):
            words = line.split()
            if len(words) == 3 and words[0] == "alias":
                aliases.setdefault(_underscored(words[1]), []).append(_underscored(words[2]))
        before: dict[str, list[str]] = {}
        for line in self._lines("modules.softdep"):
            keyword, name, *words = [*line.split(), "", ""]
            if keyword != "softdep":
                continue
            known, section = before.setdefault(_underscored(name), []), ""
            for word in map(_underscored, words):
                if word in ("pre:", "post:"):
                    section = word
                elif section == "pre:":
                    known += [word] if self.has(word) else aliases.get(word, ())
        return before

    def _lines(self, name: str) -> list[str]:
        path = f"{self._folder}/{name}"
        return self._tree.read(path).decode(errors="replace").splitlines() if self._tree.is_file(path) else []


def _name(path: str) -> str:
    return _underscored(PurePosixPath(path.strip()).name.partition(".ko")[0])


def _underscored(name: str) -> str:
    """Modules are named either way; the kernel itself has underscores."""
    return name.replace("-", "_")
