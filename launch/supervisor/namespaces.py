"""Linux nodes of a lab: unnamed network namespaces, joined to the lab's ports by veth pairs (namespaces(7)).

Input: a lab. Output: a raw socket for each port that leads to a Linux node, and the nodes' commands run. The root
process leaves the machine's namespaces, also for a new user namespace, to which its capabilities are then limited.
Its first child is the init of a process namespace: when init ends, the kernel ends every process of every Linux
node, and the namespaces and devices end with them. A port's end of a veth stays in the root process's network
namespace; init sends a raw socket on it to the launcher, and a line card inherits the socket at each start.

    launcher -- root -- init -- node h1, node h2 ...

The launcher and init exchange JSON lines over one socket: init sends `{"what": "ready"}` with the sockets, the
launcher `{"what": "go"}` when the routers run, init `{"what": "node"}` and `{"what": "exec"}` with results.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.ports.ring import make_receive_ring
from launch.lab.model import Endpoint, Lab, LinuxNode
from launch.supervisor.fork import ForkedProcess, fork, mount, unshare

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 0x40000, 0x1000

WAIT_FOR_TIMEOUT = 30.0
"""Time (s) for which a node's `wait-for` conditions are tried."""

TERMINATE_TIMEOUT = 1.0
"""Time (s) for the Linux nodes to end after SIGTERM before they are killed."""

RETRY_INTERVAL = 0.05
COMMAND_TIMEOUT = 30.0
MTU = 1500

MAX_DESCRIPTORS_PER_MESSAGE = 128
"""Descriptors (count) in one message; the kernel takes up to 253."""

MAX_RINGS = 64
"""Raw sockets (count) of a lab that get rings, of 6 MiB each."""

_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x17, 0x1F, 0x24)
"""ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO: with these a raw socket would receive frames without checksums and
frames longer than the MTU."""


_PACKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20),
    (socket.SOL_SOCKET, 33, 16 << 20),
    (263, 20, 1),
)
"""Options that make a raw socket faster, if the kernel grants them: the largest receive buffer that the user may
have or, as root, more (SO_RCVBUFFORCE); no kernel queue on transmit (SOL_PACKET, PACKET_QDISC_BYPASS)."""
_NOT_OUR_OWN = (263, 23, 1)
"""Do not receive frames that the socket itself sent (SOL_PACKET, PACKET_IGNORE_OUTGOING; Linux 4.20)."""


OTHERS, OTHERS_AT = 65_535, 0x7000_0000
"""Number of users beside root in a node that root started, and the first user id of the machine that is mapped to
them. The range is otherwise unused."""


class NamespaceError(Exception):
    """Namespaces cannot be created on this machine, or a node's description cannot be carried out."""


@dataclass(frozen=True, slots=True)
class NamespacePort:
    """A lab's port linked to a Linux device: `device` is its end, in the root process's namespace.

    The far end is in a Linux node's namespace. A link between two ports of the lab has two of these; the first one
    names the device of the second one as `peer`.
    """

    end: Endpoint
    device: str
    peer: str = ""


def plan(lab: Lab) -> tuple[list[NamespacePort], list[tuple[Endpoint, Endpoint]]]:
    """Return the ports of routers and testers that lead to Linux devices, and the links between two Linux nodes.

    The two ports of one link are adjacent.
    """
    ports: list[NamespacePort] = []
    direct: list[tuple[Endpoint, Endpoint]] = []
    linux = {node.name for node in lab.linux()}
    for link in lab.links:
        inside = [end for end in link.ends if end.node in linux]
        if len(inside) == 2:
            direct.append(link.ends)
        elif inside:
            outside = link.ends[0] if link.ends[1] is inside[0] else link.ends[1]
            ports.append(NamespacePort(outside, f"p{len(ports)}"))
        elif link.veth:
            first, second = f"p{len(ports)}", f"p{len(ports) + 1}"
            ports += (NamespacePort(link.ends[0], first, second), NamespacePort(link.ends[1], second))
    return ports, direct


