"""Two engines with a tunnel between them, and somebody who sends them mutated messages by the thousand.

`InClear` has no keys: it bends what it sees on the wire, and begins IKE SAs of its own. `WithKeys` is a peer that
bends what it says under the keys, before it is sealed: in messages that it has no business to send, and in those
that its own engine sends. An exception of either engine escapes from here.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.ikev1 import IvChain
from chassis.ase.ike.host import IkeHost, Session
from chassis.ase.ike.payloads import v1, v2
from chassis.ase.ike.payloads.header import HEADER_LENGTH, INITIATOR, RESPONSE, VERSION_1, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, PayloadTypeV1, PayloadTypeV2
from chassis.ase.ike.payloads.v1 import Hash
from chassis.ase.ike.v1.child_sas import MAX_CHILD_SAS
from chassis.ase.ike.v1.quick_mode import QuickModeState as QuickState
from chassis.ase.ike.v1.session import SessionV1
from chassis.ase.ike.v2.child_sas import MAX_CHILD_SAS_PER_ENTRY
from chassis.ase.ike.v2.session import SessionV2
from chassis.ase.ike_messages import IkePacket
from chassis.model.acl import AclRule
from tests.support.ike import mutation
from tests.support.ike.pair import TUNNEL, End, Ends, EnginePair, Mode, Version, esp, other, proposal

RING = 96
"""Messages seen that are kept, to be bent."""
HALF_OPEN = 40
"""Half-open IKE SAs without cookies, in all of these tests: far fewer than are begun."""
MOST = 60
LINES = 2
"""Policy lines of the tunnel."""
FLOOD = 100
"""IKE SAs that are begun at once at each end: more than may be half open."""
LIFETIME = 60
"""Seconds that a pair lives: one that the peer spoilt may have to run out."""
WHOLE_IN = 1.5 * LIFETIME
"""Seconds in which a tunnel that its own peer broke is whole again, by itself."""
RESTS_IN = 240.0
"""Seconds in which nothing is left of what was made for nothing."""
NETWORK = AclRule(1, source=(0x0A010000, 16), destination=(0x0A020000, 16))


class Ring:
    """The last messages of a kind, oldest forgotten at random; `bent` is one with something wrong in it."""

    def __init__(self, rng: random.Random, first: tuple[bytes, ...], *, header: bool) -> None:
        self._rng = rng
        self._header = HEADER_LENGTH if header else 0
        self.held = list(first)
        self._bent: Iterator[bytes] = mutation.mutations(rng.randrange(1 << 30), self.held, 1 << 60, header=header)

    def add(self, data: bytes) -> None:
        if len(self.held) < RING:
            self.held.append(data)
        else:
            self.held[self._rng.randrange(RING)] = data

    def bent(self) -> bytes:
        """Often with a single octet changed behind its header; sometimes one that is right, only not now."""
        kind = self._rng.random()
        if kind < 0.5:
            return next(self._bent)
        data = self._rng.choice(self.held)
        if kind < 0.94 and len(data) > self._header:
            changed = bytearray(data)
            at = self._rng.randrange(self._header, len(data))
            changed[at] = self._rng.choice((self._rng.randrange(256), changed[at] ^ 1, 0, 0xFF))
            return bytes(changed)
        return data


def spis_of(session: Session) -> bytes:
    """Both SPIs as a header has them."""
    if isinstance(session, SessionV2):
        return session.spi_i + session.spi_r
    assert isinstance(session, SessionV1)
    return session.phase1.cky_i + session.phase1.cky_r


class Fuzzed(ABC):
    """What both kinds have: the ends, the clock that goes on between two messages, and the judgement at a rest."""

    def __init__(self, version: Version, seed: int, *, mode: Mode = "main", **changes: Any) -> None:
        self.rng = random.Random(seed)
        self.version = version
        one = proposal(version, dh_group=1, lifetime=150)
        ends = Ends(
            version=version,
            mode=mode,
            proposals=(one,),
            lifetime=150,
            suites=(esp(seconds=LIFETIME),),
            rules=((), (NETWORK,)),
            **changes,
        )
        settings = {
            "cookie-threshold": HALF_OPEN, "half-open-limit": MOST, "half-open-limit-per-peer": MOST,
            "ike-retransmit-tries": 3,
        }  # fmt: skip
        self.wire = Ring(self.rng, mutation.CLEAR_1 if version == 1 else mutation.CLEAR_2, header=True)
        self.firsts: list[bytes] = []
        """Messages that began an IKE SA."""
        self.given = 0
        self.peak = 0
        """Most half-open IKE SAs at one end."""
        self.longest = 0.0
        """Most seconds until the tunnel was whole again after harm."""
        self.two = EnginePair(ends, other(ends), seed=seed, trouble=self._seen, **dict[str, Any](settings))
        assert self.two.until(self.whole, 20), "the tunnel comes up to begin with"

    def _seen(self, sender: int, packet: IkePacket, now: float) -> list[float]:
        self.wire.add(packet.data)
        if len(self.firsts) < RING and packet.data[8:16] == bytes(8):
            self.firsts.append(packet.data)
        return [0.005]

    def whole(self) -> bool:
        """Up at both ends, and packets get through both ways on each line."""
        two = self.two
        if not (two.a.up() and two.b.up()):
            return False
        through = [self._through(end, entry) for end in (two.a, two.b) for entry in (10, 20)]
        return all(through)

    def _through(self, sender: End, entry: int) -> bool:
        """Whether a packet gets through. A peer that bends what it says under the keys may have one end make a
        pair with an SPI of the other's whose keys that one never had: such a packet is dropped there."""
        two = self.two
        receiver = two.b if sender is two.a else two.a
        pair = sender.sender(entry)
        name = pair and receiver.opens((pair.outbound.ah_spi, pair.outbound.esp_spi))
        if pair and name and receiver.pairs[name].inbound != pair.outbound:
            return False
        return two.packet(sender, entry)

    def hand(self, end: End, data: bytes, remote: int = 0, port: int = 500, local_port: int = 500) -> None:
        """A datagram arrives."""
        peer = self.two.b if end is self.two.a else self.two.a
        self.given += 1
        self.two.give(end, IkePacket(7, end.local, local_port, remote or peer.local, port, data))

    def go_on(self) -> None:
        """A moment passes, most often none."""
        if self.rng.random() < 0.25:
            self.two.run(self.rng.choice((0.001, 0.01, 0.05, 0.1)))
        if self.rng.random() < 0.005:
            end = self.rng.choice((self.two.a, self.two.b))
            self.two.ask(end, "rekey", what=self.rng.choice(("ike", "children")))
        self.bounded()

    def bounded(self) -> None:
        for end in (self.two.a, self.two.b):
            registry = end.ike.ike_sa_manager.table
            self.peak = max(self.peak, registry.half_open)
            assert registry.half_open <= MOST
            assert len(registry.by_spi) <= MOST + 40, sorted(str(one) for one in registry.by_spi.values())
            assert len(end.pairs) <= (MAX_CHILD_SAS if self.version == 1 else 2 * LINES * MAX_CHILD_SAS_PER_ENTRY)

    def burst(self, count: int) -> None:
        """`count` messages."""
        until = self.given + count
        while self.given < until:
            self.strike()
            self.go_on()

    @abstractmethod
    def strike(self) -> None:
        """One message, or none if there is nothing to be had at this moment."""

    def rest(self) -> None:
        """Nobody harms them: the tunnel is whole, and nothing is left of what was begun for nothing."""
        two = self.two
        began = two.now
        assert two.until(self.whole, WHOLE_IN), (two.a.texts()[-5:], two.b.texts()[-5:], self.held())
        self.longest = max(self.longest, two.now - began)
        assert two.until(self._tidy, RESTS_IN), self.held()
        assert two.until(self.whole, WHOLE_IN), (two.a.texts()[-5:], two.b.texts()[-5:], self.held())
        for end in (two.a, two.b):
            end.logs.clear()
            end.sent.clear()
            end.deleted.clear()
            end.replies.clear()
            end.seen &= set(end.pairs)

    def _tidy(self) -> bool:
        """As many SPIs, owners and sessions as the pairs need, and few pairs: at moments without a negotiation
        under way, when what was made for nothing has run out."""
        for end in (self.two.a, self.two.b):
            registry = end.ike.ike_sa_manager.table
            spis = 0
            for pair in end.pairs.values():
                spis += bool(pair.inbound.ah_spi) + bool(pair.inbound.esp_spi) + bool(pair.cpi_in)
            if (
                end.ike.ike_sa_manager.spis_held != spis
                or set(registry.child_owner) != set(end.pairs)
                or registry.half_open
            ):
                return False
            if len(end.pairs) > 4 * LINES:
                return False
            for session in registry.by_spi.values():
                if isinstance(session, SessionV1) and len(session.exchanges) > 4 * LINES:
                    return False
            if len(registry.by_spi) > 4 or len(end.ike.connection_manager.by_tunnel[TUNNEL].sessions()) > 4:
                return False
        return True

    def held(self) -> list[tuple[int, int, int, int, int]]:
        """(SPIs, pairs, owners, sessions, half open) of each end, for the one who reads a failure."""
        return [
            (
                end.ike.ike_sa_manager.spis_held,
                len(end.pairs),
                len(end.ike.ike_sa_manager.table.child_owner),
                len(end.ike.ike_sa_manager.table.by_spi),
                end.ike.ike_sa_manager.table.half_open,
            )
            for end in (self.two.a, self.two.b)
        ]

    def close(self) -> None:
        """Undo what was hooked."""


