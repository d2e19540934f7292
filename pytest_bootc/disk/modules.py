"""Kernel modules of an image: which there are, what they need, and their bytes.

Read from the files that depmod(8) writes: modules.builtin, modules.dep, modules.softdep and modules.alias.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable
from pathlib import PurePosixPath

import zstandard

from pytest_bootc.disk.tree import Tree
from pytest_bootc.errors import ImageError


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
        """The modules to load for these, what each needs before it; those built in are left out.

        :raises ImageError: the kernel has one of the names neither built in nor as a module.
        """
        order: list[str] = []
        for name in names:
            if not self.has(name):
                raise ImageError(
                    f"the kernel {self.release} of the image has no {name}, neither built in nor as a module",
                    resolution="a machine of this kind needs it: add the module to the image",
                )
            self._visit(name, order)
        return order

    def read(self, name: str) -> bytes:
        """The module as the kernel loads it: decompressed, with its signature.

        :raises ImageError: the file is missing or broken.
        """
        path = f"{self._folder}/{self._files[name]}"
        content = self._tree.read(path)
        try:
            return _decompressed(path, content)
        except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
            raise ImageError(f"the kernel module /{path} of the image is broken: {error}") from error

    def _visit(self, name: str, order: list[str]) -> None:
        if name in order or name in self._builtin or name not in self._files:
            return
        for need in [*self._before.get(name, ()), *reversed(self._needs[name])]:
            self._visit(need, order)
        order.append(name)

    def _soft_dependencies(self) -> dict[str, list[str]]:
        """What ``softdep NAME pre: ...`` asks for; the names may be aliases (ext4 asks for crypto-crc32c)."""
        aliases: dict[str, str] = {}
        for line in self._lines("modules.alias"):
            words = line.split()
            if len(words) == 3 and words[0] == "alias":
                aliases.setdefault(words[1], _name(words[2]))
        before: dict[str, list[str]] = {}
        for line in self._lines("modules.softdep"):
            words = line.split()
            if len(words) < 3 or words[0] != "softdep" or words[2] != "pre:":
                continue
            wanted = words[3 : words.index("post:")] if "post:" in words else words[3:]
            before[_name(words[1])] = [aliases.get(word, _name(word)) for word in wanted]
        return before

    def _lines(self, name: str) -> list[str]:
        path = f"{self._folder}/{name}"
        return self._tree.read(path).decode(errors="replace").splitlines() if self._tree.is_file(path) else []


def _name(path: str) -> str:
    return PurePosixPath(path.strip()).name.partition(".ko")[0].replace("-", "_")


def _decompressed(path: str, content: bytes) -> bytes:
    if path.endswith(".xz"):
        return lzma.decompress(content)
    if path.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    if path.endswith(".gz"):
        return gzip.decompress(content)
    return content