class RootNamespace:
    """The launcher's handle on the Linux nodes of a lab. `sockets` are raw sockets by port of the lab.

    Raises:
        NamespaceError: the machine does not allow namespaces, or a node cannot be created; the text says why.
    """

    def __init__(self, lab: Lab, run: Path, keep: Sequence[int] = ()) -> None:
        self.channel, theirs = socket.socketpair()
        self.sockets: dict[Endpoint, int] = {}
        self.ringed: frozenset[Endpoint] = frozenset()
        ports, direct = plan(lab)
        self.child: ForkedProcess = fork(
            lambda: _root_process(lab, ports, direct, run, theirs),
            f"chassis {lab.name} root",
            run / "linux.log",
            (theirs.fileno(), *keep),
        )
        theirs.close()
        self.channel.settimeout(WAIT_FOR_TIMEOUT)
        said: dict[str, Any] = {
            "what": "failed",
            "text": f"Linux nodes cannot be created; see {run / 'linux.log'}",
        }
        received: list[int] = []
        answer = b""
        with contextlib.suppress(TimeoutError):
            while not answer.endswith(b"\n"):
                data, fds, _, _ = socket.recv_fds(self.channel, 65536, MAX_DESCRIPTORS_PER_MESSAGE)
                if not data:
                    break
                answer += data
                received += fds
            else:
                said = json.loads(answer)
        if said["what"] != "ready":
            self.close()
            raise NamespaceError(str(said["text"]))
        self.pids: dict[str, int] = said["pids"]
        """Process id of each Linux node on the machine, for `nsenter -n -t PID`."""
        self.sockets = {port.end: fd for port, fd in zip(ports, received, strict=True)}
        for fd in received:
            # Only the machine's root may exceed its limits on buffers; root of a user namespace may not.
            _make_faster(fd)
        # Memory of the kernel, so not for the ports of a very large lab.
        made = [len(received) <= MAX_RINGS and make_receive_ring(fd) for fd in received]
        self.ringed = frozenset(port.end for port, ring in zip(ports, made, strict=True) if ring)
        """Ports of the lab whose raw socket has a receive ring."""

    def close(self) -> None:
        """End every process of every Linux node. Return when all have ended."""
        # Init ends when the launcher closes the socket, and the root process when init has ended.
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        if not select.select([self.child.pidfd], [], [], TERMINATE_TIMEOUT)[0]:
            signal.pidfd_send_signal(self.child.pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.child.pid, 0)
        os.close(self.child.pidfd)
        for fd in self.sockets.values():
            os.close(fd)
        self.sockets = {}


# in the root process


def _root_process(
    lab: Lab,
    ports: list[NamespacePort],
    direct: list[tuple[Endpoint, Endpoint]],
    run: Path,
    channel: socket.socket,
) -> int:
    """Leave the machine's namespaces, start init and wait until init ends."""
    try:
        _leave(confined=not unconfined())
    except OSError as error:
        user = "root" if os.geteuid() == 0 else "this user"
        text = f"this machine does not let {user} create namespaces: {error.strerror}"
        _send(channel, what="failed", text=text)
        return 1
    init = fork(
        lambda: _NamespaceInit(lab, ports, direct, run, channel).run(),
        f"chassis {lab.name} linux",
        None,
        (channel.fileno(),),
        parent=0,
    )
    channel.close()
    os.waitpid(init.pid, 0)
    return 0