class InClear(Fuzzed):
    """Somebody on the wire, without keys."""

    def burst(self, count: int) -> None:
        """First as many beginnings as no end holds at once, then whatever comes."""
        for _ in range(FLOOD):
            data = bytearray(self.rng.choice(self.firsts))
            data[:8] = self.rng.randbytes(8)
            for end in (self.two.a, self.two.b):
                self.hand(end, bytes(data), port=self.rng.randrange(1, 65536))
            self.bounded()
        super().burst(count - 2 * FLOOD)

    def strike(self) -> None:
        rng = self.rng
        end = rng.choice((self.two.a, self.two.b))
        data = self._aimed(end, self.wire.bent())
        if self.given % 50 == 0:
            assert self.whole(), "who has no keys does no harm"
        match rng.randrange(8):
            case 0:
                self.hand(end, data, port=rng.randrange(1, 65536))
            case 1:
                self.hand(end, data, remote=rng.choice((0x0A000009, 0x0A000003)))
            case 2:
                self.hand(end, data, port=4500, local_port=4500)
            case _:
                self.hand(end, data)

    def _aimed(self, end: End, data: bytes) -> bytes:
        """Most often with the SPIs of an IKE SA that the end has, or half has: they are on the wire, too."""
        sessions = list(end.ike.ike_sa_manager.table.by_spi.values())
        if not sessions or len(data) < HEADER_LENGTH or self.rng.random() < 0.3:
            return data
        spis = spis_of(self.rng.choice(sessions))
        if self.rng.random() < 0.1:
            spis = spis[:8] + bytes(8)
        return spis + data[16:]


