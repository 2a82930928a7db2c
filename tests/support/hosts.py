"""Machines of a network: namespaces with addresses of their own, or else processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BRIDGE, NET = "tiltflow-b", "10.231.97"


@dataclass(frozen=True)
class Host:
    """Where a process can be started.

    Attributes
    ----------
    address : str
    before : tuple of str
        Words before a command, which then runs there.
    apart : bool
        Whether its network and its memory are its own.
    """

    address: str
    before: tuple[str, ...] = ()
    apart: bool = False

    def hiding(self, folder: str) -> Host:
        """Return the host with something else mounted on a folder."""
        hide = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
        own = ("unshare", "--mount", "--propagation", "private", "sh", "-c", hide, folder)
        return Host(self.address, (*self.before, *own), self.apart)


def _run(*words: str) -> bool:
    try:
        done = subprocess.run(words, capture_output=True, timeout=20, check=False)
    except OSError:
        return False
    return done.returncode == 0


@contextmanager
def network(count: int) -> Iterator[tuple[Host, list[Host]]]:
    """Yield this machine and others, which reach it and each other: `count` of them."""
    names = [f"tiltflow-{i}" for i in range(count)]
    made = os.geteuid() == 0 and _network(names)
    here = Host(f"{NET}.1" if made else "127.0.0.1", (), made)
    memory = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    own = ("unshare", "--mount", "--propagation", "private", "sh", "-c", memory, "sh")
    others = [
        Host(f"{NET}.{i + 2}", ("ip", "netns", "exec", name, *own), True)
        if made
        else Host("127.0.0.1")
        for i, name in enumerate(names)
    ]
    try:
        yield here, others
    finally:
        _remove(names)


def _network(names: list[str]) -> bool:
    _remove(names)  # what a killed test has left
    steps = [
        f"ip link add {BRIDGE} type bridge",
        f"ip addr add {NET}.1/24 dev {BRIDGE}",
        f"ip link set {BRIDGE} up",
    ]
    for i, name in enumerate(names):
        steps += [
            f"ip netns add {name}",
            f"ip link add tfb-{i} type veth peer name eth0 netns {name}",
            f"ip link set tfb-{i} master {BRIDGE} up",
            f"ip -n {name} addr add {NET}.{i + 2}/24 dev eth0",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} link set lo up",
        ]
    return all(_run(*step.split()) for step in steps)


def _remove(names: list[str]) -> None:
    for name in names:
        _run("ip", "netns", "del", name)
    _run("ip", "link", "del", BRIDGE)