def _leave(confined: bool) -> None:
    """Leave the machine's namespaces; with `confined` enter a user namespace as its root.

    Raises:
        OSError: the kernel refuses.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS
    if not confined:
        unshare(flags)
        return
    told, tell = os.pipe()
    # Programs that drop root need other user ids, and only a process outside may write the map of several users.
    outside = os.fork() if uid == 0 else 0
    if uid == 0 and not outside:
        os.close(tell)
        os._exit(0 if os.read(told, 1) and _mapped(os.getppid()) else 1)
    os.close(told)
    with os.fdopen(tell, "wb", buffering=0) as pipe:
        unshare(flags | CLONE_NEWUSER)
        pipe.write(b".") if outside else None
    if outside and os.waitpid(outside, 0)[1] == 0:
        return
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _mapped(pid: int) -> bool:
    """Map users and groups of a process in a new user namespace (user_namespaces(7)). Return whether that
    worked."""
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"0 0 1\n1 {OTHERS_AT} {OTHERS}\n")
    except OSError:
        return False
    return True


def _send(channel: socket.socket, **values: Any) -> None:
    with contextlib.suppress(OSError):
        channel.sendall(json.dumps(values).encode() + b"\n")


class _NamespaceInit:
    """The first process of the process namespace: create the nodes, then serve the launcher."""

    def __init__(
        self,
        lab: Lab,
        ports: list[NamespacePort],
        direct: list[tuple[Endpoint, Endpoint]],
        run: Path,
        channel: socket.socket,
    ) -> None:
        self._lab, self._ports, self._direct, self._run = lab, ports, direct, run
        self._channel = channel
        self._holders: dict[str, tuple[int, socket.socket]] = {}

    def run(self) -> int:
        try:
            # Nodes mount over /tmp, where the library may be installed: import it before they do.
            import pyroute2  # noqa: F401

            mount("", "/", "", MS_REC | MS_PRIVATE)
            pids = {node.name: self._hold(node) for node in self._lab.linux()}
            self._wire()
            fds = [_packet_socket(port.device) for port in self._ports]
            for node in self._lab.linux():
                self._set_up(node)
            # Send spaces as the data of the messages with sockets: JSON ignores them.
            for at in range(0, len(fds), MAX_DESCRIPTORS_PER_MESSAGE):
                socket.send_fds(self._channel, [b" "], fds[at : at + MAX_DESCRIPTORS_PER_MESSAGE])
            _send(self._channel, what="ready", pids=pids)
            for fd in fds:
                os.close(fd)
        except Exception as error:
            # Report any error to the launcher: this process cannot continue.
            _send(self._channel, what="failed", text=_explain(error))
            return 1
        self._serve()
        return 0

    def _hold(self, node: LinuxNode) -> int:
        """Start a process in the node's own namespaces. Return its process id on the machine."""
        ours, theirs = socket.socketpair()
        child = fork(
            lambda: _NamespaceHolder(node, self._run, theirs).run(),
            f"chassis {self._lab.name} {node.name}",
            None,
            (theirs.fileno(),),
        )
        theirs.close()
        os.close(child.pidfd)
        self._holders[node.name] = (child.pid, ours)
        return int(_wait(ours, "held")["pid"])

    def _wire(self) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            for port in self._ports:
                inside = self._lab.far_end(port.end)
                assert inside is not None
                peer: dict[str, Any] = {"ifname": port.peer}
                if inside.node in self._holders:
                    peer = {"ifname": inside.port, "net_ns_pid": self._holders[inside.node][0]}
                if port.peer or inside.node in self._holders:
                    route.link("add", ifname=port.device, kind="veth", peer=peer, mtu=MTU)
                else:
                    _without_offloads(port.device)
                index = route.link_lookup(ifname=port.device)[0]
                Path(f"/proc/sys/net/ipv6/conf/{port.device}/disable_ipv6").write_text("1")
                route.link("set", index=index, state="up", mtu=MTU)
            for number, (one, other) in enumerate(self._direct):
                peer = {"ifname": other.port, "net_ns_pid": self._holders[other.node][0]}
                route.link("add", ifname=f"d{number}", kind="veth", peer=peer, mtu=MTU)
                index = route.link_lookup(ifname=f"d{number}")[0]
                route.link("set", index=index, net_ns_pid=self._holders[one.node][0], ifname=one.port)

    def _set_up(self, node: LinuxNode) -> None:
        channel = self._holders[node.name][1]
        devices = [end.port for link in self._lab.links for end in link.ends if end.node == node.name]
        _send(channel, what="set-up", devices=devices)
        _wait(channel, "up")

    def _serve(self) -> None:
        """Forward the launcher's messages to the nodes and back, and reap orphaned processes."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(self._channel, selectors.EVENT_READ, None)
        for name, (_, channel) in self._holders.items():
            selector.register(channel, selectors.EVENT_READ, name)
        buffers: dict[str | None, bytes] = {}
        while True:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            for key, _ in selector.select(timeout=1.0):
                source: Any = key.fileobj
                data = source.recv(1 << 16)
                if not data:
                    if key.data is None:
                        return
                    selector.unregister(source)
                    continue
                *lines, buffers[key.data] = (buffers.get(key.data, b"") + data).split(b"\n")
                for line in lines:
                    if key.data is not None:
                        self._channel.sendall(line + b"\n")
                        continue
                    message = json.loads(line)
                    for name in [message["node"]] if "node" in message else list(self._holders):
                        self._holders[name][1].sendall(line + b"\n")


def _wait(channel: socket.socket, what: str) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        more = channel.recv(65536)
        if not more:
            raise NamespaceError(f"a Linux node ended before it was {what}; see linux.log")
        data += more
    said: dict[str, Any] = json.loads(data)
    if said["what"] != what:
        raise NamespaceError(str(said.get("text")))
    return said


def _explain(error: BaseException) -> str:
    if isinstance(error, NamespaceError):
        return str(error)
    return f"Linux nodes cannot be created: {type(error).__name__}: {error}"


def _packet_socket(device: str) -> int:
    """Open a raw socket that receives and sends every frame of the device."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    raw.bind((device, 0))
    raw.setsockopt(*_NOT_OUR_OWN)
    return raw.detach()


