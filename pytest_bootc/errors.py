"""Every error that this package raises on purpose.

::

    BootcTestError                blame
    ├── ConfigError               usage   options, programs that are missing, unreadable files
    ├── ImageError                image   the image cannot be what it claims (no kernel, no sshd, hostile layer)
    │   └── ImageReferenceError   usage   the reference cannot be read, or names nothing for this host
    ├── RegistryError             lab     a registry, layout or archive did not deliver
    │   └── DigestMismatchError   lab     ... or delivered other bytes than were asked for
    ├── DiskError                 lab     making the golden disk failed on the host
    ├── BackendError              lab     the machine's host side: QEMU, storage, cluster
    │   ├── ProvisionError        lab     ... it never came to run
    │   ├── MachineLostError      lab     ... it ran, and its host side failed (QEMU ended or stopped, host disk full)
    │   ├── BootError             image   ... it ran, and the image did not come up (panic, no init)
    │   ├── BootTimeoutError      image   ... it ran, and said nothing more until the deadline
    │   └── CrashError            image   ... it was up, and the guest crashed or hung (panic, oops, emergency shell)
    ├── SSHError                  image
    │   ├── SSHConnectError       image   sshd of a running machine did not let us in
    │   └── SSHCommandError       image   a command did not do what was expected (also an AssertionError)
    ├── GuestError                image   the guest answers, but not what was asked
    │   └── HealthError           image   ... it is not well (failed unit, coredump; also an AssertionError)
    └── WaitTimeoutError          image   a wait reached its deadline (also an AssertionError)

An error that is also an :class:`AssertionError` is a missed expectation: pytest and Allure call such a test
*failed*; all others are *errors* (Allure: broken). ``blame`` says whose fault it is; the verdict is made of it.
"""

from __future__ import annotations

from enum import Enum


class Blame(Enum):
    """Whose fault an error is."""

    USAGE = "usage"
    IMAGE = "image"
    LAB = "lab"


class BootcTestError(Exception):
    """An error with a sentence for each question: what (brief), proof (details), what to do (resolution)."""

    blame: Blame = Blame.LAB

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        lines = [self.brief]
        lines += [f"  {line}" for line in self.details.splitlines()]
        if self.resolution:
            lines.append(f"What to do: {self.resolution}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # The default rebuilds from args alone and would lose the keyword-only parts on the way from a worker.
        return (_rebuild, (type(self), self.brief, self.details, self.resolution))


def _rebuild(kind: type[BootcTestError], brief: str, details: str, resolution: str) -> BootcTestError:
    return kind(brief, details=details, resolution=resolution)


class ConfigError(BootcTestError):
    """The run was asked for something that it cannot do: a wrong option, a missing program."""

    blame = Blame.USAGE


class ImageError(BootcTestError):
    """The image itself is at fault."""

    blame = Blame.IMAGE


class ImageReferenceError(ImageError):
    """The reference cannot be read, or names nothing that runs on this host."""

    blame = Blame.USAGE


class RegistryError(BootcTestError):
    """A registry, image layout or archive did not deliver what was asked for."""


class DigestMismatchError(RegistryError):
    """A blob's bytes do not have the digest by which they were asked for."""


class DiskError(BootcTestError):
    """A golden disk could not be made, for a reason on the host's side."""


class BackendError(BootcTestError):
    """The host side of a machine failed."""


class ProvisionError(BackendError):
    """A machine never came to run."""


class BootError(BackendError):
    """A machine ran, and its image did not come up."""

    blame = Blame.IMAGE


class BootTimeoutError(BackendError):
    """A machine ran, and its image did not come up before the deadline."""

    blame = Blame.IMAGE


class MachineLostError(BackendError):
    """A machine ran, and what runs it on the host failed."""


class CrashError(BackendError):
    """A machine was up, and its guest crashed or stopped answering."""

    blame = Blame.IMAGE


class SSHError(BootcTestError):
    """Something went wrong over SSH."""

    blame = Blame.IMAGE


class SSHConnectError(SSHError):
    """The sshd of a running machine did not let us in, or stopped answering."""


class SSHCommandError(SSHError, AssertionError):
    """A command in the guest did not do what was expected of it."""


class GuestError(BootcTestError):
    """The guest answered, but not what was asked."""

    blame = Blame.IMAGE


class HealthError(GuestError, AssertionError):
    """The guest is not well: something went wrong in it that no test asked for."""


class WaitTimeoutError(BootcTestError, AssertionError):
    """What was waited for did not come before the deadline."""

    blame = Blame.IMAGE
