"""What both versions make a CHILD SA of: the suites and SPIs of an offer, its keys, and the message that
installs it.

A CHILD SA is a pair of IPsec SAs, one for each direction (RFC 7296 1.3); with IKEv1 it comes from a quick mode
(RFC 2409 5.5). Each version derives KEYMAT in its own way and passes the keys in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.connections import PolicyEntry
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike_messages import SaInstall, UdpEncapsulation
from chassis.model.acl import AclRule
from chassis.model.ipsec import SaKeys


@dataclass(frozen=True, slots=True)
class ChildSa:
    """A CHILD SA as the engine keeps it. `entry` is the number of its policy entry (`chassis.ase.entry_numbers`).

    `remote_networks` are the peer's networks as negotiated: (address, prefix length). `replaces` is the serial of
    its predecessor, 0 for none.
    """

    tunnel: int
    serial: int
    entry: int
    remote_networks: tuple[tuple[int, int], ...] = ()
    replaces: int = 0


def suites_for_path(suites: Sequence[Suite], *, nat: bool) -> tuple[Suite, ...]:
    """Return the suites that pass on the path to the peer: through a NAT only ESP does (RFC 3948)."""
    return tuple([one for one in suites if not (nat and one.ah)])


def spi_protocols(suites: Iterable[Suite]) -> tuple[int, ...]:
    """Return the protocols for which the suites need an SPI, each once; IPComp needs a CPI."""
    found: dict[int, None] = {}
    for suite in suites:
        found.update(dict.fromkeys(int(protocol) for protocol in suite.protocols))
        if suite.ip_comp:
            found[int(Protocol.IPCOMP)] = None
    return tuple(found)


def key_sizes(suite: Suite) -> tuple[int, int, int]:
    """Return the octets of the keys of one direction: AH, cipher and integrity of ESP; 0 for none."""
    ah = INTEGRITY[suite.ah].key_octets if suite.ah else 0
    if not suite.cipher:
        return ah, 0, 0
    cipher = CIPHERS[suite.cipher]
    integrity = INTEGRITY[suite.esp_integrity].key_octets if suite.esp_integrity and not cipher.aead else 0
    return ah, cipher.key_octets, integrity


def sa_keys(suite: Suite, spis: Mapping[int, bytes], keys: tuple[bytes, ...]) -> SaKeys:
    """Return the keys of one direction. `spis` are its receiver's; `keys` have the sizes of `key_sizes`."""
    ah_key, cipher_key, integrity_key = keys
    aead = suite.cipher is not None and CIPHERS[suite.cipher].aead
    return SaKeys(
        esp_spi=int.from_bytes(spis.get(Protocol.ESP, b""), "big") if suite.cipher else 0,
        esp_integrity="" if aead else suite.esp_integrity or "",
        esp_integrity_key=integrity_key,
        esp_cipher=suite.cipher or "null",
        esp_cipher_key=cipher_key,
        ah_spi=int.from_bytes(spis.get(Protocol.AH, b""), "big") if suite.ah else 0,
        ah_integrity=suite.ah or "",
        ah_key=ah_key,
    )


def sa_install(
    child: ChildSa,
    entry: PolicyEntry,
    suite: Suite,
    *,
    outer: tuple[int, int],
    outbound: SaKeys,
    inbound: SaKeys,
    rules: tuple[AclRule, ...],
    cpis: tuple[int, int],
    seconds: int,
    kbytes: int,
    margin_factor: float,
    encapsulation: tuple[UdpEncapsulation, ...],
    send: bool,
    initiator: bool,
) -> SaInstall:
    """Return the message that installs a CHILD SA.

    `outer` is (our address, the peer's); `cpis` are (outbound, inbound), 0 without IPComp. `seconds` and `kbytes`
    are lifetimes, 0 for none; the soft limit of `kbytes` is below it by `margin_factor` (0 to 0.9).
    """
    return SaInstall(
        tunnel=child.tunnel,
        serial=child.serial,
        entry=child.entry,
        local=outer[0],
        remote=outer[1],
        outbound=outbound,
        inbound=inbound,
        window=entry.window,
        send=send,
        rules=rules,
        esn=suite.esn,
        cpi_out=cpis[0],
        cpi_in=cpis[1],
        seconds=seconds,
        kbytes=kbytes,
        soft_kbytes=int(kbytes * (1 - margin_factor)),
        encapsulation=encapsulation,
        initiator=initiator,
        replaces=child.replaces,
    )
