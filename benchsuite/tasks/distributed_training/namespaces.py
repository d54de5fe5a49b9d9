"""A small real network on one machine: every rank in a network namespace, all plugged into one switch.

Needs Linux, root, and the tools ``ip``, ``tc`` and ``unshare``. Namespaces are anonymous: they, the virtual
links and the switch vanish with the processes that live in them, however these end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchsuite.core.errors import Incompatible

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_LINK = "link0"
_PATIENCE_S = 30.0
_PROBE = (
    "ip link add probe0 type veth peer name probe1 && ip link add probe2 type bridge"
    " && tc qdisc add dev probe0 root tbf rate 1mbit burst 32kb latency 99ms"
)


def unavailable() -> str:
    """Return why such a network cannot be made here, or an empty string if it can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    missing = [tool for tool in ("ip", "tc", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"needs the tools {', '.join(missing)}"
    probe = subprocess.run(["unshare", "--net", "sh", "-c", _PROBE], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"namespaces, virtual links or tc are not allowed here ({' '.join(probe.stderr.split())})"
    return ""


@contextlib.contextmanager
def switch(folder: Path, bandwidth_mbit: float | None) -> Iterator[Callable[[Sequence[int]], None]]:
    """Make a switch; yields a function that plugs in the ranks of the given process ids.

    Ranks call `enter` and meet the function through files in ``folder``.

    Raises
    ------
    Incompatible
        If the machine does not allow it; one line that says why.
    """
    if reason := unavailable():
        raise Incompatible(f"network=veth is not possible: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    room = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link add switch type bridge && ip link set switch up && echo up && cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=_die_with_parent,
    )
    assert room.stdout is not None
    room.stdout.readline()

    def plug_in(pids: Sequence[int]) -> None:
        for rank in range(len(pids)):
            _wait_for(folder / f"alone-{rank}")
        for rank, pid in enumerate(pids):
            port = f"port{rank}"
            _in_namespace(room.pid, f"ip link add {port} type veth peer name {_LINK} netns {pid}")
            _in_namespace(room.pid, f"ip link set {port} master switch up")
            if bandwidth_mbit:
                _in_namespace(room.pid, _limit(port, bandwidth_mbit))
        (folder / "plugged-in").touch()

    try:
        yield plug_in
    finally:
        room.kill()
        room.wait()
        room.stdout.close()
        if room.stdin:
            room.stdin.close()


def enter(folder: Path, rank: int, bandwidth_mbit: float | None) -> None:
    """Move this process into a namespace of its own and wait until it is on the switch."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        raise Incompatible(f"network=veth is not possible: {os.strerror(ctypes.get_errno())}")
    (folder / f"alone-{rank}").touch()
    _wait_for(folder / "plugged-in")
    _run("ip link set lo up")
    _run(f"ip address add 10.0.0.{rank + 1}/24 dev {_LINK}")
    _run(f"ip link set {_LINK} up")
    if bandwidth_mbit:
        _run(_limit(_LINK, bandwidth_mbit))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = _LINK


def sent_on_link() -> int:
    """Return the bytes that the kernel counted as sent on this rank's link."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == _LINK:
            return int(counters.split()[8])
    raise OSError(f"there is no link {_LINK}")


def _limit(link: str, bandwidth_mbit: float) -> str:
    return f"tc qdisc add dev {link} root tbf rate {bandwidth_mbit:g}mbit burst 256kb latency 200ms"


def _in_namespace(pid: int, command: str) -> None:
    _run(f"nsenter --net=/proc/{pid}/ns/net {command}")


def _run(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Incompatible(f"network=veth is not possible: {command.split()[0]}: {' '.join(done.stderr.split())}")


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {file.name} after {_PATIENCE_S:g} s: a rank did not start")
        time.sleep(0.01)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
