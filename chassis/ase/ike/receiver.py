"""Receives IKE datagrams: finds their session, starts a responder, or answers an error in clear.

Peers that are not authenticated cost no state beyond the half-open negotiations that the settings allow. Above
`cookie_threshold` of them, or above `half_open_limit_per_peer` of one address, an IKEv2 peer must first return a
cookie (RFC 7296 2.6). IKEv1 has no such cookie: a new negotiation replaces the oldest one whose peer has not shown
that it receives. Aggressive mode may do that only at a bounded rate, half of which is for messages that were
refused before: peers retransmit, and who forges one message after the other does not.

    cookie = version of the secret (1 octet) | HMAC-SHA-256(secret, Ni | address | port | SPIi) cut to 16 octets

Errors in clear (RFC 2408 5.1 to 5.15; RFC 7296 2.21.4) are not authenticated. None is longer than its request,
and one rate limit holds for all of them, so that a forged source is not flooded.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from math import inf
from typing import Final

from chassis.ase.ike.connections import ConnectionGroup
from chassis.ase.ike.host import IkeHost, NetworkPath, Session
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike.log import TEMPLATES
from chassis.ase.ike.payloads import v1, v2_payloads
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import INITIATOR, RESPONSE, VERSION_1, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, NotifyTypeV2, Protocol
from chassis.ase.ike.payloads.v1 import MessageV1
from chassis.ase.ike.payloads.v2 import MessageV2, without_cookie
from chassis.ase.ike.payloads.v2_payloads import NonceV2, NotifyV2
from chassis.ase.ike.unknown_spi import read_invalid_spi
from chassis.ase.ike_messages import IkePacket
from chassis.net.address import format_address
from chassis.net.rate import TokenBucket

COOKIE_SECRET_INTERVAL = 60.0
"""Lifetime (s) of a cookie secret. Cookies of the secret before it are accepted as long again."""

_SECRET = 32
"""Octets of a secret."""
_MAC = 16
"""Octets of a cookie's HMAC."""


class CookieSecrets:
    """The cookie secret of an ASP and the one before it. No state is kept for a peer."""

    def __init__(self, random: Callable[[int], bytes], now: float) -> None:
        """`random(n)` returns n unpredictable octets."""
        self._random = random
        self._version = 0
        self._secret = random(_SECRET)
        self._before = b""
        self._since = now

    def make_cookie_notify(self, message: MessageV2, path: NetworkPath, now: float) -> bytes | None:
        """Return the response that requests a cookie (RFC 7296 2.6); None if the request has no nonce.

        It is shorter than any request that can be answered, so it does not amplify.
        """
        self._rotate(now)
        spi_i, nonce = message.header.spi_i, _nonce(message)
        if not nonce:
            return None
        cookie = self._cookie(self._version, self._secret, spi_i, nonce, path)
        header = Header(spi_i, bytes(8), 0, VERSION_2, ExchangeType.IKE_SA_INIT, RESPONSE, 0, 0)
        return MessageV2(header, (NotifyV2(NotifyTypeV2.COOKIE, cookie),)).emit()

    def valid(self, message: MessageV2, path: NetworkPath, now: float) -> bool:
        """Return whether the request has a cookie of ours for its nonce, SPI and address that has not expired."""
        self._rotate(now)
        said = (
            one.data for one in message.payloads if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.COOKIE
        )
        cookie, nonce = next(said, b""), _nonce(message)
        if len(cookie) != 1 + _MAC or not nonce:
            return False
        if cookie[0] == self._version:
            secret = self._secret
        elif cookie[0] == (self._version - 1) & 0xFF:
            secret = self._before
        else:
            return False
        if not secret:
            return False
        own = self._cookie(cookie[0], secret, message.header.spi_i, nonce, path)
        return hmac.compare_digest(own, cookie)

    def _rotate(self, now: float) -> None:
        age = now - self._since
        if age < COOKIE_SECRET_INTERVAL:
            return
        self._before = self._secret if age < 2 * COOKIE_SECRET_INTERVAL else b""
        self._secret = self._random(_SECRET)
        self._version = (self._version + 1) & 0xFF
        self._since = now

    @staticmethod
    def _cookie(version: int, secret: bytes, spi_i: bytes, nonce: bytes, path: NetworkPath) -> bytes:
        place = path.remote.to_bytes(4, "big") + path.remote_port.to_bytes(2, "big")
        return bytes((version,)) + hmac.digest(secret, nonce + place + spi_i, "sha256")[:_MAC]


