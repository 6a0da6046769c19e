"""Datagrams of IKE: whose they are, whether a new negotiation is begun for them, and what is answered in clear.

Nothing is held for a stranger beyond the half-open negotiations that the settings allow. Whoever forges first
messages from a peer's address shuts out neither that peer nor others: past `half_open` of them, or
`half_open_peer` of its address, a version 2 peer has to show first that it receives what is sent there
(RFC 7296 2.6), and then there is room for it; version 1 has no such question, so the oldest whose peer has not
shown it makes room for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Final

from chassis.ase.ike import refusals
from chassis.ase.ike.host import Path, Session
from chassis.ase.ike.messages import TEMPLATES
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.v1.session import SessionV1
from chassis.ase.ike.v2.cookies import Jar
from chassis.ase.ike.v2.session import SessionV2
from chassis.ase.link import IkePacket
from chassis.fwd.rate import TokenBucket
from chassis.net.address import format_address

if TYPE_CHECKING:
    from chassis.ase.ike.engine import Ike

NO_SPI: Final = bytes(8)

EVICTIONS: Final = 50.0
"""First messages of aggressive mode in a second, about, that are answered in the place of older ones: each costs a
Diffie-Hellman value before anything is known of its sender, and a flood of them must leave time for others."""

_SENDING_V1: Final[dict[int, str]] = {
    NotifyTypeV1.INVALID_MAJOR_VERSION: "ikev1-notify-invalid-major-version",
    NotifyTypeV1.INVALID_MINOR_VERSION: "ikev1-notify-invalid-minor-version",
    NotifyTypeV1.INVALID_FLAGS: "ikev1-notify-invalid-flags",
    NotifyTypeV1.INVALID_MESSAGE_ID: "ikev1-notify-invalid-message-id",
    NotifyTypeV1.INVALID_PAYLOAD_TYPE: "ikev1-notify-invalid-payload-type",
}
"""What the log says of a notification that is sent in clear, by its type."""


def _mark(header: Header, data: bytes) -> bytes:
    """What a peer's first message is known by when it comes again. In version 2 that is the whole of it: one with
    the same SPI may be another peer's, or a forged one (RFC 7296 2.1). In version 1 notifications follow it that
    have nothing but its cookie."""
    return header.spi_i if header.major == 1 else blake2b(data, digest_size=16).digest()


class Arrivals:
    """What comes in from the wire."""

    def __init__(self, ike: Ike, random: Callable[[int], bytes]) -> None:
        self._ike = ike
        self._random = random
        self._jar: Jar | None = None
        self._answers = TokenBucket(refusals.RATE, refusals.BURST)
        self._next_eviction = -inf

    def datagram(self, packet: IkePacket, now: float) -> None:
        """One datagram; what is wrong with it is logged, counted and perhaps answered, never raised."""
        ike = self._ike
        path = Path(packet.context, packet.local, packet.local_port, packet.remote, packet.remote_port)
        data = packet.data
        try:
            header = Header.parse(data)
        except PayloadError as error:
            ike.counted("received", data)
            self._wrong(error, None, None, path, data, now)
            return
        session = self._session(header, path, data)
        try:
            header.check(known=session is not None)
        except PayloadError as error:
            ike.counted("received", data)
            self._wrong(error, header, session, path, data, now)
            return
        if session is None:
            begin = self._begin_v1 if header.major == 1 else self._begin_v2
            session = begin(data, header, path, now)
        if session is None:
            ike.counted("received", data)
        else:
            ike.run(session, self._give, session, data, header, path, now)

    # inside

    def _give(self, session: Session, data: bytes, header: Header, path: Path, now: float) -> None:
        """To the session that it is for, and that it is counted with."""
        self._ike.counted("received", data)
        session.receive(data, header, path, now)

    def _session(self, header: Header, path: Path, data: bytes) -> Session | None:
        registry = self._ike.registry
        found = None
        if header.spi_r != NO_SPI:
            # Which of the two SPIs is ours depends on who began; both are random, so trying both is as good.
            found = registry.by_spi.get(header.spi_r) or registry.by_spi.get(header.spi_i)
        else:
            found = registry.by_spi.get(header.spi_i) or registry.first(path, _mark(header, data))
        return found if found is not None and found.version == header.major else None

    def _begin_v1(self, data: bytes, header: Header, path: Path, now: float) -> Session | None:
        """A new session for a message, where one is due."""
        ike = self._ike
        opens = header.exchange in (ExchangeType.MAIN_MODE, ExchangeType.AGGRESSIVE_MODE)
        if header.spi_r != NO_SPI or not opens:
            ike.count("unknown SPI")
            if not opens:
                # Said, and not answered (settled M-13).
                ike.log("ikev1-invalid-xchange-type", {"value": header.exchange}, None, path, now)
            return None
        group = ike.group(path.context, path.local, path.remote, 1)
        if group is None or not any(member.wanted and member.responds for member in group.members):
            self._nobody(path, 1, now)
            if group is None:
                self._refuse_v1(header, NotifyTypeV1.NO_PROPOSAL_CHOSEN, path, data, now)
            return None
        settings = ike.settings
        crowded = ike.registry.half_open >= settings.half_open
        share = settings.half_open_peer if crowded else settings.half_open_most
        if not self._room(path, share, now, costly=header.exchange == ExchangeType.AGGRESSIVE_MODE):
            return None
        session = SessionV1.respond(ike, path, header)
        ike.registry.answer(session, path, _mark(header, data), now)
        return session

    def _begin_v2(self, data: bytes, header: Header, path: Path, now: float) -> Session | None:
        """As for version 1."""
        ike = self._ike
        if header.is_response:
            ike.count("unknown SPI")
            return None
        if header.exchange != ExchangeType.IKE_SA_INIT or header.spi_r != NO_SPI or header.message_id:
            ike.count("unknown SPI")
            self._refuse_v2(header, NotifyTypeV2.INVALID_IKE_SPI, b"", data, path, now)
            return None
        group = ike.group(path.context, path.local, path.remote, 2)
        if group is None or not any(member.wanted and member.responds for member in group.members):
            self._nobody(path, 2, now)
            if group is None:
                self._refuse_v2(header, NotifyTypeV2.NO_PROPOSAL_CHOSEN, b"", data, path, now)
            return None
        registry, settings = ike.registry, ike.settings
        asked = registry.half_open >= settings.half_open
        asked = asked or registry.half_open_from(path.remote) >= settings.half_open_peer
        if asked and not self._cookie(data, path, now):
            return None
        if not self._room(path, 2 * settings.half_open_peer, now):
            return None
        session = SessionV2.respond(ike, path, header)
        session.receives = asked
        ike.registry.answer(session, path, _mark(header, data), now)
        return session

    def _cookie(self, data: bytes, path: Path, now: float) -> bool:
        """Whether the peer has shown that it is where it says; if not, it is asked to."""
        ike = self._ike
        try:
            message = MessageV2.parse(data)
        except PayloadError as error:
            self._wrong(error, None, None, path, data, now)
            return False
        if self._jar is None:
            self._jar = Jar(self._random, now)
        if self._jar.valid(message, path, now):
            return True
        demand = self._jar.demand(message, path, now)
        if demand is not None:
            ike.count("cookies requested")
            ike.send(path, demand)
        return False

    def _room(self, path: Path, share: int, now: float, *, costly: bool = False) -> bool:
        """Whether one more may be held, for an address that may have `share`; one that proved nothing goes for it.

        Of the `costly` ones whichever comes first after a moment drawn at random gets the place: in step with a
        flood the same one would always come too late.
        """
        ike = self._ike
        if ike.registry.half_open_from(path.remote) >= share:
            oldest = ike.registry.unproved(path.remote)
        elif ike.registry.half_open >= ike.settings.half_open_most:
            oldest = ike.registry.unproved()
        else:
            return True
        if oldest is None or (costly and now < self._next_eviction):
            ike.count("half-open limit reached")
            return False
        if costly:
            self._next_eviction = now + 2.0 * self._random(1)[0] / 255 / EVICTIONS
        ike.count("half-open evicted")
        ike.run(oldest, lambda: oldest.close("crowded out by newer negotiations", now, tell=False))
        return True

    def _nobody(self, path: Path, version: int, now: float) -> None:
        ike = self._ike
        ike.count("no matching connection")
        peer, local = format_address(path.remote), format_address(path.local)
        other = ike.group(path.context, path.local, path.remote, 3 - version)
        group = ike.group(path.context, path.local, path.remote, version)
        if group is not None:
            kind = "no responder"
            text = f"{peer} begins IKEv{version}, but this end only initiates"
        elif other is not None:
            kind = "other version"
            text = f"{peer} begins IKEv{version}, but IKEv{3 - version} is configured for it"
        else:
            kind = "no tunnel"
            text = f"{peer} begins IKEv{version}, but no tunnel is configured between {local} and it"
        ike.say(kind, "warning", text, None, path, now)

    def _wrong(
        self,
        error: PayloadError,
        header: Header | None,
        session: Session | None,
        path: Path,
        data: bytes,
        now: float,
    ) -> None:
        """A header that no message may have."""
        ike = self._ike
        ike.count("messages malformed")
        if error.log and error.log in TEMPLATES:
            ike.log(error.log, error.values, session, path, now)
        if header is None or not error.notify:
            return
        if header.like_version_1:
            self._refuse_v1(header, error.notify, path, data, now)
        elif header.major > 2 or error.notify != NotifyTypeV2.INVALID_SYNTAX:
            self._refuse_v2(header, error.notify, b"", data, path, now)

    def _refuse_v1(self, header: Header, notify: int, path: Path, data: bytes, now: float) -> None:
        message = refusals.answer_v1(header, notify, self._ike.random(4), len(data))
        if message is None or not self._answers.consume(now):
            return
        row = _SENDING_V1.get(notify)
        if row is not None:
            self._ike.log(row, {"notify": NotifyTypeV1(notify).name}, None, path, now)
        self._ike.send(path, message)

    def _refuse_v2(self, header: Header, notify: int, body: bytes, data: bytes, path: Path, now: float) -> None:
        message = refusals.answer_v2(header, notify, body, len(data))
        if message is not None and self._answers.consume(now):
            self._ike.send(path, message)
