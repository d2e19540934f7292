"""How long a command takes with pytest-testinfra and with labgrid: run by rows/roundtrip.py, in a Python of their own.

``python peers.py PORT KEY ROUNDS`` prints the median of each, in seconds, as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import testinfra
from labgrid import Target
from labgrid.driver import SSHDriver
from labgrid.resource import NetworkService


def main(port: int, key: str, rounds: int) -> None:
    """Measure each on a connection that is open already."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config"
        config.write_text("Host *\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n")
        target = Target("sshd")
        NetworkService(target, "service", address="127.0.0.1", username="root", port=port)
        driver = SSHDriver(target, "ssh", keyfile=key)
        target.activate(driver)
        host = testinfra.get_host(f"paramiko://root@127.0.0.1:{port}", ssh_identity_file=key, ssh_config=str(config))
        print(
            json.dumps(
                {
                    "labgrid": _median(lambda: driver.run_check("true"), rounds),
                    "pytest-testinfra": _median(lambda: host.run_expect([0], "true"), rounds),
                }
            )
        )
        target.deactivate(driver)


def _median(act: Callable[[], object], rounds: int) -> float:
    act()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
