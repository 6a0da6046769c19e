"""What comes in for an IKE SA: opened, put together, held against the message IDs, and handed on.

RFC 7296 2.1 to 2.3, 2.5, 2.21; RFC 7383.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chassis.ase.ike.crypto.ikev2 import IntegrityError
from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2, parse_payloads
from chassis.ase.ike.payloads.v2_payloads import Encrypted, EncryptedFragment, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.v2 import ike_auth, informational, negotiate, rekey, sa_init
from chassis.ase.ike.v2.children import moved
from chassis.ase.ike.v2.ike_sa import HALF_OPEN_STATES, IkeSaState
from chassis.ase.ike.v2.refused import Refused

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


@dataclass(slots=True)
class CurrentRequest:
    """The request that is being handled: where it came from, its exchange, its octets if it came in clear."""

    path: Path
    exchange: int = ExchangeType.INFORMATIONAL
    clear: bytes = field(default=b"", repr=False)


def receive(session: SessionV2, data: bytes, path: Path, now: float) -> None:
    """One message whose SPI is ours."""
    try:
        message = MessageV2.parse(data)
    except PayloadError as error:
        session.host.count("malformed")
        session.note(error, now)
        if session.sa.state is IkeSaState.NEW:
            session.handling = CurrentRequest(path, ExchangeType.IKE_SA_INIT, data)
            sa_init.unreadable(session, error, path, now)
        return
    header = message.header
    if header.exchange == ExchangeType.IKE_SA_INIT:
        _first(session, message, data, path, now)
    elif (
        session.keyring is None
        or (header.spi_i, header.spi_r) != (session.spi_i, session.spi_r)
        or header.from_initiator == session.initiator
    ):
        session.host.count("dropped")
    elif header.is_response and all(isinstance(one, NotifyV2) for one in message.payloads):
        _hint(session, now)
    elif header.is_response:
        _response(session, message, data, path, now)
    else:
        _incoming(session, message, data, path, now)


def _hint(session: SessionV2, now: float) -> None:
    """An error in clear proves nothing (RFC 7296 2.21.4), but a peer that is watched is asked sooner for it."""
    session.host.count("hints")
    interval = session.host.settings.dpd_interval
    if now - session.hinted >= interval:
        session.hinted = now
        session.heard = min(session.heard, now - interval)


def _first(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    """A message of IKE_SA_INIT, in clear: it has no say once there are keys."""
    header, outstanding = message.header, session.exchanges.outstanding
    if header.is_response:
        ours = header.spi_i == session.spi and session.initiator and header.message_id == 0
        task = None if outstanding is None else outstanding.task
        if ours and isinstance(task, sa_init.IkeSaInitTask):
            task.heard(session, message, data, path, now)
        else:
            session.host.count("dropped")
        return
    if session.initiator or header.message_id or not header.from_initiator or header.spi_i != session.peer_spi:
        session.host.count("dropped")
        return
    if _repeated(session, message, data, path, now):
        return
    if session.sa.state is not IkeSaState.NEW:
        session.host.count("dropped")
        return
    session.born = now
    session.deadline = now + session.host.settings.give_up
    session.host.count("answered")
    session.handling = CurrentRequest(path, header.exchange, data)
    sa_init.respond_to_init(session, message, data, path, now)


def _repeated(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> bool:
    """Whether this request was answered before; one that comes again is answered again."""
    last = session.exchanges.last
    if last is None or message.header.message_id != last.message_id:
        return False
    if data == last.clear or (not last.clear and _comes_again(session, message, data)):
        session.host.count("answered again")
        session.transmit(last.datagrams, path, now)
    else:
        session.host.count("dropped")
    return True


def _comes_again(session: SessionV2, message: MessageV2, data: bytes) -> bool:
    """Whether this is the peer's, with a message ID that was answered: whole, or the first fragment of any cut.

    It may be cut in another way than what was answered; the other fragments are passed over (RFC 7383 2.6.1).
    """
    payload = message.payloads[-1] if message.payloads else None
    if isinstance(payload, EncryptedFragment):
        if payload.number != 1 or not session.fragmenting:
            return False
    elif not isinstance(payload, Encrypted):
        return False
    try:
        session.ring.receiving.unseal(data, payload)
    except IntegrityError:
        session.host.count("integrity")
        return False
    except PayloadError:
        pass  # Authentic, and answered as what it is.
    return True


def _open(session: SessionV2, message: MessageV2, data: bytes) -> tuple[int, bytes] | None:
    """(first type, plaintext) of a message that is whole now. IntegrityError, and PayloadError for an authentic
    one that is wrong inside."""
    header = message.header
    payload = message.payloads[-1] if message.payloads else None
    if isinstance(payload, Encrypted):
        return payload.first, session.ring.receiving.unseal(data, payload)
    if not isinstance(payload, EncryptedFragment) or not session.fragmenting:
        raise IntegrityError("payload", "missing")
    assembly = session.assemblies[header.is_response]
    if not assembly.wants(header.message_id, payload):
        return None
    return assembly.add(header.message_id, payload, session.ring.receiving.unseal(data, payload))


def _read(
    session: SessionV2, message: MessageV2, data: bytes, now: float
) -> tuple[PayloadV2, ...] | PayloadError | None:
    """The payloads of an authentic message, what is wrong with them, or None for what is not to be heeded."""
    try:
        opened = _open(session, message, data)
        if opened is None:
            return None
        payloads = parse_payloads(opened[0], memoryview(opened[1]), inside=True)
        session.examine(payloads, now)
    except IntegrityError:
        session.host.count("integrity")
        return None
    except PayloadError as error:
        session.host.count("malformed")
        session.heard = now
        session.note(error, now)
        return error
    session.heard = now
    return payloads


def _response(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    header, outstanding = message.header, session.exchanges.outstanding
    if (
        outstanding is None
        or header.message_id != outstanding.message_id
        or header.exchange != outstanding.task.exchange
    ):
        session.host.count("dropped")
        return
    payloads = _read(session, message, data, now)
    if payloads is None:
        return
    _follow(session, path, half_open=False)
    task = session.exchanges.complete()
    if isinstance(payloads, PayloadError):
        task.unreadable(session, str(payloads), now)
    else:
        task.answered(session, payloads, now)


def _incoming(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    """A request of the peer, protected."""
    header = message.header
    if _repeated(session, message, data, path, now):
        return
    half_open = session.sa.state is IkeSaState.INIT_ANSWERED
    early = session.sa.state in HALF_OPEN_STATES and not half_open
    if (
        header.message_id != session.exchanges.expected
        or early
        or (half_open and header.exchange != ExchangeType.IKE_AUTH)
    ):
        session.host.count("dropped")
        return
    payloads = _read(session, message, data, now)
    if payloads is None:
        return
    session.handling = CurrentRequest(path, header.exchange)
    _follow(session, path, half_open=half_open)
    if isinstance(payloads, PayloadError):
        session.reply((NotifyV2(payloads.notify or NotifyTypeV2.INVALID_SYNTAX, payloads.data),), now)
        if half_open:
            session.failed(Refused(payloads.notify or NotifyTypeV2.INVALID_SYNTAX, str(payloads)), now)
            session.end(str(payloads), now)
    elif header.exchange == ExchangeType.IKE_AUTH and half_open:
        ike_auth.respond(session, payloads, now)
    elif header.exchange == ExchangeType.INFORMATIONAL:
        informational.handle(session, payloads, now)
    elif header.exchange == ExchangeType.CREATE_CHILD_SA:
        sa = next((one for one in payloads if isinstance(one, SaV2)), None)
        if sa is not None and sa.proposals[0].protocol == Protocol.IKE:
            rekey.respond(session, payloads, now)
        else:
            negotiate.respond(session, payloads, now)
    else:
        session.reply((NotifyV2(NotifyTypeV2.INVALID_SYNTAX),), now)


def _follow(session: SessionV2, path: Path, *, half_open: bool) -> None:
    """The peer may float to port 4500 with IKE_AUTH. Behind a NAT it may be moved at any time, and what it just
    made shows where it is (RFC 7296 2.23)."""
    if path == session.path or not (half_open or (session.nat.there and not session.nat.here)):
        return
    session.path = path
    moved(session)
