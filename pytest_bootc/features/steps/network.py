"""The network: ports, names, addresses."""

from __future__ import annotations

from typing import Any

from pytest_bootc.features.steps.asking import ask, guest_of, missed, needs_success, patience
from pytest_bootc.features.steps.library import then
from pytest_bootc.system import listening_command, parse_listening

_SHOW = 'PATH=$PATH:/usr/sbin:/sbin; ip -o link show dev "$1" && ip -o addr show dev "$1" up'


@then("the TCP port {port:int} is open", expected=True)
@then("the TCP port {port:int} is closed", expected=False)
def port_is_open(context: Any, port: int, *, expected: bool) -> None:
    """Something in the guest listens on the port, on whatever address, or nothing does."""
    result = needs_success(ask(context, listening_command()), "the open ports cannot be told")
    found = parse_listening(result.stdout)
    if (port in found) is not expected:
        told = ", ".join(map(str, sorted(found))) or "none"
        missed(f"the TCP port {port} is {'closed' if expected else 'open'}", f"Open ports: {told}")


@then("the TCP port {port:int} is open within {seconds:int} seconds")
def port_opens(context: Any, port: int, seconds: int) -> None:
    """Something in the guest listens on the port after so many seconds at most (more where guests are emulated)."""
    guest_of(context).wait_for_open_port(port, timeout=patience(context, seconds))


@then("the name {host} resolves")
def resolves(context: Any, host: str) -> None:
    """The guest finds an address for a host's name."""
    result = ask(context, ["getent", "ahosts", host])
    if result.status != 0 or not result.stdout.strip():
        missed(f"{host} does not resolve", result)


@then("the interface {name} has an address")
def has_address(context: Any, name: str) -> None:
    """A network interface is up and has an address that others than its direct neighbours can use."""
    shown = ask(context, ["sh", "-c", _SHOW, "sh", name])
    needs_success(shown, f"there is no interface {name}")
    if not any(" inet" in line and "scope link" not in line for line in shown.stdout.splitlines()):
        missed(f"the interface {name} has no address, or is down", shown)