def _nonce(message: MessageV2) -> bytes:
    return next((one.value for one in message.payloads if isinstance(one, NonceV2)), b"")


ERROR_RATE = 50.0
"""Errors in clear (1/s)."""
ERROR_BURST = 100
"""Errors in clear at once (count)."""


def error_message_v1(header: Header, notify: int, message_id: bytes, size: int) -> bytes | None:
    """Return an Informational message in clear (RFC 2408 5.1 to 5.15); `message_id` is four random octets.

    `size` is that of the received message (octets). Return None if the error would be longer, or if the received
    message is an Informational one, which is never answered.
    """
    if header.exchange == ExchangeType.INFORMATIONAL_V1:
        return None
    head = Header(
        header.spi_i,
        header.spi_r,
        0,
        VERSION_1,
        ExchangeType.INFORMATIONAL_V1,
        0,
        int.from_bytes(message_id, "big") or 1,
        0,
    )
    spi = header.spi_i + header.spi_r
    message = MessageV1(head, (v1.NotifyV1(notify, Protocol.IKE, spi),)).emit()
    return message if len(message) <= size else None


def error_message_v2(header: Header, notify: int, data: bytes, size: int) -> bytes | None:
    """Return the response in clear to a request (RFC 7296 2.21.4, 2.5).

    `size` is that of the request (octets). Return None if the error would be longer, or to answer a response.
    """
    if header.is_response:
        return None
    flags = RESPONSE | (INITIATOR if not header.from_initiator else 0)
    exchange = header.exchange if header.exchange >= ExchangeType.IKE_SA_INIT else ExchangeType.INFORMATIONAL
    head = Header(header.spi_i, header.spi_r, 0, VERSION_2, exchange, flags, header.message_id, 0)
    message = MessageV2(head, (v2_payloads.NotifyV2(notify, data),)).emit()
    return message if len(message) <= size else None


Respond = Callable[[IkeHost, NetworkPath, Header], Session]
"""Makes the responder's session for the first message of a peer."""

OnInvalidSpi = Callable[[NetworkPath, int, bytes, float], None]
"""Takes the path and the version of IKE of a message that says that nobody has this SPI."""

NO_SPI: Final = bytes(8)
"""The responder's SPI in the first message (RFC 7296 3.1)."""

MAX_EVICTIONS_PER_SECOND: Final = 50.0
"""Mean rate (1/s) at which aggressive mode negotiations replace older half-open ones: those whose first message is
new, and as many whose first message was refused before. Each costs a Diffie-Hellman value before its sender is
authenticated, so a flood of them must leave time for other negotiations."""

EVICTION_CREDIT: Final = 1.0
"""Time (s) for which messages that come again save up what they do not use of their rate."""

MAX_REFUSED: Final = 8192
"""First messages of aggressive mode that were refused and are known if they come again (count)."""

REFUSED_TIME: Final = 30.0
"""Time (s) for which a refused first message is known."""


class RefusedMessages:
    """First messages that found no room, by a hash of their path and mark."""

    def __init__(self) -> None:
        self._since: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def remember(self, path: NetworkPath, mark: bytes, now: float) -> None:
        """Keep a message; of too many the oldest is forgotten."""
        self._since.setdefault(_digest(path, mark), now)
        if len(self._since) > MAX_REFUSED:
            self._since.popitem(last=False)

    def comes_again(self, path: NetworkPath, mark: bytes, now: float) -> bool:
        """Return whether this message was refused not long ago."""
        while self._since and next(iter(self._since.values())) <= now - REFUSED_TIME:
            self._since.popitem(last=False)
        return _digest(path, mark) in self._since

    def forget(self, path: NetworkPath, mark: bytes) -> None:
        """The message has found room."""
        self._since.pop(_digest(path, mark), None)