def _make_faster(fd: int) -> None:
    with socket.socket(fileno=os.dup(fd)) as raw:
        for level, option, value in _PACKET_OPTIONS:
            with contextlib.suppress(OSError):
                raw.setsockopt(level, option, value)


def _without_offloads(device: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in _OFFLOADS:
            value = array.array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, _SIOCETHTOOL, request)


# in a node's process


class _NamespaceHolder:
    """The process that holds one node's namespaces and runs its commands."""

    def __init__(self, node: LinuxNode, run: Path, channel: socket.socket) -> None:
        self._node, self._channel = node, channel
        self._home = run / f"{node.name}.files"
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self) -> int:
        # /proc is still the machine's, so this is the process id outside.
        machine_pid = int(os.readlink("/proc/self"))
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        _send(self._channel, what="held", pid=machine_pid)
        buffer = b""
        while data := self._channel.recv(1 << 16):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._on_message(json.loads(line))
        return 0

    def _on_message(self, message: dict[str, Any]) -> None:
        what = message["what"]
        if what == "set-up":
            try:
                self._mounts()
                self._network(message["devices"])
            except Exception as problem:
                _send(self._channel, what="failed", text=f"node {self._node.name}: {problem}")
                raise
            _send(self._channel, what="up")
        elif what == "go":
            _send(self._channel, what="node", node=self._node.name, error=self._go())
        elif what == "exec":
            result = self._command(message["command"], float(message.get("timeout", COMMAND_TIMEOUT)))
            _send(self._channel, what="exec", number=message["number"], **result)

    def _mounts(self) -> None:
        """Mount the node's own /proc, /run and /tmp, and put its files in place.

        A file with an absolute path covers the machine's file of that path for this node only; under /run and /tmp
        it is new. A file with a relative path is in the folder in which the node's commands run.
        """
        mount("proc", "/proc", "proc", 0)
        with contextlib.suppress(OSError):
            mount("sysfs", "/sys", "sysfs", 0)
        self._home.mkdir(mode=0o700, exist_ok=True)
        home = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY)
        for folder in ("/run", "/tmp"):
            mount("tmpfs", folder, "tmpfs", 0, "mode=755" if folder == "/run" else "mode=1777")
            if self._home.is_relative_to(folder):
                # The node's folder may be below a path that was just covered: bind it to its old path.
                self._home.mkdir(parents=True)
                mount(f"/proc/self/fd/{home}", str(self._home), "", MS_BIND)
        os.close(home)
        os.chdir(self._home)
        for name, text in self._node.files.items():
            path = Path(name)
            if path.is_absolute() and path.exists():
                cover = self._home / name.replace("/", "_")
                cover.write_text(text)
                mount(str(cover), name, "", MS_BIND)
            elif path.is_absolute() and not path.is_relative_to("/run") and not path.is_relative_to("/tmp"):
                raise NamespaceError(
                    f"file {name}: does not exist on the machine; expected an existing file or a path under /run"
                )
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                if text.startswith("#!"):
                    path.chmod(0o755)

    def _network(self, devices: list[str]) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            lo = route.link_lookup(ifname="lo")[0]
            route.link("set", index=lo, state="up")
            for device in devices:
                index = route.link_lookup(ifname=device)[0]
                _without_offloads(device)
                with contextlib.suppress(OSError):
                    Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
                route.link("set", index=index, state="up", mtu=MTU)
            for device, addresses in self._node.addresses.items():
                found = route.link_lookup(ifname=device)
                if not found:
                    raise NamespaceError(f"device {device} has no link; linked devices: {', '.join(devices)}")
                for address in addresses:
                    host, _, length = address.partition("/")
                    route.addr("add", index=found[0], address=host, prefixlen=int(length))
            for text in self._node.routes:
                _add_route(route, text)

    def _go(self) -> str:
        """Run `exec` and wait for `wait-for`. Return an error text, or "" on success."""
        for command in self._node.exec:
            result = self._command(command, COMMAND_TIMEOUT)
            if result["code"] != 0:
                return f"exec {command!r} ended with {result['code']}: {result['output'].strip()[-500:]}"
        deadline = time.monotonic() + WAIT_FOR_TIMEOUT
        for command in self._node.wait_for:
            while (result := self._command(command, WAIT_FOR_TIMEOUT))["code"] != 0:
                if time.monotonic() > deadline:
                    return f"wait-for {command!r} did not succeed: {result['output'].strip()[-500:]}"
                time.sleep(RETRY_INTERVAL)
        return ""

    def _command(self, command: str | list[str], timeout: float) -> dict[str, Any]:
        """Run a shell command, or a program with its arguments, in the node. Background processes of the command
        continue."""
        with open(self._home / ".output", "w+b") as output:
            try:
                done = subprocess.run(
                    ["/bin/sh", "-c", command] if isinstance(command, str) else command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._home,
                    timeout=timeout,
                    check=False,
                )
                code = done.returncode
            except subprocess.TimeoutExpired:
                code = 124
            except OSError as error:
                # Report the exit status as a shell does (POSIX, 2.8.2).
                code = 127 if isinstance(error, FileNotFoundError) else 126
                output.write(f"{command[0]}: {error.strerror}\n".encode())
            output.seek(0)
            return {"code": code, "output": output.read(1 << 20).decode(errors="replace")}


