from __future__ import annotations

import importlib
import pkgutil
import socket

import paramiko
import pytest

from pytest_bootc.ssh.border import FINAL, MEANINGS, explain

# They cannot be imported on Linux.
_OF_OTHER_SYSTEMS = {"paramiko._winapi", "paramiko.win_pageant", "paramiko.win_openssh"}


def exceptions_of_paramiko() -> set[type[Exception]]:
    names = {module.name for module in pkgutil.walk_packages(paramiko.__path__, "paramiko.")} - _OF_OTHER_SYSTEMS
    modules = [paramiko, *map(importlib.import_module, sorted(names))]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return {kind for kind in found if issubclass(kind, Exception) and kind.__module__.startswith("paramiko.")}


def test_paramiko_has_exceptions():
    assert paramiko.SSHException in exceptions_of_paramiko()
    assert len(exceptions_of_paramiko()) > 15


@pytest.mark.parametrize("kind", sorted(exceptions_of_paramiko(), key=lambda kind: kind.__name__))
def test_every_exception_of_paramiko_has_a_meaning_of_its_own(kind):
    assert kind in MEANINGS


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (paramiko.AuthenticationException("x"), "it refused our key"),
        (paramiko.SSHException("x"), "the SSH protocol broke off"),
        (ConnectionResetError(104, "x"), "it closed the connection"),
        (ConnectionRefusedError(111, "x"), "nothing listens there"),
        (socket.gaierror(-2, "x"), "its name cannot be resolved"),
        (TimeoutError(), "it did not answer in time"),
        (OSError(113, "No route to host"), "the connection failed"),
        (EOFError(), "it closed the connection"),
    ],
)
def test_the_nearest_meaning_counts(error, meaning):
    assert explain(error) == meaning


def test_what_is_final_is_mapped():
    assert set(FINAL) <= set(MEANINGS)