def _digest(path: NetworkPath, mark: bytes) -> bytes:
    place = f"{path.context} {path.local} {path.remote} {path.remote_port} ".encode()
    return blake2b(place + mark, digest_size=12).digest()


_NOTIFY_LOG_IDS_V1: Final[dict[int, str]] = {
    NotifyTypeV1.INVALID_MAJOR_VERSION: "ikev1-notify-invalid-major-version",
    NotifyTypeV1.INVALID_MINOR_VERSION: "ikev1-notify-invalid-minor-version",
    NotifyTypeV1.INVALID_FLAGS: "ikev1-notify-invalid-flags",
    NotifyTypeV1.INVALID_MESSAGE_ID: "ikev1-notify-invalid-message-id",
    NotifyTypeV1.INVALID_PAYLOAD_TYPE: "ikev1-notify-invalid-payload-type",
}
"""Id of the log text about a notification that is sent in clear, by its type."""


def _init_mark(header: Header, data: bytes) -> bytes:
    """Return the octets by which a retransmitted first message is recognised.

    IKEv2: a hash of the message, because another peer's message may have the same SPI (RFC 7296 2.1); without the
    cookie, because the request with it is the same one (`without_cookie`). IKEv1: the initiator's cookie, because
    notifications may follow that have only this cookie.
    """
    return header.spi_i if header.major == 1 else blake2b(without_cookie(data), digest_size=16).digest()


