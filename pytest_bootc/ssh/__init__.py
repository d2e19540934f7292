"""SSH to the guest's own sshd: one connection, many commands. The only importer of paramiko.

Whatever paramiko or the socket raises is mapped at this border: a connection that cannot be had or is lost becomes an
:class:`~pytest_bootc.errors.SSHConnectError`, a command or file that the guest refuses an
:class:`~pytest_bootc.errors.SSHCommandError`.
"""

from pytest_bootc.ssh.session import SSHSession

__all__ = ["SSHSession"]