class WithKeys(Fuzzed):
    """End b has the keys, and says what comes into its mind."""

    bending = 0.05
    """The part of what its own engine seals that is bent."""

    def __init__(self, version: Version, seed: int, *, mode: Mode = "main", **changes: Any) -> None:
        self._undo: list[Any] = []
        self.inside = Ring(
            random.Random(seed), mutation.INSIDE_1 if version == 1 else mutation.INSIDE_2, header=False
        )
        self._harm = False
        self._speaks: IkeHost | None = None
        if version == 1:
            self._hook_v1()
        else:
            self._hook_v2()
        super().__init__(version, seed, mode=mode, **changes)

    def burst(self, count: int) -> None:
        self._harm = True
        super().burst(count)
        self._harm = False

    def close(self) -> None:
        for holder, name, value in self._undo:
            setattr(holder, name, value)
        self._undo.clear()

    def _replace(self, holder: Any, name: str, value: Any) -> None:
        self._undo.append((holder, name, getattr(holder, name)))
        setattr(holder, name, value)

    def _bends(self, host: IkeHost | None) -> bool:
        return self._harm and host is self.two.b.ike.ike_sa_manager and self.rng.random() < self.bending

    def strike(self) -> None:
        if self.version == 1:
            self._strike_v1()
        else:
            self._strike_v2()

    # version 2

    def _hook_v2(self) -> None:
        pack = SessionV2._pack

        def packed(
            session: SessionV2, exchange: int, message_id: int, payloads: tuple[v2.PayloadV2, ...], response: int
        ) -> tuple[bytes, ...]:
            datagrams = pack(session, exchange, message_id, payloads, response)
            if exchange == ExchangeType.IKE_SA_INIT:
                return datagrams
            first, plain = v2.emit_payloads(payloads)
            self.inside.add(bytes((first,)) + plain)
            if not self._bends(session.host):
                return datagrams
            self.given += 1
            flags = response | (INITIATOR if session.initiator else 0)
            return self._sealed_v2(session, exchange, flags, message_id, sending=True)

        self._replace(SessionV2, "_pack", packed)

    def _sealed_v2(
        self, session: SessionV2, exchange: int, flags: int, message_id: int, *, sending: bool
    ) -> tuple[bytes, ...]:
        header = Header(session.spi_i, session.spi_r, 0, VERSION_2, exchange, flags, message_id, 0)
        guard = session.ike_keymat.sending if sending else session.ike_keymat.receiving
        inside = self.inside.bent()
        first, plain = (inside[0], inside[1:]) if inside else (0, b"")
        iv = self.rng.randbytes(guard.iv_octets)
        if self.rng.random() < 0.9 or len(plain) < 2:
            return (guard._encrypt(header, b"", PayloadTypeV2.SK, first, b"", plain, iv),)
        middle = self.rng.randrange(1, len(plain))
        return tuple(
            guard._encrypt(header, b"", PayloadTypeV2.SKF, kind, bytes((0, number, 0, 2)), part, iv)
            for number, kind, part in ((1, first, plain[:middle]), (2, 0, plain[middle:]))
        )

    def _strike_v2(self) -> None:
        rng = self.rng
        victim = self.two.a
        sessions = [
            one
            for one in victim.ike.ike_sa_manager.table.by_spi.values()
            if isinstance(one, SessionV2) and one.keymat
        ]
        if not sessions:
            self.two.run(0.5)
            return
        session = rng.choice(sessions)
        flags = 0 if session.initiator else INITIATOR
        peer = self.two.b.ike.ike_sa_manager.table.by_spi.get(session.peer_spi)
        exchanges = session.task_manager
        outstanding = exchanges.pending_request
        if outstanding is not None and (rng.random() < 0.3 or not session.established):
            exchange, flags, number = outstanding.task.exchange_type, flags | RESPONSE, outstanding.message_id
        else:
            exchange = rng.choice((ExchangeType.CREATE_CHILD_SA,) * 4 + (ExchangeType.INFORMATIONAL,) * 2 + (35,))
            number = exchanges.expected_message_id
            if (
                isinstance(peer, SessionV2)
                and peer.task_manager.pending_request is not None
                and rng.random() < 0.9
            ):
                # Its own request is under way: what would be said now would stand in its place.
                self.two.run(0.011)
                if peer.task_manager.pending_request is not None or session.closed:
                    self.two.run(0.5)
                    return
                number = exchanges.expected_message_id
        for data in self._sealed_v2(session, exchange, flags, number, sending=False):
            self.hand(victim, data, port=session.path.remote_port, local_port=session.path.local_port)
        if isinstance(peer, SessionV2) and peer.task_manager.pending_request is None:
            peer.task_manager.next_message_id = max(
                peer.task_manager.next_message_id, exchanges.expected_message_id
            )

    # version 1

    def _hook_v1(self) -> None:
        seal, send = IvChain.encrypt, SessionV1.send_phase_1

        def sealed(chain: IvChain, header: Header, payloads: tuple[v1.PayloadV1, ...]) -> tuple[bytes, IvChain]:
            first, plain = v1.emit_payloads(payloads)
            self.inside.add(bytes((first,)) + plain)
            if self._bends(self._speaks):
                self.given += 1
                inside = self.inside.bent() or b"\0"
                return chain.encrypt_plain(header, inside[0], inside[1:])
            return seal(chain, header, payloads)

        def sent(session: SessionV1, *arguments: Any, **more: Any) -> None:
            self._speaks = session.host
            send(session, *arguments, **more)
            self._speaks = None

        self._replace(IvChain, "encrypt", sealed)
        self._replace(SessionV1, "send_phase_1", sent)

    def _body_v1(self) -> tuple[int, bytes]:
        """(type of the first payload, bent payloads): what goes behind a HASH that is right."""
        inside = self.inside.bent()
        if not inside:
            return 0, b""
        first, plain = inside[0], inside[1:]
        if first == PayloadTypeV1.HASH and len(plain) > 4:
            size = int.from_bytes(plain[2:4], "big")
            first, plain = plain[0], plain[size:]
        return first, plain

    def _strike_v1(self) -> None:
        rng = self.rng
        victim = self.two.a
        sessions = [
            one
            for one in victim.ike.ike_sa_manager.table.by_spi.values()
            if isinstance(one, SessionV1) and one.phase1.keys is not None and one.phase1.chain is not None
        ]
        if not sessions:
            self.two.run(0.5)
            return
        session = rng.choice(sessions)
        keys, handshake = session.keys, session.phase1
        first, body = self._body_v1()
        waiting = [one for one in session.quick_modes.pending if one.state is QuickState.QM1_SENT]
        message_id = rng.randrange(1, 1 << 32)
        exchange = ExchangeType.QUICK_MODE if rng.random() < 0.7 else ExchangeType.INFORMATIONAL_V1
        if waiting and rng.random() < 0.5:
            quick = waiting[0]
            message_id, exchange, chain = quick.message_id, ExchangeType.QUICK_MODE, quick.chain
            digest = ikev1.quick_hash_2(keys, message_id, quick.ni, body)
        else:
            chain = handshake.exchange_chain(message_id)
            digest = ikev1.quick_hash_1(keys, message_id, body)
        covered = Hash(digest).emit()
        plain = bytes((first, 0)) + (4 + len(covered)).to_bytes(2, "big") + covered + body
        header = Header(handshake.cky_i, handshake.cky_r, 0, VERSION_1, exchange, 0, message_id, 0)
        data, _ = chain.encrypt_plain(header, PayloadTypeV1.HASH, plain)
        self.hand(victim, data, port=session.path.remote_port, local_port=session.path.local_port)


KINDS = {"clear": InClear, "inside": WithKeys}


def fuzzed(kind: str, version: Version, seed: int) -> Fuzzed:
    return KINDS[kind](version, seed, mode="aggressive" if version == 1 and seed % 2 else "main")
