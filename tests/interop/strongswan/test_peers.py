"""The rig itself, charon against charon: what a failure here says is that the peers cannot be trusted."""

from __future__ import annotations

import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.charon import PROGRAM, Auth, Charon, Conn, require, until
from tests.support.netns import Host, Namespaces

A, B = "10.99.0.1", "10.99.0.2"
PSK = "a key of two"

pytestmark = pytest.mark.multiprocess


class Pair:
    """Two daemons; connections have `a` begin."""

    def __init__(self, folder: Path) -> None:
        hosts = {
            "a": Host({"eth0": [f"{A}/24"], "lo": ["10.1.0.1/16"]}),
            "b": Host({"eth0": [f"{B}/24"], "lo": ["10.2.0.1/16"]}),
        }
        self.namespaces = Namespaces(folder, hosts, [("a:eth0", "b:eth0")])
        try:
            self.a, self.b = (Charon(self.namespaces, name) for name in "ab")
            self.authority = Authority()
            self.certificates: dict[str, str] = {}
            for daemon, name, address in ((self.a, "a", A), (self.b, "b", B)):
                daemon.load_psk(PSK, A, B)
                daemon.load_ca(self.authority.certificate)
                issued = self.authority.issue(name, address)
                daemon.load_key(issued.key)
                self.certificates[name] = issued.certificate
            self.sockets = [
                self.namespaces.udp(name, f"10.{number}.0.1", 7) for number, name in enumerate("ab", 1)
            ]
        except BaseException:
            self.namespaces.close()
            raise

    def carries(self, size: int) -> bool:
        """Whether a UDP packet of `size` bytes in all gets from each to the other."""
        for sender, receiver, to in ((0, 1, "10.2.0.1"), (1, 0, "10.1.0.1")):
            self.sockets[sender].sendto(bytes(size - 28), (to, 7))
            got: list[bytes] = []

            def came(receiver: int = receiver, got: list[bytes] = got) -> bool:
                try:
                    got.append(self.sockets[receiver].recv(2000))
                except BlockingIOError:
                    return False
                return True

            until(came, lambda: f"{size} bytes\n{self.a.tail(5)}\n{self.b.tail(5)}", 2)
            if len(got[0]) != size - 28:
                return False
        return True

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        self.namespaces.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    require(PROGRAM)
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder))
        yield pair
        pair.close()


@pytest.mark.parametrize("method", ["psk", "pubkey"])
@pytest.mark.parametrize("version", [1, 2])
def test_two_daemons_make_a_tunnel_and_new_ones(pair: Pair, version: int, method: str) -> None:
    one, other = Auth(A, method), Auth(B, method)
    if method == "pubkey":
        one = Auth(A, method, pair.certificates["a"])
        other = Auth(B, method, pair.certificates["b"])
    name = f"t{version}{method}"
    initiator = Conn(name, version, A, B, one, Auth(B, method), local_ts="10.1.0.0/16", remote_ts="10.2.0.0/16")
    responder = Conn(name, version, B, A, other, Auth(A, method))
    pair.a.load(initiator)
    pair.b.load(responder)
    pair.a.initiate(initiator)
    pair.a.wait(lambda: pair.a.up(name) and pair.b.up(name), "up")
    assert all(pair.carries(size) for size in (28, 1400))
    first = pair.a.children(name)[0]["spi-in"]
    pair.b.rekey(responder)
    pair.a.wait(lambda: any(one["spi-in"] != first for one in pair.a.children(name)), "rekeyed")
    assert pair.carries(100)
    pair.b.terminate(responder, ike=True)
    pair.a.wait(lambda: not pair.a.sas(name) and not pair.b.sas(name), "deleted")
    pair.a.unload(initiator)
    pair.b.unload(responder)


def test_everything_of_a_rig_is_gone_at_its_end() -> None:
    require(PROGRAM)
    with tempfile.TemporaryDirectory() as folder:
        namespaces = Namespaces(Path(folder), {"x": Host({"lo": ["10.9.9.9/32"]})})
        daemon = Charon(namespaces, "x")
        daemon.end(signal.SIGKILL)
        daemon.begin()
        opened = namespaces.udp("x", "10.9.9.9", 500 + 1)
        assert opened.type == socket.SOCK_DGRAM
        opened.close()
        process = daemon._process
        namespaces.close()
        assert process is not None
        assert process.returncode is not None
