"""strongSwan's daemon in a namespace: started, told by vici what to do, asked what it has, and shown on failure.

Needs the Debian packages of `PACKAGES`. It always encapsulates ESP in UDP (its user-space ESP knows nothing else),
so a tunnel with it is a tunnel through NAT to both ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Namespaces, why_not

PROGRAM = "/usr/lib/ipsec/charon"
PACKAGES = (
    "strongswan-charon strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins "
    "libstrongswan-extra-plugins"
)
PLUGINS = (
    "random nonce aes des sha1 sha2 md5 hmac kdf gmp openssl xcbc gcm ccm ctr cmac curve25519 pem pkcs1 pkcs8 "
    "x509 pubkey constraints kernel-libipsec kernel-netlink socket-default vici"
)
DEADLINE = 30.0
"""Seconds that anything with a peer may take; a wait that is in vain ends with what was seen."""

_PAUSE = 0.01

CONFIGURATION = """\
charon {{
  load = {plugins}
  i_dont_care_about_security_and_use_aggressive_mode_psk = yes
  retransmit_timeout = 0.3
  retransmit_tries = {tries}
  reuse_ikesa = no
  process_route = no
  block_threshold = 100000
  cookie_threshold = 100000
  cookie_threshold_ip = 100000
  dh_exponent_ansi_x9_42 = no
  signature_authentication = {signatures}
  plugins {{
    vici {{
      socket = unix://{vici}
    }}
    kernel-libipsec {{
      allow_peer_ts = no
    }}
  }}
  filelog {{
    l {{
      path = {log}
      flush_line = yes
      ike_name = yes
      default = {level}
    }}
  }}
}}
"""


def require(*programs: str) -> None:
    """Skip the test where a peer cannot run here; on a build machine that is a failure."""
    missing = [program for program in programs if shutil.which(program) is None and not Path(program).exists()]
    why = why_not()
    if missing:
        why = (
            f"{', '.join(missing)} missing: apt-get install -y --no-install-recommends {PACKAGES} ike-scan tshark"
        )
    elif PROGRAM in programs and not Path("/dev/net/tun").exists():
        why = "no /dev/net/tun"
    if why and os.environ.get("CI"):
        pytest.fail(why)
    if why:
        pytest.skip(why)


@dataclass(frozen=True, slots=True)
class Auth:
    """How one end proves who it is: `certificate` (PEM) is what it shows, empty with a preshared key."""

    id: str
    method: str = "psk"
    certificate: str = ""

    def tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {"auth": self.method, "id": self.id}
        if self.certificate:
            tree["certs"] = [self.certificate]
        return tree


@dataclass(frozen=True, slots=True)
class Conn:
    """A connection as `swanctl.conf` knows it: a CHILD SA for `local_ts` and `remote_ts`, and one for each pair of
    selectors in `further`. Times in seconds, 0 for never.

    `ike` and `esp` are strongSwan's words for proposals (`aes128-sha1-modp1024`, with a group in `esp` for PFS).
    `rekey` and `child_rekey` are lifetimes: charon offers exactly these in version 1.
    """

    name: str
    version: int
    local: str
    remote: str
    us: Auth
    peer: Auth
    ike: str = "aes128-sha1-modp1024"
    esp: str = "aes128-sha1"
    local_ts: str = "10.2.0.0/16"
    remote_ts: str = "10.1.0.0/16"
    further: tuple[tuple[str, str], ...] = ()
    aggressive: bool = False
    start: str = "none"
    dpd: int = 0
    dpd_timeout: int = 0
    rekey: int = 86400
    child_rekey: int = 86400
    keyingtries: int = 1
    dpd_action: str = "clear"
    unique: str = "replace"
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def child(self) -> str:
        return f"{self.name}-c"

    @property
    def children(self) -> dict[str, tuple[str, str]]:
        """Selectors of each CHILD SA, by its name."""
        every = ((self.local_ts, self.remote_ts), *self.further)
        return {f"{self.child}{number or ''}": selectors for number, selectors in enumerate(every)}

    def tree(self) -> dict[str, Any]:
        """As nested sections; values are texts or lists of them."""
        return {
            "version": str(self.version),
            "local_addrs": [self.local],
            "remote_addrs": [self.remote],
            "proposals": [self.ike],
            "aggressive": "yes" if self.aggressive else "no",
            "mobike": "no",
            "unique": self.unique,
            "keyingtries": str(self.keyingtries),
            "rekey_time": f"{self.rekey}s",
            "over_time": "0s",
            "rand_time": "0s",
            "dpd_delay": f"{self.dpd}s",
            "dpd_timeout": f"{self.dpd_timeout}s",
            "local": self.us.tree(),
            "remote": self.peer.tree(),
            "children": {
                name: {
                    "local_ts": [local],
                    "remote_ts": [remote],
                    "esp_proposals": [self.esp],
                    "rekey_time": f"{self.child_rekey}s",
                    "life_time": f"{self.child_rekey}s",
                    "rand_time": "0s",
                    "start_action": self.start,
                    "dpd_action": self.dpd_action,
                    "close_action": "none",
                }
                for name, (local, remote) in self.children.items()
            },
            **self.more,
        }


def swanctl_conf(connections: Sequence[Conn], psks: Mapping[str, str]) -> str:
    """The same as a file; `psks` by the identity that they are for (or any name). Certificates are file names."""
    secrets = {f"ike-{number}": {"secret": f'"{psk}"', "id": id} for number, (id, psk) in enumerate(psks.items())}
    tree = {"connections": {one.name: one.tree() for one in connections}, "secrets": secrets}
    return "\n".join(_sections(tree, "")) + "\n"


def _sections(tree: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name} {{"
            yield from _sections(value, indent + "  ")
            yield f"{indent}}}"
        else:
            yield f"{indent}{name} = {value if isinstance(value, str) else ', '.join(value)}"


class Charon:
    """One daemon. `host` is the namespace that it lives in, `level` how much it logs (4: keys, too).

    `signatures` lets version 2 use RFC 7427's signatures; without, RSA is method 1 of RFC 7296. `reuse` has it
    begin a further CHILD SA under the IKE SA that stands, not under one of its own.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        host: str,
        *,
        level: int = 1,
        tries: int = 2,
        signatures: bool = True,
        reuse: bool = False,
    ) -> None:
        self.namespaces, self.host = namespaces, host
        self._home = namespaces.home(host)
        self.log_file = self._home / "charon.log"
        self._vici_path = self._home / "vici"
        self._level, self._tries, self._reuse = level, tries, reuse
        self.set_up(signatures)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self.begin()

    # the process

    def set_up(self, signatures: bool) -> None:
        """Write what it reads at its next start."""
        text = CONFIGURATION.format(
            plugins=PLUGINS, tries=self._tries, signatures="yes" if signatures else "no", vici=self._vici_path,
            log=self.log_file, level=self._level,
        )  # fmt: skip
        if self._reuse:
            text = text.replace("reuse_ikesa = no", "reuse_ikesa = yes")
        (self._home / "strongswan.conf").write_text(text)

    def begin(self) -> None:
        """Start it, and wait until it takes orders."""
        import vici

        with suppress(FileNotFoundError):
            self._vici_path.unlink()
        with open(self._home / "charon.out", "ab") as output:
            environment = {"STRONGSWAN_CONF": str(self._home / "strongswan.conf")}
            self._process = self.namespaces.begin(self.host, PROGRAM, output=output, environment=environment)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(DEADLINE)

        def connected() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"charon ended at its start\n{self.tail()}")
            try:
                connection.connect(str(self._vici_path))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True

        until(connected, lambda: f"charon takes no orders\n{self.tail()}")
        self._connection = connection
        self._session = vici.Session(connection)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it: SIGTERM lets it tell its peers, SIGKILL does not."""
        assert self._process is not None
        self.namespaces.signal(self._process, number)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.namespaces.signal(self._process, signal.SIGKILL)
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def cpu(self) -> float:
        """CPU seconds that it has used so far."""
        assert self._process is not None
        pid = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0]
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def tail(self, lines: int = 40) -> str:
        """The end of its log, for a failure's message."""
        output = self._home / "charon.out"
        said = output.read_text(errors="replace").splitlines() if output.exists() else []
        return "\n".join([f"-- charon of {self.host}", *said[-5:], *self.log().splitlines()[-lines:]])

    # orders

    def load(self, connection: Conn) -> None:
        self._session.load_conn({connection.name: connection.tree()})

    def unload(self, connection: Conn) -> None:
        """Forget a connection, and what stands of it."""
        with suppress(Exception):
            self.terminate(connection, ike=True)
        self._session.unload_conn({"name": connection.name})

    def load_psk(self, psk: str, *owners: str) -> None:
        self._session.load_shared(
            {"id": "-".join(owners) or "any", "type": "IKE", "data": psk.encode(), "owners": list(owners)}
        )

    def load_ca(self, pem: str) -> None:
        self._session.load_cert({"type": "X509", "flag": "CA", "data": pem})

    def load_key(self, pem: str) -> None:
        self._session.load_key({"type": "any", "data": pem})

    def initiate(self, connection: Conn, child: str = "") -> None:
        """Begin; what becomes of it, `sas` tells."""
        what = {"child": child or connection.child, "ike": connection.name}
        list(self._session.initiate({**what, "timeout": "-1"}))

    def terminate(self, connection: Conn, child: str = "", *, ike: bool = False) -> None:
        what = {"ike": connection.name} if ike else {"child": child or connection.child}
        list(self._session.terminate({**what, "timeout": "-1", "force": "no"}))

    def rekey(self, connection: Conn) -> None:
        """Make the CHILD SA anew."""
        self._session.rekey({"child": connection.child})

    def rekey_ike(self, number: str) -> None:
        """Make an IKE SA anew (version 1: authenticate anew), by its `uniqueid`."""
        self._session.rekey({"ike-id": number})

    # what it has

    def sas(self, name: str = "") -> list[dict[str, Any]]:
        """IKE SAs, of one connection or all, as texts; `child-sas` is a list."""
        found = []
        for one in self._session.list_sas({"ike": name} if name else {}):
            for connection, values in one.items():
                plain = _plain(values)
                children = plain.get("child-sas", {})
                found.append({**plain, "name": connection, "child-sas": list(children.values())})
        return found

    def children(self, name: str = "", state: str = "INSTALLED") -> list[dict[str, Any]]:
        """CHILD SAs in a state."""
        return [child for sa in self.sas(name) for child in sa["child-sas"] if child["state"] == state]

    def up(self, name: str) -> bool:
        """Whether an IKE SA of this name stands, with a CHILD SA."""
        return any(
            sa["state"] == "ESTABLISHED" and any(child["state"] == "INSTALLED" for child in sa["child-sas"])
            for sa in self.sas(name)
        )

    def wait(self, condition: Callable[[], object], what: str, within: float = DEADLINE) -> None:
        until(condition, lambda: f"{what}\n{self.sas()}\n{self.tail()}", within)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def until(condition: Callable[[], object], what: Callable[[], str], within: float = DEADLINE) -> None:
    """Try a condition until it holds; AssertionError with what was seen after the deadline."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what()}")
        time.sleep(_PAUSE)
