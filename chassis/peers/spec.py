"""What the peers of one node are: read from the node's keys in a lab file, and turned into records for IKE.

Each peer is a static tunnel of one IKE engine. Proposals and the IPsec policy are shared; each peer has its own
address, identity, IKE policy and, where the lab gives inner networks, access list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from chassis.ase.ike.credentials import Credentials
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY, PRFS
from chassis.ase.ike.crypto.diffie_hellman import GROUPS
from chassis.bus.records import CertificateRecord, ContextRecord, Key, PolicyRecord, Record, TunnelRecord
from chassis.bus.requests import MAX_SETUP_RATE
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import Identity, IkePolicy, IkeProposal, PreSharedKey, ProposalRef
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, TunnelEntry
from chassis.model.router import Tunnel
from chassis.net.address import ANY, MASKS, parse_address
from chassis.net.types import Prefix
from chassis.peers.nat import FIRST_INSIDE, MAX_PER_ADDRESS

MAX_PEERS: Final = 32_000
"""Most peers of one node (count): as many as a router has tunnels."""

FILES: Final = ("certificate", "private-key", "authority")
"""Keys whose values are PEM texts; in a lab file they are names of files."""
MAX_PEM: Final = 65_536
"""Longest PEM text (characters)."""

KEYS: Final = (
    "peers",
    "first-address",
    "towards",
    "version",
    "mode",
    "identity",
    "remote-id",
    "pre-shared-key",
    *FILES,
    "first-network",
    "remote-network",
    "traffic",
    "nat",
    "processes",
    "rate",
    "at-once",
    "start",
    "keepalive",
    "ike-proposal",
    "ipsec-proposal",
)
NEEDED: Final = ("peers", "first-address", "towards")
IKE_KEYS: Final = ("encryption", "authentication", "prf", "dh-group", "lifetime")
IPSEC_KEYS: Final = ("encryption", "authentication", "pfs-group", "lifetime")
TRAFFIC_KEYS: Final = ("peers", "to", "rate", "size")
NESTED: Final = {"ike-proposal": IKE_KEYS, "ipsec-proposal": IPSEC_KEYS, "traffic": TRAFFIC_KEYS}
"""Keys of the keys that are mappings."""
MAX_SAMPLE: Final = 1000
"""Most peers of one node with traffic (count)."""
MAX_TRAFFIC_RATE: Final = 1000.0
"""Most packets of one peer (1/s)."""
SIZES: Final = (64, 1400)
"""Shortest and longest inner packet (octets)."""
VERSIONS: Final = (1, 2, "both")
MODES: Final = ("main", "aggressive")
MAX_PROCESSES: Final = 64
"""Most processes of one node (count)."""
MAX_GATEWAYS: Final = 64
"""Most addresses of the gateway (count)."""
NUMBER: Final = "{number}"
"""What stands for the number of the peer in an identity or a key."""

OUTER, INNER = 1, 2
"""Numbers of the contexts: they matter to nobody else."""
ENTRY: Final = 10
POLICY: Final = "peers"

Problem = tuple[str, str]
"""The key with the error (`ike-proposal.dh-group`), and what is wrong with its value."""


@dataclass(frozen=True, slots=True)
class TrafficSpec:
    """The first `peers` of a node each send `rate` packets a second, of `size` octets, through their tunnels."""

    peers: int
    to: int
    rate: float = 10.0
    size: int = 100


@dataclass(frozen=True, slots=True)
class PeersSpec:
    """The peers of one node, or of one of its processes, numbered from 1.

    `rate` is how many begin, or go, in a second, `at_once` how many of those that begin may be on their way up.

    `versions` are taken in turn, and for each round of them the next of `gateways`, the gateway's addresses.
    `mode` is that of IKEv1. `networks` is the first peer's inner network and the gateway's; None: each peer
    protects everything. `identity` is a name, empty: the peer's address; `remote_id` is the gateway's identity;
    empty: its address. `identity` and `secret` may have NUMBER in them.
    """

    count: int
    first: int
    gateways: tuple[int, ...]
    secret: str = field(repr=False)
    versions: tuple[Literal[1, 2], ...] = (2,)
    mode: Literal["main", "aggressive"] = "aggressive"
    identity: str = ""
    remote_id: str = ""
    networks: tuple[Prefix, Prefix] | None = None
    traffic: TrafficSpec | None = None
    rate: float = 100.0
    auto: bool = True
    keepalive: bool = False
    ike: Mapping[str, Any] = field(default_factory=dict)
    ipsec: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = MAX_PEERS
    nat: int = 0
    """Peers that share an outer address behind a NAT (count); 0 without NAT."""
    credentials: tuple[CertificateRecord, ...] = field(default=(), repr=False)
    """The certificate that all peers share, its key, and trusted ones; empty: there are preshared keys."""
    processes: int = 1
    before: int = 0
    """Peers of the node that come before these, in other processes (count)."""

    def split(self) -> tuple[PeersSpec, ...]:
        """Return the peers of each process, which are numbered from 1 in each: at most so many as are asked for.

        Peers that share an outer address are in one process. Rates, and the sample with traffic, are shared out.
        """
        together = self.nat or 1
        places = -(-self.count // together)
        parts = min(self.processes, places)
        made = []
        for index in range(parts):
            before, end = (min(places * each // parts * together, self.count) for each in (index, index + 1))
            sample = None if self.traffic is None else _share(self.traffic.peers, parts, index)
            traffic = None if self.traffic is None or not sample else replace(self.traffic, peers=sample)
            made.append(
                replace(
                    self,
                    count=end - before,
                    before=before,
                    processes=1,
                    rate=self.rate / parts,
                    at_once=max(_share(self.at_once, parts, index), 1),
                    traffic=traffic,
                )
            )
        return tuple(made)

    def outer_addresses(self) -> tuple[int, int]:
        """Return the first outer address of these peers, and the first one after them."""
        together = self.nat or 1
        return self.first + self.before // together, self.first - (-(self.before + self.count) // together)

    def address(self, number: int) -> int:
        """Return the address that a peer has itself: behind a NAT an inner one."""
        return (FIRST_INSIDE if self.nat else self.first) + self.before + number - 1

    def number(self, address: int) -> int:
        """Return the number of the peer that has this address itself; 0 without one."""
        number = address - self.address(1) + 1
        return number if 1 <= number <= self.count else 0

    def version(self, number: int) -> Literal[1, 2]:
        return self.versions[(self.before + number - 1) % len(self.versions)]

    def towards(self, number: int) -> int:
        """Return the gateway's address with which a peer negotiates."""
        return self.gateways[(self.before + number - 1) // len(self.versions) % len(self.gateways)]

    def key(self, number: int) -> bytes:
        """Return the preshared key of a peer."""
        return self.secret.replace(NUMBER, str(self.before + number)).encode()

    def name(self, number: int) -> str:
        """Return the identity of a peer if it is a name; empty if it is the peer's address."""
        return self.identity.replace(NUMBER, str(self.before + number))

    def network(self, number: int) -> Prefix:
        """Return the inner network of a peer: the networks of all peers follow each other."""
        if self.networks is None:
            return ANY
        (first, length), _ = self.networks
        return (first + ((self.before + number - 1) << (32 - length)), length)

    def inner_address(self, number: int) -> int:
        """Return a peer's own address in its inner network: the first of a host."""
        address, length = self.network(number)
        return address + (length < 31)

    def shared_records(self) -> tuple[Record, ...]:
        """Return the records that all peers share."""
        ipsec = IpsecProposal(
            POLICY,
            esp_encryption=self.ipsec.get("encryption"),
            esp_authentication=self.ipsec.get("authentication"),
            lifetime_seconds=self.ipsec.get("lifetime", 86400),
        )
        return (
            ContextRecord(OUTER, "outer", keepalive=self.keepalive),
            *self.credentials,
            *(PolicyRecord(0, self._proposal(version)) for version in dict.fromkeys(self.versions)),
            PolicyRecord(0, ipsec),
            PolicyRecord(
                0,
                IpsecPolicy(POLICY, pfs_group=self.ipsec.get("pfs-group"), proposals=(ProposalRef(10, POLICY),)),
            ),
        )

    @property
    def authentication(self) -> Literal["pre-shared-key", "rsa-signature"]:
        return "rsa-signature" if self.credentials else "pre-shared-key"

    def records(self, number: int) -> tuple[Record, ...]:
        """Return the records of one peer."""
        name, version = f"peer-{self.before + number}", self.version(number)
        policy = IkePolicy(
            name,
            version=version,
            connection_type="initiator-only",
            mode=self.mode,
            identity_local=Identity("fqdn", self.name(number)) if self.identity else None,
            authentication=self.authentication,
            pre_shared_key=PreSharedKey("ascii", self.key(number)) if self.secret else None,
            proposals=(ProposalRef(10, f"{POLICY}-{version}"),),
        )
        rules: tuple[Record, ...] = ()
        if self.networks is not None:
            rule = AclRule(10, source=self.network(number), destination=self.networks[1])
            rules = (PolicyRecord(INNER, Acl(name, rules=(rule,))),)
        tunnel = Tunnel(
            name,
            economical=True,
            ike_policy=name,
            remote_id=self.remote_id or None,
            entries=(TunnelEntry(ENTRY, policy=POLICY, acl=name if rules else None),),
        )
        return (
            PolicyRecord(OUTER, policy),
            *rules,
            TunnelRecord(
                number=number,
                config=tunnel,
                asp="",
                circuit=0,
                home="",
                context=INNER,
                outer_context=OUTER,
                local=self.address(number),
                remote=self.towards(number),
                queues=0,
                up=True,
            ),
        )

    def keys(self, number: int) -> tuple[Key, ...]:
        """Return the keys of the records of one peer, the tunnel's first."""
        return tuple(record.key for record in reversed(self.records(number)))

    def _proposal(self, version: Literal[1, 2]) -> IkeProposal:
        given = self.ike
        return IkeProposal(
            f"{POLICY}-{version}",
            version=version,
            dh_group=given.get("dh-group", 2),
            encryption_algorithm=given.get("encryption", "aes-128-cbc"),
            authentication_algorithm=given.get("authentication", "hmac-sha1-96"),
            prf=given.get("prf", "hmac-sha1"),
            authentication=self.authentication,
            lifetime=given.get("lifetime", 86400),
        )


def _share(whole: int, parts: int, index: int) -> int:
    return whole * (index + 1) // parts - whole * index // parts


def read_spec(values: Mapping[str, Any]) -> tuple[PeersSpec | None, list[Problem]]:
    """Return the peers that the keys of a node mean, None if they mean none, and what is wrong with them."""
    reader = _SpecReader(values)
    spec = reader.read()
    return (None if reader.problems else spec), reader.problems


class _SpecReader:
    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.problems: list[Problem] = []

    def read(self) -> PeersSpec:
        first, gateways = self._address("first-address"), self._gateways()
        count = self._integer("peers", self._values.get("peers", 1), 1, MAX_PEERS)
        version = self._values.get("version", 2)
        if version not in VERSIONS or isinstance(version, bool):
            self._wrong("version", version, "is 1, 2 or both")
            version = 2
        nat = self._integer("nat", self._values.get("nat", 0), 0, MAX_PER_ADDRESS)
        outer = -(-count // nat) if nat else count
        if first + outer > 1 << 32:
            self._wrong("first-address", self._values.get("first-address"), f"has no {outer} addresses after it")
        elif any(first <= address < first + outer for address in gateways):
            self._wrong("towards", self._values.get("towards"), "is the address of a peer")
        identity = self._text("identity", 255)
        if identity and count > 1 and NUMBER not in identity:
            self._wrong("identity", identity, f"is the same for all peers; write {NUMBER} for a peer's number")
        mode = self._values.get("mode", "aggressive" if identity else "main")
        if mode not in MODES:
            self._wrong("mode", mode, "is main or aggressive")
            mode = "main"
        start = self._values.get("start", "auto")
        if start not in ("auto", "manual"):
            self._wrong("start", start, "is auto or manual")
        keepalive = self._values.get("keepalive", False)
        if not isinstance(keepalive, bool):
            self._wrong("keepalive", keepalive, "is true or false")
        credentials = self._credentials()
        return PeersSpec(
            count,
            first,
            gateways,
            self._text("pre-shared-key", 255, needed=not credentials and "certificate" not in self._values),
            (1,) if version == 1 else (2,) if version == 2 else (1, 2),
            mode,
            identity,
            self._text("remote-id", 255),
            self._networks(count),
            self._traffic(count),
            self._rate("rate", self._values.get("rate", 100.0), "peers", MAX_SETUP_RATE),
            start == "auto",
            keepalive is True,
            self._proposal("ike-proposal", IKE_KEYS),
            self._proposal("ipsec-proposal", IPSEC_KEYS),
            self._integer("at-once", self._values.get("at-once", MAX_PEERS), 1, MAX_PEERS),
            nat,
            credentials,
            self._integer("processes", self._values.get("processes", 1), 1, MAX_PROCESSES),
        )

    def _wrong(self, key: str, value: Any, what: str) -> None:
        # The value of a key is never said.
        said = "" if key in ("pre-shared-key", *FILES) else f": {str(value)[:64]!r}"
        self.problems.append((key, f"'{key.rpartition('.')[2]}:' {what}{said}"))

    def _gateways(self) -> tuple[int, ...]:
        given = self._values.get("towards", "")
        values = given if isinstance(given, list | tuple) else [given]
        if not 1 <= len(values) <= MAX_GATEWAYS:
            self._wrong("towards", len(values), f"is an address, or a list of 1 to {MAX_GATEWAYS}")
            return (1 << 24,)
        return tuple([self._address("towards", value) for value in values])

    def _address(self, key: str, value: Any = None) -> int:
        value = self._values.get(key, "") if value is None else value
        try:
            address = parse_address(value if isinstance(value, str) else "")
            if not 1 <= address >> 24 < 224:
                raise ValueError
        except ValueError:
            self._wrong(key, value, "is the IPv4 address of a host")
            return 1 << 24
        return address

    def _credentials(self) -> tuple[CertificateRecord, ...]:
        given = [key for key in FILES if key in self._values]
        if not given:
            return ()
        missing = [key for key in FILES if key not in given]
        if missing:
            self._wrong(given[0], "", f"needs {missing[0]}, too")
            return ()
        made = []
        for key, kind in zip(FILES, ("self", "key", "trusted"), strict=True):
            value = self._values[key]
            if not isinstance(value, str) or not value.isascii() or len(value) > MAX_PEM:
                self._wrong(key, "", "is a PEM file")
                return ()
            made.append(CertificateRecord(OUTER, POLICY, kind, value.encode()))
        credentials, problems = Credentials.read(made)
        if problems or not credentials.own:
            self._wrong("certificate", "", problems[0] if problems else "has another key than the private key")
            return ()
        return tuple(made)

    def _text(self, key: str, longest: int, *, needed: bool = False) -> str:
        value = self._values.get(key, "")
        if not isinstance(value, str) or len(value) > longest or not value.isprintable() or (needed and not value):
            self._wrong(key, value, f"is a text of {'1' if needed else '0'} to {longest} printable characters")
            return ""
        return value

    def _integer(self, key: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._wrong(key, value, f"is a whole number, {low} to {high}")
            return low
        return value

    def _rate(self, key: str, value: Any, what: str, most: float) -> float:
        if isinstance(value, str) and value.endswith("/s") and value[:-2].replace(".", "", 1).isdigit():
            value = float(value[:-2])
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            self._wrong(key, value, f"is {what} a second, such as 100/s, at most {most:g}")
            return most
        return float(value)

    def _traffic(self, count: int) -> TrafficSpec | None:
        given = self._values.get("traffic")
        if given is None:
            return None
        if not isinstance(given, Mapping):
            self._wrong("traffic", given, f"is a mapping of {', '.join(TRAFFIC_KEYS)}")
            return None
        for name in given.keys() - TRAFFIC_KEYS:
            self._wrong(f"traffic.{name}", given[name], f"is not known; expected one of {', '.join(TRAFFIC_KEYS)}")
        if "to" not in given:
            self._wrong("traffic", dict(given), "needs 'to', the address of a host that answers echo requests")
            return None
        if "first-network" not in self._values:
            self._wrong(
                "traffic", dict(given), "needs first-network and remote-network, for the packets' addresses"
            )
        return TrafficSpec(
            min(self._integer("traffic.peers", given.get("peers", 10), 1, MAX_SAMPLE), count),
            self._address("traffic.to", given["to"]),
            self._rate("traffic.rate", given.get("rate", 10.0), "packets of one peer", MAX_TRAFFIC_RATE),
            self._integer("traffic.size", given.get("size", 100), *SIZES),
        )

    def _networks(self, count: int) -> tuple[Prefix, Prefix] | None:
        given = [key for key in ("first-network", "remote-network") if key in self._values]
        if not given:
            return None
        if len(given) == 1:
            self._wrong(given[0], self._values[given[0]], "needs both first-network and remote-network")
            return None
        own, remote = self._network("first-network"), self._network("remote-network")
        if own[0] + (count << (32 - own[1])) > 1 << 32:
            self._wrong(
                "first-network", self._values["first-network"], f"is not followed by {count} networks of its size"
            )
        return own, remote

    def _network(self, key: str) -> Prefix:
        text = self._values[key]
        address, _, length = text.partition("/") if isinstance(text, str) else ("", "", "")
        try:
            number, size = parse_address(address), int(length)
            if not 0 <= size <= 32 or number & ~MASKS[size]:
                raise ValueError
        except ValueError:
            self._wrong(key, text, "is a network such as 10.96.0.0/16")
            return ANY
        return number, size

    def _proposal(self, key: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        given = self._values.get(key, {})
        if not isinstance(given, Mapping):
            self._wrong(key, given, f"is a mapping of {', '.join(known)}")
            return {}
        choices: Mapping[str, tuple[Any, ...]] = {
            "encryption": tuple(name for name, spec in CIPHERS.items() if not spec.modern),
            "authentication": tuple(name for name, spec in INTEGRITY.items() if not spec.modern),
            "prf": tuple(name for name, spec in PRFS.items() if not spec.modern),
            "dh-group": tuple(GROUPS),
            "pfs-group": tuple(GROUPS),
        }
        for name, value in given.items():
            if name not in known:
                self._wrong(f"{key}.{name}", value, f"is not known; expected one of {', '.join(known)}")
            elif name == "lifetime":
                self._integer(f"{key}.lifetime", value, 120, 2**31)
            elif isinstance(value, bool) or value not in choices[name]:
                self._wrong(f"{key}.{name}", value, f"is one of {', '.join(map(str, choices[name]))}")
        return given