def _add_route(route: Any, text: str) -> None:
    """Add a route in the form of `ip route add`: DESTINATION via ADDRESS [dev DEVICE] [metric N].

    Raises:
        NamespaceError: the text has another form.
    """
    words = text.split()
    values: dict[str, Any] = {"dst": words[0] if words else ""}
    names: dict[str, Callable[[str], tuple[str, Any]]] = {
        "via": lambda word: ("gateway", word),
        "dev": lambda word: ("oif", route.link_lookup(ifname=word)[0]),
        "metric": lambda word: ("priority", int(word)),
        "src": lambda word: ("prefsrc", word),
    }
    rest = words[1:]
    if not words or len(rest) % 2 or any(word not in names for word in rest[::2]):
        raise NamespaceError(
            f"route {text!r} is not valid; expected DESTINATION via ADDRESS [dev DEVICE] [metric N] [src ADDRESS]"
        )
    for key, word in zip(rest[::2], rest[1::2], strict=True):
        name, value = names[key](word)
        values[name] = value
    if values["dst"] == "default":
        values["dst"] = "0.0.0.0/0"
    route.route("add", **values)


def available() -> str:
    """Return why Linux nodes cannot be created on this machine, or "" if they can."""
    why = _attempt(confined=True)
    return why and (_attempt(confined=False) if os.geteuid() == 0 else why)


@functools.cache
def unconfined() -> str:
    """Return why commands of Linux nodes run with all capabilities of the machine's root, or "" if they do not.

    Only root can create nodes without a user namespace, and does so if the machine does not allow one.
    """
    return _attempt(confined=True) if os.geteuid() == 0 else ""


def _attempt(confined: bool) -> str:
    """Create such namespaces and mount /proc in them. Return the error text, or "" on success."""
    ours, theirs = socket.socketpair()

    def inside() -> int:
        try:
            mount("", "/", "", MS_REC | MS_PRIVATE)
            mount("proc", "/proc", "proc", 0)
        except OSError as error:
            theirs.sendall(f"/proc: {error.strerror}".encode())
        return 0

    def outside() -> int:
        try:
            _leave(confined)
        except OSError as error:
            theirs.sendall((error.strerror or "error").encode())
            return 1
        init = fork(inside, "chassis namespaces", None, (theirs.fileno(),), parent=0)
        os.waitpid(init.pid, 0)
        return 0

    child = fork(outside, "chassis namespaces", None, (theirs.fileno(),))
    theirs.close()
    why = ours.recv(1000).decode()
    ours.close()
    os.waitpid(child.pid, 0)
    os.close(child.pidfd)
    return why