class IkeReceiver:
    """Handles received datagrams."""

    def __init__(
        self,
        manager: IkeSaManager,
        respond: Mapping[int, Respond],
        random: Callable[[int], bytes],
        on_invalid_spi: OnInvalidSpi,
    ) -> None:
        """`respond` makes a responder's session, by IKE version. `random(n)` returns n unpredictable octets.
        `on_invalid_spi` takes what a peer says of an SPI of ours, in clear."""
        self._on_invalid_spi = on_invalid_spi
        self._manager = manager
        self._respond = respond
        self._random = random
        self._cookie_secrets: CookieSecrets | None = None
        self._error_budget = TokenBucket(ERROR_RATE, ERROR_BURST)
        self._next_eviction = -inf
        self._next_returning_eviction = -inf
        self._refused = RefusedMessages()

    def receive(self, packet: IkePacket, now: float) -> None:
        """Handle one datagram. Log, count and, within the rate limit, answer errors in it; raise none."""
        manager = self._manager
        path = NetworkPath(packet.context, packet.local, packet.local_port, packet.remote, packet.remote_port)
        data = packet.data
        try:
            header = Header.parse(data)
        except PayloadError as error:
            manager.count_message("received", data)
            self._malformed(error, None, None, path, data, now)
            return
        session = self._find_session(header, path, data)
        try:
            header.check(known=session is not None)
        except PayloadError as error:
            manager.count_message("received", data)
            self._malformed(error, header, session, path, data, now)
            return
        if session is None:
            respond = self._respond_v1 if header.major == 1 else self._respond_v2
            session = respond(data, header, path, now)
        if session is None:
            manager.count_message("received", data)
        else:
            manager.run(session, self._deliver, session, data, header, path, now)

    # inside

    def _deliver(self, session: Session, data: bytes, header: Header, path: NetworkPath, now: float) -> None:
        """Pass a message to its session and count it there."""
        self._manager.count_message("received", data)
        session.receive(data, header, path, now)

    def _find_session(self, header: Header, path: NetworkPath, data: bytes) -> Session | None:
        table = self._manager.table
        found = None
        if header.spi_r != NO_SPI:
            # Either SPI may be ours, depending on which end initiated. Both are random, so look up both.
            found = table.by_spi.get(header.spi_r) or table.by_spi.get(header.spi_i)
        else:
            found = table.by_spi.get(header.spi_i) or table.by_init_message(path, _init_mark(header, data))
        return found if found is not None and found.version == header.major else None

    def _respond_v1(self, data: bytes, header: Header, path: NetworkPath, now: float) -> Session | None:
        """Return a new responder's session; None if the message does not start one or is refused."""
        manager = self._manager
        if self._takes_invalid_spi(data, header, path, now):
            return None
        opens = header.exchange in (ExchangeType.MAIN_MODE, ExchangeType.AGGRESSIVE_MODE)
        if header.spi_r != NO_SPI or not opens:
            manager.count("unknown SPI")
            if not opens:
                # Logged, but not answered (docs/decisions.md, M-13).
                manager.log("ikev1-invalid-xchange-type", {"value": header.exchange}, None, path, now)
            return None
        group = manager.group(path.context, path.local, path.remote, 1)
        if not self._answers(group, path, 1):
            self._log_no_connection(path, 1, now)
            if group is None:
                self._send_error_v1(header, NotifyTypeV1.NO_PROPOSAL_CHOSEN, path, data, now)
            return None
        settings = manager.settings
        crowded = manager.table.half_open >= settings.cookie_threshold
        share = settings.half_open_limit_per_peer if crowded else settings.half_open_limit
        mark = _init_mark(header, data)
        costly = header.exchange == ExchangeType.AGGRESSIVE_MODE
        if not self._make_room(path, share, now, mark if costly else b""):
            return None
        session = self._respond[1](manager, path, header)
        manager.table.add_responder(session, path, mark, now)
        return session

    def _respond_v2(self, data: bytes, header: Header, path: NetworkPath, now: float) -> Session | None:
        """As `_respond_v1`, for IKEv2."""
        manager = self._manager
        if self._takes_invalid_spi(data, header, path, now):
            return None
        if header.is_response:
            manager.count("unknown SPI")
            return None
        if header.exchange != ExchangeType.IKE_SA_INIT or header.spi_r != NO_SPI or header.message_id:
            manager.count("unknown SPI")
            self._send_error_v2(header, NotifyTypeV2.INVALID_IKE_SPI, b"", data, path, now)
            return None
        group = manager.group(path.context, path.local, path.remote, 2)
        if not self._answers(group, path, 2):
            self._log_no_connection(path, 2, now)
            if group is None:
                self._send_error_v2(header, NotifyTypeV2.NO_PROPOSAL_CHOSEN, b"", data, path, now)
            return None
        table, settings = manager.table, manager.settings
        asked = table.half_open >= settings.cookie_threshold
        asked = asked or table.half_open_from(path.remote) >= settings.half_open_limit_per_peer
        if asked and not self._has_cookie(data, path, now):
            return None
        if not self._make_room(path, 2 * settings.half_open_limit_per_peer, now):
            return None
        session = self._respond[2](manager, path, header)
        session.receives = asked
        manager.table.add_responder(session, path, _init_mark(header, data), now)
        return session

    def _takes_invalid_spi(self, data: bytes, header: Header, path: NetworkPath, now: float) -> bool:
        """Return whether a message says that nobody has an SPI of ours; it has no answer (RFC 7296 1.5)."""
        if header.exchange not in (ExchangeType.INFORMATIONAL, ExchangeType.INFORMATIONAL_V1):
            return False
        spi = read_invalid_spi(data, header)
        if not spi:
            return False
        self._manager.count("invalid SPI notified")
        if self._error_budget.consume(now):
            self._on_invalid_spi(path, header.major, spi, now)
        return True

    def _answers(self, group: ConnectionGroup | None, path: NetworkPath, version: int) -> bool:
        """Return whether a tunnel with this peer, or an on-demand tunnel of the local address, responds."""
        if group is not None and any(member.enabled and member.may_respond for member in group.members):
            return True
        return self._manager.on_demand(path.context, path.local, version) is not None

    def _has_cookie(self, data: bytes, path: NetworkPath, now: float) -> bool:
        """Return whether the request has a valid cookie; if not, request one (RFC 7296 2.6)."""
        manager = self._manager
        try:
            message = MessageV2.parse(data)
        except PayloadError as error:
            self._malformed(error, None, None, path, data, now)
            return False
        if self._cookie_secrets is None:
            self._cookie_secrets = CookieSecrets(self._random, now)
        if self._cookie_secrets.valid(message, path, now):
            return True
        demand = self._cookie_secrets.make_cookie_notify(message, path, now)
        if demand is not None:
            manager.count("cookies requested")
            manager.send(path, demand)
        return False

    def _make_room(self, path: NetworkPath, share: int, now: float, costly: bytes = b"") -> bool:
        """Return whether one more half-open negotiation is allowed, `share` (count) of them for one address.

        At a limit close the oldest one whose peer has not shown that it receives. `costly` is the mark of a
        message that may do that only now and then.
        """
        manager = self._manager
        if manager.table.half_open_from(path.remote) >= share:
            oldest = manager.table.oldest_unverified(path.remote)
        elif manager.table.half_open >= manager.settings.half_open_limit:
            oldest = manager.table.oldest_unverified()
        else:
            return True
        if oldest is None or (costly and not self._may_evict(path, costly, now)):
            manager.count("half-open limit reached")
            return False
        manager.count("half-open evicted")
        manager.run(
            oldest,
            lambda: oldest.close("replaced by a newer negotiation: too many are half open", now, tell=False),
        )
        return True

    def _may_evict(self, path: NetworkPath, mark: bytes, now: float) -> bool:
        """Return whether a message of aggressive mode may replace a negotiation now; if not, remember it.

        The times are random: at fixed intervals the same peer could always be too late in a regular flood.
        """
        if self._refused.comes_again(path, mark, now) and now >= self._next_returning_eviction:
            since = max(self._next_returning_eviction, now - EVICTION_CREDIT)
            self._next_returning_eviction = since + self._pause()
        elif now >= self._next_eviction:
            self._next_eviction = now + self._pause()
        else:
            self._refused.remember(path, mark, now)
            return False
        self._refused.forget(path, mark)
        return True

    def _pause(self) -> float:
        """Return a random time (s) between two negotiations that replace others."""
        return 2.0 * self._random(1)[0] / 255 / MAX_EVICTIONS_PER_SECOND

    def _log_no_connection(self, path: NetworkPath, version: int, now: float) -> None:
        manager = self._manager
        manager.count("no matching connection")
        peer, local = format_address(path.remote), format_address(path.local)
        other = manager.group(path.context, path.local, path.remote, 3 - version)
        group = manager.group(path.context, path.local, path.remote, version)
        if group is not None:
            kind = "no responder"
            text = f"{peer} initiates IKEv{version}, but this end is initiator-only"
        elif other is not None:
            kind = "other version"
            text = f"{peer} initiates IKEv{version}, but IKEv{3 - version} is configured for it"
        else:
            kind = "no tunnel"
            text = f"{peer} initiates IKEv{version}, but no tunnel is configured between {local} and {peer}"
        manager.log_own(kind, "warning", text, None, path, now)

    def _malformed(
        self,
        error: PayloadError,
        header: Header | None,
        session: Session | None,
        path: NetworkPath,
        data: bytes,
        now: float,
    ) -> None:
        """Log, count and perhaps answer a message whose header is malformed."""
        manager = self._manager
        manager.count("messages malformed")
        if error.log and error.log in TEMPLATES:
            manager.log(error.log, error.values, session, path, now)
        if header is None or not error.notify:
            return
        if header.resembles_version_1:
            self._send_error_v1(header, error.notify, path, data, now)
        elif header.major > 2 or error.notify != NotifyTypeV2.INVALID_SYNTAX:
            self._send_error_v2(header, error.notify, b"", data, path, now)

    def _send_error_v1(self, header: Header, notify: int, path: NetworkPath, data: bytes, now: float) -> None:
        message = error_message_v1(header, notify, self._manager.random(4), len(data))
        if message is None or not self._error_budget.consume(now):
            return
        row = _NOTIFY_LOG_IDS_V1.get(notify)
        if row is not None:
            self._manager.log(row, {"notify": NotifyTypeV1(notify).name}, None, path, now)
        self._manager.send(path, message)

    def _send_error_v2(
        self, header: Header, notify: int, body: bytes, data: bytes, path: NetworkPath, now: float
    ) -> None:
        message = error_message_v2(header, notify, body, len(data))
        if message is not None and self._error_budget.consume(now):
            self._manager.send(path, message)
