"""IKE_SA_INIT, both roles: algorithms, keys, cookies, NAT detection (RFC 7296 1.2, 2.6, 2.7, 2.14, 2.23)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from chassis.ase.ike.crypto.diffie_hellman import GROUPS, KeyPair
from chassis.ase.ike.crypto.ikev2 import skeyseed
from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2
from chassis.ase.ike.payloads.v2_payloads import KeV2, NonceV2, NotifyV2
from chassis.ase.ike.proposals import ChoiceV2, choose_v2, offer_v2
from chassis.ase.ike.v2 import auth, nat
from chassis.ase.ike.v2.exchange import Task
from chassis.ase.ike.v2.ike_auth import IkeAuthTask
from chassis.ase.ike.v2.ike_sa import IkeSaEvent, IkeSaState
from chassis.ase.ike.v2.keyring import IkeSaKeymat
from chassis.ase.ike.v2.refused import Refused, name, no_proposal, refusal, syntax
from chassis.ase.ike.v2.rekey import NONCE_OCTETS, parts, shared_secret

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2

MAX_INIT_REQUESTS = 5
"""Requests of one attempt: with a cookie, with another group, with a new cookie, and one to spare."""

_NO_SPI = bytes(8)


class IkeSaInitTask(Task):
    """The initiator's first request, made again with what the responder asks for."""

    exchange: ClassVar[int] = ExchangeType.IKE_SA_INIT
    bound: ClassVar[bool] = True

    def __init__(self) -> None:
        self._nonce = b""
        self._pair: KeyPair | None = None
        self._cookie = b""
        self._group = 0
        self._rounds = 0

    def begin(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        connection = session.connection
        assert connection is not None
        random = session.host.random
        self._rounds += 1
        group = GROUPS[self._group or connection.proposals[0].dh_group]
        if self._pair is None or self._pair.group != group.number:
            self._pair = group.private(random(group.random_octets))
        self._nonce = self._nonce or random(NONCE_OCTETS)
        cookie = (NotifyV2(NotifyTypeV2.COOKIE, self._cookie),) if self._cookie else ()
        return (
            *cookie,
            offer_v2(connection.proposals),
            KeV2(group.number, self._pair.public),
            NonceV2(self._nonce),
            *nat.nat_notifications(session.spi, _NO_SPI, session.path),
            NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
            auth.hash_notify(),
        )

    def heard(self, session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
        """The responder's answer, in clear: nothing in it is proven before IKE_AUTH."""
        if self._asked_again(session, message.payloads, now):
            return
        try:
            error = refusal(message.payloads)
            if error is not None:
                raise Refused(error.notify, f"the peer refuses the IKE SA: {name(error.notify)}", error.data)
            session.examine(message.payloads, now)
            self._agree(session, message, data, path, now)
        except PayloadError as wrong:
            session.note(wrong, now)  # Perhaps not the peer's: its own answer may still come.
        except Refused as refused:
            session.fail(refused, now)

    def _asked_again(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> bool:
        """Whether the responder wants the same request with a cookie, or with another group."""
        connection = session.connection
        assert connection is not None
        for one in payloads:
            if not isinstance(one, NotifyV2) or self._rounds >= MAX_INIT_REQUESTS:
                continue
            if one.notify == NotifyTypeV2.COOKIE and 0 < len(one.data) <= 64:
                self._cookie = one.data
            elif one.notify == NotifyTypeV2.INVALID_KE_PAYLOAD and len(one.data) == 2:
                group = int.from_bytes(one.data, "big")
                offered = self._pair is not None and group != self._pair.group
                if not offered or not any(own.dh_group == group for own in connection.proposals):
                    continue
                self._group = group
            else:
                continue
            session.host.count(f"asked again {name(one.notify)}")
            session.take(IkeSaEvent.AGAIN)
            session.exchanges.complete()
            session.exchanges.next_id = 0
            session.exchanges.put(self)
            session.pump(now)
            return True
        return False

    def _agree(self, session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
        connection = session.connection
        assert connection is not None
        assert self._pair is not None
        header, payloads = message.header, message.payloads
        if header.spi_r == _NO_SPI:
            raise syntax("the responder has no SPI")
        sa, nonce, ke = parts(payloads)
        choice = choose_v2(sa, connection.proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal(choice, "IKE")
        if not choice.group == ke.group == self._pair.group:
            raise syntax("the responder answered with another group")
        shared = shared_secret(self._pair, ke)
        session.exchanges.complete()
        session.peer_spi = header.spi_r
        session.first_received = data
        session.nonces = (self._nonce, nonce.value)
        seed = skeyseed(choice.prf, self._nonce, nonce.value, shared)
        session.keyring = IkeSaKeymat.make(
            choice, seed, self._nonce, nonce.value, session.spi, header.spi_r, initiator=True
        )
        store_peer_capabilities(session, payloads, path)
        if session.nat.found:
            session.path = session.path.floated()
        session.take(IkeSaEvent.KEYED)
        session.exchanges.put(IkeAuthTask())
        session.pump(now)


def store_peer_capabilities(session: SessionV2, payloads: tuple[PayloadV2, ...], path: Path) -> None:
    """What the peer's first message says of itself and of the way between us."""
    spi_r = session.spi_r if session.initiator else _NO_SPI
    session.nat = nat.detect_nat(payloads, session.spi_i, spi_r, path)
    session.fragmenting = any(
        isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.FRAGMENTATION_SUPPORTED for one in payloads
    )
    session.hashes = auth.peer_hashes(payloads)


def respond_to_init(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    """The responder's end. What cannot be answered with keys ends the attempt at once: nothing is kept of it."""
    if session.sa.state is not IkeSaState.NEW:
        session.host.count("dropped")
        return
    session.path = path
    try:
        _agree(session, message, data, path, now)
    except PayloadError as error:
        session.note(error, now)
        _refuse(session, error, now)
    except Refused as refused:
        session.reply((refused.payload,), now)
        if refused.notify == NotifyTypeV2.INVALID_KE_PAYLOAD:
            session.host.count("other group asked for")
            session.end(refused.text, now)
        else:
            session.fail(refused, now)


def unreadable(session: SessionV2, error: PayloadError, path: Path, now: float) -> None:
    """The responder's end of a first message that is none: the peer is told, and nothing is kept."""
    session.path = path
    _refuse(session, error, now)


def _refuse(session: SessionV2, error: PayloadError, now: float) -> None:
    session.reply((NotifyV2(error.notify or NotifyTypeV2.INVALID_SYNTAX, error.data),), now)
    session.fail(syntax(str(error)), now)


def _agree(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    session.examine(message.payloads, now)
    host = session.host
    group = host.group(path.context, path.local, path.remote, 2)
    if group is None:
        raise Refused(NotifyTypeV2.NO_PROPOSAL_CHOSEN, "no tunnel is configured with this peer")
    sa, nonce, ke = parts(message.payloads)
    choice = choose_v2(sa, group.proposals)
    if not isinstance(choice, ChoiceV2):
        raise no_proposal(choice, "IKE")
    if ke.group != choice.group:
        text = f"group {ke.group} for group {choice.group}"
        raise Refused(NotifyTypeV2.INVALID_KE_PAYLOAD, text, choice.group.to_bytes(2, "big"))
    dh = GROUPS[choice.group]
    pair = dh.private(host.random(dh.random_octets))
    shared = shared_secret(pair, ke)
    ours = host.random(NONCE_OCTETS)
    session.first_received = data
    session.nonces = (nonce.value, ours)
    store_peer_capabilities(session, message.payloads, path)
    asked = next((auth.cert_requests(one) for one in group.members if auth.cert_requests(one)), ())
    session.take(IkeSaEvent.ANSWERED)
    session.reply(
        (
            choice.answer,
            KeV2(choice.group, pair.public),
            NonceV2(ours),
            *nat.nat_notifications(session.spi_i, session.spi_r, path),
            *asked,
            NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
            auth.hash_notify(),
        ),
        now,
    )
    seed = skeyseed(choice.prf, nonce.value, ours, shared)
    session.keyring = IkeSaKeymat.make(
        choice, seed, nonce.value, ours, session.spi_i, session.spi_r, initiator=False
    )
