"""Our IKE engine and one charon, a wire between them: what the interop tests share, one for each test process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chassis.bus.records import CertificateRecord
from chassis.model.ike import IkeProposal
from chassis.model.ipsec import IpsecProposal
from tests.support.authority import Authority
from tests.support.charon import Auth, Charon, Conn
from tests.support.ike.pair import Ends, Method, Version
from tests.support.ike.udp_end import PEER, PEER_HOST, PEER_OTHER, US, ChassisPeer
from tests.support.ike.udp_end import ours as our_configuration
from tests.support.netns import Host, Namespaces

PSK = "a key of two"
DEADLINE = 30.0
"""Seconds for any step; the slowest, a dead peer's detection, takes two."""
LIFETIME = 86400
SIZES = (28, 29, 100, 576, 1372, 1399, 1400)
"""Bytes of inner packets that a traffic check carries each way with DF: no data, odd, up to the peer's MTU."""
FEW = (28, 1400)

CIPHERS = {
    "des-cbc": "des", "3des-cbc": "3des", "aes-128-cbc": "aes128", "aes-192-cbc": "aes192",
    "aes-256-cbc": "aes256", "null": "null", "aes-128-gcm": "aes128gcm16", "aes-192-gcm": "aes192gcm16",
    "aes-256-gcm": "aes256gcm16",
}  # fmt: skip
INTEGRITY = {
    "hmac-md5-96": "md5", "hmac-sha1-96": "sha1", "hmac-aes-xcbc": "aesxcbc", "hmac-sha-256-128": "sha256",
    "hmac-sha-384-192": "sha384", "hmac-sha-512-256": "sha512",
}  # fmt: skip
GROUPS = {1: "modp768", 2: "modp1024", 5: "modp1536", 14: "modp2048", 15: "modp3072", 19: "ecp256", 20: "ecp384",
          21: "ecp521", 31: "x25519"}  # fmt: skip
PRFS = {
    "hmac-md5": "prfmd5", "hmac-sha1": "prfsha1", "aes-128-xcbc": "prfaesxcbc", "hmac-sha-256": "prfsha256",
    "hmac-sha-384": "prfsha384", "hmac-sha-512": "prfsha512",
}  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """Algorithms of a tunnel by our names: IKE's (`prf` is version 2's), ESP's, the group of PFS (0: none)."""

    cipher: str = "aes-128-cbc"
    integrity: str = "hmac-sha1-96"
    group: int = 2
    prf: str = "hmac-sha1"
    esp_cipher: str = "aes-128-cbc"
    esp_integrity: str = "hmac-sha1-96"
    pfs: int = 0

    def __str__(self) -> str:
        return f"{self.theirs(2)}+{self.their_esp}"

    def ours(self, version: Version, authentication: Method) -> IkeProposal:
        return IkeProposal(
            "ike", version, dh_group=self.group, authentication_algorithm=self.integrity,
            encryption_algorithm=self.cipher, authentication=authentication, lifetime=LIFETIME, prf=self.prf,
        )  # fmt: skip

    @property
    def our_esp(self) -> IpsecProposal:
        return IpsecProposal(
            "esp",
            esp_encryption=self.esp_cipher,
            esp_authentication=self.esp_integrity or None,
            lifetime_seconds=LIFETIME,
        )

    def theirs(self, version: int) -> str:
        words = [CIPHERS[self.cipher]]
        if not self.cipher.endswith("gcm"):
            words.append(INTEGRITY[self.integrity])
        if version == 2:
            words.append(PRFS[self.prf])
        return "-".join([*words, GROUPS[self.group]])

    @property
    def their_esp(self) -> str:
        words = [CIPHERS[self.esp_cipher], INTEGRITY.get(self.esp_integrity, ""), GROUPS.get(self.pfs, "")]
        return "-".join(word for word in words if word)


