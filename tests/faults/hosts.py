"""Hosts of their own on one machine: network namespaces on a bridge, whose cables a test pulls."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

# two test processes may have hosts at the same time
NETWORK = f"10.77.{os.getpid() % 250}"


class Hosts:
    """Namespaces by name; the machine itself has the network's first address."""

    def __init__(self) -> None:
        self._tag = f"o{os.getpid() % 100000}"
        self.bridge = f"{self._tag}b"
        self._names: list[str] = []

    @property
    def address(self) -> str:
        """The machine's own address on the bridge."""
        return f"{NETWORK}.1"

    def address_of(self, name: str) -> str:
        """A host's address."""
        return f"{NETWORK}.{self._names.index(name) + 2}"

    def prefix(self, name: str) -> list[str]:
        """What starts a command on a host."""
        return ["ip", "netns", "exec", self._space(name)]

    def add(self, name: str) -> None:
        """A host with one cable to the bridge."""
        self._names.append(name)
        space, cable = self._space(name), self._cable(name)
        ip("netns", "add", space)
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", cable, "master", self.bridge, "up")
        ip("-n", space, "address", "add", f"{self.address_of(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")

    def unplug(self, name: str) -> None:
        """Pull a host's cable: packets vanish, nobody is told."""
        ip("link", "set", self._cable(name), "nomaster")

    def plug(self, name: str) -> None:
        """Put the cable back."""
        ip("link", "set", self._cable(name), "master", self.bridge)

    def close(self) -> None:
        """Remove all."""
        for name in self._names:
            subprocess.run(["ip", "netns", "del", self._space(name)])
        subprocess.run(["ip", "link", "del", self.bridge])

    def _space(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _cable(self, name: str) -> str:
        return f"{self._tag}v{self._names.index(name)}"


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Hosts of these names; skips where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command (package iproute2)")
    made = Hosts()
    try:
        ip("link", "add", made.bridge, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no bridge can be made here: {error.stderr.strip()}")
    try:
        ip("address", "add", f"{made.address}/24", "dev", made.bridge)
        ip("link", "set", made.bridge, "up")
        for name in names:
            made.add(name)
        yield made
    finally:
        made.close()


def ip(*arguments: str) -> None:
    """Run the ip command; raises CalledProcessError with what it said."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