@dataclass
class Rig:
    """`us` is our end, `peer` the daemon, `wire` sees what passes between them."""

    namespaces: Namespaces
    us: ChassisPeer
    peer: Charon
    authority: Authority
    our_certificates: tuple[CertificateRecord, ...] = ()
    their_certificate: str = ""
    their_key: str = field(default="", repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
    ours: Ends = field(init=False)

    @classmethod
    def build(cls, folder: Path, **peer: Any) -> Rig:
        hosts = {
            "us": Host({"eth0": [f"{US}/24"]}),
            "peer": Host({"eth0": [f"{PEER}/24"], "lo": [f"{PEER_HOST}/16", f"{PEER_OTHER}/32"]}),
        }
        namespaces = Namespaces(folder, hosts, [("us:eth0", "peer:eth0")])
        try:
            us = ChassisPeer(namespaces, "us", **{"dpd-interval": 0.3, "dpd-retries": 3, "ike-retry-delay": 0.3})
            rig = cls(namespaces, us, Charon(namespaces, "peer", **peer), Authority())
        except BaseException:
            namespaces.close()
            raise
        ours, theirs = rig.authority.issue("us", US), rig.authority.issue("peer", PEER)
        rig.our_certificates = tuple(
            CertificateRecord(1, name, kind, pem.encode())
            for name, kind, pem in (
                ("ca", "trusted", rig.authority.certificate),
                ("us", "self", ours.certificate),
                ("us", "key", ours.key),
            )
        )
        rig.their_certificate, rig.their_key = theirs.certificate, theirs.key
        rig.teach()
        return rig

    def teach(self) -> None:
        """Give the daemon its credentials: after each of its starts."""
        self.peer.load_psk(PSK, US, PEER)
        self.peer.load_ca(self.authority.certificate)
        self.peer.load_key(self.their_key)

    def close(self) -> None:
        self.us.close()
        self.namespaces.close()

    # tunnels

    def plan(
        self,
        version: Version,
        role: str,
        suite: Suite | None = None,
        *,
        auth: str = "psk",
        mode: str = "main",
        ours: dict[str, Any] | None = None,
        theirs: dict[str, Any] | None = None,
    ) -> tuple[Ends, Conn]:
        """Both configurations of a tunnel. `role` is ours: an initiator answers, too, where the peer begins (in
        version 1 it does, to make an IKE SA anew); a responder never begins."""
        suite = suite or Suite()
        authentication: Method = "pre-shared-key" if auth == "psk" else "rsa-signature"
        connection = "both" if role == "initiator" else "responder-only"
        mine = {
            "connection": connection,
            "mode": mode,
            "authentication": authentication,
            "psk": PSK.encode() if auth == "psk" else b"",
            "pfs": suite.pfs,
            "certificates": self.our_certificates if auth != "psk" else (),
            **(ours or {}),
        }
        conn = {
            "ike": suite.theirs(version),
            "esp": suite.their_esp,
            "aggressive": mode == "aggressive",
            **(theirs or {}),
        }
        method = "psk" if auth == "psk" else "pubkey"
        shown = "" if auth == "psk" else self.their_certificate
        return (
            our_configuration(version, suite.ours(version, authentication), suite.our_esp, **mine),
            replace(Conn("t", version, PEER, US, Auth(PEER, method, shown), Auth(US, method)), **conn),
        )

    @contextmanager
    def tunnel(
        self,
        version: Version,
        role: str,
        suite: Suite | None = None,
        *,
        settings: dict[str, Any] | None = None,
        **how: Any,
    ) -> Iterator[Conn]:
        """A tunnel that stands; it is gone at both ends afterwards, whatever happened."""
        ours, conn = self.ours, conn = self.plan(version, role, suite, **how)
        self.settings = settings or {}
        self.us.reset()
        self.us.drain()
        self.peer.load(conn)
        try:
            self.us.configure(ours, **self.settings)
            if role == "responder":
                self.peer.initiate(conn)
            self.stands()
            yield conn
        finally:
            self.us.clear()
            self.peer.unload(conn)
            self.until(lambda: not self.peer.sas("t"), "the peer has forgotten it")

    def stands(self, within: float = DEADLINE) -> None:
        """Wait until both ends say that the tunnel is up, and we send by it."""
        self.until(lambda: self.us.up() and self.sender() and self.peer.up("t"), "the tunnel is up", within)

    def until(self, condition: Any, what: str, within: float = DEADLINE) -> None:
        self.us.until(condition, lambda: f"{what}\n{self.peer.sas()}\n{self.peer.tail()}", within)

    def spis(self) -> set[str]:
        """SPIs by which the peer receives."""
        return {child["spi-in"] for child in self.peer.children("t")}

    def sender(self) -> int:
        """Serial of the pair by which we send."""
        return self.us.sends()

    def traffic(self, *sizes: int) -> None:
        try:
            self.us.carry(*(sizes or FEW))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.peer.sas()}\n{self.peer.tail(25)}") from None
