"""Proof of identity in IKE_AUTH: made and judged (RFC 7296 2.15 and 3.8, RFC 7427). Each end goes its own way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.credentials import CertificateError
from chassis.ase.ike.crypto.algorithms import PrfSpec
from chassis.ase.ike.crypto.signatures import (
    SIGNATURE_HASHES,
    digital_auth,
    digital_verify,
    psk_auth,
    psk_verify,
    rsa_auth,
    rsa_verify,
    signed_octets,
)
from chassis.ase.ike.errors import (
    NegotiationError,
    authentication_error_v2,
    error_v2,
    find_error_notify,
    notify_name_v2,
    notify_payload_v2,
    syntax_error_v2,
)
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.numbers import AuthMethod, CertEncoding, ExchangeType, NotifyTypeV2, PayloadTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import Auth, CertReqV2, CertV2, IdV2, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.proposals import ChoiceV2, choose_v2
from chassis.ase.ike.v2.create_child_sa import (
    ChildOffer,
    CreateChildTask,
    NewChild,
    Nonces,
    accept,
    answer,
    choose_entry,
    make_offer,
)
from chassis.ase.ike.v2.ike_sa import IkeSa, IkeSaEvent, IkeSaState, Task
from chassis.ase.ike.v2.informational import DeleteChildSpisTask, DeleteIkeSaTask

MAX_CERTIFICATES = 8
"""Certificates of a peer that are looked at."""

HASH_PREFERENCE = (2, 3, 4, 1)
"""Hashes of RFC 7427 in our order: SHA-256 first, SHA-1 last."""


def hash_notify() -> NotifyV2:
    """SIGNATURE_HASH_ALGORITHMS: what we can verify."""
    return NotifyV2(
        NotifyTypeV2.SIGNATURE_HASH_ALGORITHMS, b"".join(number.to_bytes(2, "big") for number in HASH_PREFERENCE)
    )


def peer_hashes(payloads: Iterable[PayloadV2]) -> tuple[int, ...]:
    """Hashes of the peer's SIGNATURE_HASH_ALGORITHMS that we have too, in our order."""
    for one in payloads:
        if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.SIGNATURE_HASH_ALGORITHMS:
            numbers = {int.from_bytes(one.data[at : at + 2], "big") for at in range(0, len(one.data), 2)}
            return tuple(number for number in HASH_PREFERENCE if number in numbers and number in SIGNATURE_HASHES)
    return ()


def cert_requests(connection: Connection) -> tuple[CertReqV2, ...]:
    """CERTREQ: the authorities that we trust, if any."""
    if connection.credentials is None or not connection.credentials.key_hashes:
        return ()
    return (CertReqV2(CertEncoding.X509_SIGNATURE, b"".join(connection.credentials.key_hashes)),)


def make_auth(
    connection: Connection, prf: PrfSpec, octets: bytes, hashes: tuple[int, ...]
) -> tuple[tuple[CertV2, ...], Auth]:
    """(our certificates, our AUTH payload) over the signed `octets`; NegotiationError without the means."""
    if connection.policy.authentication == "pre-shared-key":
        if connection.psk is None:
            raise authentication_error_v2("the IKE policy has no preshared key")
        return (), Auth(AuthMethod.SHARED_KEY, psk_auth(prf, connection.psk, octets))
    own = None if connection.credentials is None else connection.credentials.select(connection.identity)
    if own is None:
        raise authentication_error_v2(f"no certificate with a key for identity {connection.identity}")
    certificates = tuple(CertV2(CertEncoding.X509_SIGNATURE, der) for der in own.ders)
    for number in hashes:
        try:
            return certificates, Auth(AuthMethod.DIGITAL_SIGNATURE, digital_auth(own.key, octets, number))
        except ValueError:
            continue  # The key is too short for this hash.
    return certificates, Auth(AuthMethod.RSA_SIGNATURE, rsa_auth(own.key, octets))


def verify_auth(
    connection: Connection,
    prf: PrfSpec,
    octets: bytes,
    auth: Auth,
    certificates: Iterable[CertV2],
    identity: Identity,
    wall: float,
) -> None:
    """Judge the peer's AUTH payload over the signed `octets`; NegotiationError says what is wrong.

    Which way the peer goes is its own choice, as long as we have what it takes to verify it (guide chapter 6).
    `wall` is seconds since 1970, for the dates of certificates.
    """
    if auth.method == AuthMethod.SHARED_KEY:
        if connection.psk is None:
            raise authentication_error_v2(
                f"peer {identity} proves itself by preshared key, and the IKE policy has none"
            )
        if not psk_verify(prf, connection.psk, octets, auth.data):
            raise authentication_error_v2(f"the proof of peer {identity} is wrong: the preshared keys differ")
        return
    if auth.method not in (AuthMethod.RSA_SIGNATURE, AuthMethod.DIGITAL_SIGNATURE):
        raise authentication_error_v2(
            f"peer {identity} proves itself by method {auth.method}, which is not supported"
        )
    key = _public_key(connection, certificates, identity, wall)
    check = rsa_verify if auth.method == AuthMethod.RSA_SIGNATURE else digital_verify
    if not check(key, octets, auth.data):
        raise authentication_error_v2(f"the signature of peer {identity} is wrong")


def _public_key(
    connection: Connection, certificates: Iterable[CertV2], identity: Identity, wall: float
) -> rsa.RSAPublicKey:
    if connection.credentials is None:
        raise authentication_error_v2(f"peer {identity} proves itself by certificate, and the context trusts none")
    ders = tuple(one.data for one in certificates if one.encoding == CertEncoding.X509_SIGNATURE)
    if not ders:
        raise authentication_error_v2(f"peer {identity} proves itself by signature, but sent no X.509 certificate")
    if len(ders) > MAX_CERTIFICATES:
        raise authentication_error_v2(
            f"peer {identity} sent {len(ders)} certificates, at most {MAX_CERTIFICATES} are looked at"
        )
    try:
        verified = connection.credentials.verify(ders, wall)
    except CertificateError as error:
        raise authentication_error_v2(f"certificate of peer {identity}: {error}") from error
    if _must_carry_identity(connection) and not any(one.same(connection.expected) for one in verified.identities):
        raise authentication_error_v2(f"the certificate of the peer does not carry identity {connection.expected}")
    return verified.public_key


def _must_carry_identity(connection: Connection) -> bool:
    """Whether a certificate counts only with the identity that the tunnel expects in it.

    Under `rsa-signature` the operator decides (guide 6.4.1). Under `pre-shared-key` a certificate has to be the
    peer's own: else anybody with one of an authority that the context trusts would do without the key.
    """
    policy = connection.policy
    return policy.validate_certificate_identity or policy.authentication == "pre-shared-key"


def _octets(sa: IkeSa, identity: IdV2, *, ours: bool) -> bytes:
    """What one end signs: its own first message, the other end's nonce, its own ID payload."""
    ring = sa.ike_keymat
    by_initiator = ours == sa.initiator
    message = sa.first_message_sent if ours else sa.first_message_received
    nonce = sa.nonces[1] if by_initiator else sa.nonces[0]
    key = ring.keys.pi if by_initiator else ring.keys.pr
    return signed_octets(ring.choice.prf, key, message, nonce, identity.emit())


def _auth_payloads(sa: IkeSa, connection: Connection) -> tuple[PayloadV2, ...]:
    """Our ID, certificates and AUTH payloads; NegotiationError without the means."""
    identity = connection.identity.v2(PayloadTypeV2.ID_I if sa.initiator else PayloadTypeV2.ID_R)
    octets = _octets(sa, identity, ours=True)
    certificates, proof = make_auth(connection, sa.ike_keymat.choice.prf, octets, sa.signature_hashes)
    return (identity, *certificates, proof)


def _authenticate_peer(sa: IkeSa, connection: Connection, identity: IdV2, payloads: tuple[PayloadV2, ...]) -> None:
    """The peer's proof; NegotiationError says what is wrong."""
    proof = next((one for one in payloads if isinstance(one, Auth)), None)
    if proof is None:
        raise authentication_error_v2(f"peer {Identity.received(identity)} wants EAP, which is not supported")
    certificates = [one for one in payloads if isinstance(one, CertV2)]
    octets = _octets(sa, identity, ours=False)
    received, wall = Identity.received(identity), sa.host.wall
    verify_auth(connection, sa.ike_keymat.choice.prf, octets, proof, certificates, received, wall)


def _has_notify(payloads: tuple[PayloadV2, ...], notify: int) -> bool:
    return any(isinstance(one, NotifyV2) and one.notify == notify for one in payloads)


class IkeAuthTask(Task):
    """The initiator's IKE_AUTH request."""

    exchange_type: ClassVar[int] = ExchangeType.IKE_AUTH
    bound_to_ike_sa: ClassVar[bool] = True

    def __init__(self) -> None:
        self._offer: ChildOffer | None = None

    @property
    def seq(self) -> int:
        return 0 if self._offer is None else self._offer.entry.seq

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        connection = sa.connection
        assert connection is not None
        try:
            identity, *proof = _auth_payloads(sa, connection)
            self._offer = offer = _first_offer(sa, connection)
        except NegotiationError as error:
            sa.abort(error, now)
            return None
        certificates, own = tuple(proof[:-1]), proof[-1]
        contact = (NotifyV2(NotifyTypeV2.INITIAL_CONTACT),) if sa.host.first_contact(connection) else ()
        return (
            identity,
            *certificates,
            *contact,
            *cert_requests(connection),
            connection.expected.v2(PayloadTypeV2.ID_R),
            own,
            *offer.notify_payloads(),
            offer.sa_payload(),
            *offer.ts_payloads(),
        )

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        connection = sa.connection
        assert connection is not None
        identity = next(
            (one for one in payloads if isinstance(one, IdV2) and one.type == PayloadTypeV2.ID_R), None
        )
        if sa.state is not IkeSaState.AUTH_SENT:
            # Given up meanwhile. A peer that lets us in is told by the delete that waits for this answer.
            self.cancel(sa)
            if identity is None:
                sa.terminate(sa.delete_reason, now)
            return
        if identity is None:
            error = find_error_notify(payloads)
            text = "sent no identity" if error is None else f"refuses us: {notify_name_v2(error.notify)}"
            notify = NotifyTypeV2.INVALID_SYNTAX if error is None else error.notify
            self._fail(sa, error_v2(notify, f"the peer {text}"), now, tell=error is None)
            return
        received = Identity.received(identity)
        try:
            if not received.same(connection.expected):
                raise authentication_error_v2(
                    f"the peer calls itself {received}, expected is {connection.expected}"
                )
            _authenticate_peer(sa, connection, identity, payloads)
        except NegotiationError as error:
            self._fail(sa, error, now, tell=True)
            return
        sa.peer_identity = received
        _on_authenticated(sa, now, self.seq)
        if not sa.closed:
            self._first_pair(sa, payloads, now)
        sa.first_child_entry = 0
        if _has_notify(payloads, NotifyTypeV2.INITIAL_CONTACT) and not sa.closed:
            sa.host.contacted(sa, now)

    def _first_pair(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        offer = self._offer
        assert offer is not None
        try:
            error = find_error_notify(payloads)
            if error is not None and not any(isinstance(one, SaV2) for one in payloads):
                raise error_v2(
                    error.notify, f"the peer refuses a CHILD SA: {notify_name_v2(error.notify)}", error.data
                )
            made = accept(sa, offer, payloads, Nonces(*sa.nonces), 0, now)
        except NegotiationError as refused:
            if any(isinstance(one, SaV2) for one in payloads):
                sa.enqueue_task(DeleteChildSpisTask(offer.spis))
            self.cancel(sa)
            sa.report_entry_failure(offer.entry, refused, now)
            return
        sa.install_child(made.child, made.install, now)

    def _fail(self, sa: IkeSa, refused: NegotiationError, now: float, *, tell: bool) -> None:
        """No IKE SA. The peer believes in one unless it refused us itself: then it is told."""
        self.cancel(sa)
        sa.report_failure(refused, now)
        if not tell:
            sa.terminate(refused.text, now)
            return
        if sa.state is IkeSaState.DELETING:
            return
        sa.transition(IkeSaEvent.DELETE_STARTED)
        sa.delete_reason = refused.text
        sa.deadline = now + sa.host.settings.give_up
        sa.enqueue_task(DeleteIkeSaTask(refused.text, NotifyTypeV2.AUTHENTICATION_FAILED))

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        self._fail(sa, syntax_error_v2(reason), now, tell=True)

    def cancel(self, sa: IkeSa) -> None:
        if self._offer is not None:
            sa.host.release(self._offer.spis)


def _first_offer(sa: IkeSa, connection: Connection) -> ChildOffer:
    """The first line that can be offered: what was asked for comes first."""
    wanted = [connection.line(seq) for seq in sa.pending_entries]
    lines: list[Line] = [line for line in wanted if line is not None] or list(connection.lines)
    first: NegotiationError | None = None
    for line in lines:
        try:
            return make_offer(sa, line, with_group=False)
        except NegotiationError as refused:
            first = first or refused
    raise first or error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, "the tunnel has no IPsec policy")


def _on_authenticated(sa: IkeSa, now: float, first_child_entry: int) -> None:
    """Establish the IKE SA, and queue CHILD SAs for the entries that need one but `first_child_entry`."""
    sa.first_child_entry = first_child_entry
    sa.transition(IkeSaEvent.AUTHENTICATED)
    sa.deadline = math.inf
    sa.start_lifetime(now)
    sa.first_message_sent = sa.first_message_received = b""
    sa.host.count("IKE SAs established")
    sa.host.up(sa, now)
    if sa.closed or sa.connection is None:
        return
    seqs = [line.seq for line in sa.connection.lines] if sa.initiator else list(sa.pending_entries)
    sa.pending_entries.clear()
    for seq in seqs:
        line = sa.connection.line(seq)
        if line is not None and not sa.is_negotiating(seq) and not sa.child_sas.has_child(seq):
            sa.enqueue_task(CreateChildTask(line, None))


def respond(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """The responder's end."""
    try:
        connection, proof = _authenticate(sa, payloads, now)
    except NegotiationError as refused:
        sa.reply((notify_payload_v2(refused),), now)
        sa.abort(refused, now)
        return
    line, made, error = _pair(sa, connection, payloads, now)
    contact = (NotifyV2(NotifyTypeV2.INITIAL_CONTACT),) if sa.host.first_contact(connection) else ()
    child = made.response if made is not None else () if error is None else (notify_payload_v2(error),)
    sa.reply((*proof[:-1], *contact, proof[-1], *child), now)
    _on_authenticated(sa, now, 0 if line is None else line.seq)
    if not sa.closed:
        if made is not None:
            sa.install_child(made.child, made.install, now)
        elif error is not None and line is not None:
            sa.report_entry_failure(line, error, now)
    elif made is not None:
        sa.host.release(made.child.spis_in)
    sa.first_child_entry = 0
    if _has_notify(payloads, NotifyTypeV2.INITIAL_CONTACT) and not sa.closed:
        sa.host.contacted(sa, now)


def _authenticate(
    sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float
) -> tuple[Connection, tuple[PayloadV2, ...]]:
    """(which connection the peer means, our own proof); NegotiationError for a peer that is not to come in."""
    identity = next((one for one in payloads if isinstance(one, IdV2) and one.type == PayloadTypeV2.ID_I), None)
    if identity is None:
        raise syntax_error_v2("IKE_AUTH without an identity")
    path, received = sa.path, Identity.received(identity)
    group = sa.host.group(path.context, path.local, path.remote, 2)
    connection = None if group is None else group.identified(received)
    if connection is None:
        text = f"no tunnel expects a peer that calls itself {received}"
        raise error_v2(NotifyTypeV2.AUTHENTICATION_FAILED, text)
    sa.connection = connection
    if not connection.wanted or not connection.responds or connection.flaw:
        reason = connection.flaw or ("only initiates" if connection.wanted else "is not configured")
        raise error_v2(NotifyTypeV2.AUTHENTICATION_FAILED, f"tunnel {connection.name}: {reason}")
    if not isinstance(choose_v2(sa.ike_keymat.choice.answer, connection.proposals), ChoiceV2):
        raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, f"the IKE proposal is not one of tunnel {connection.name}")
    _authenticate_peer(sa, connection, identity, payloads)
    proof = _auth_payloads(sa, connection)
    sa.peer_identity = received
    return connection, proof


def _pair(
    sa: IkeSa, connection: Connection, payloads: tuple[PayloadV2, ...], now: float
) -> tuple[Line | None, NewChild | None, NegotiationError | None]:
    """(line, pair, why there is none): the peer may ask for an IKE SA alone."""
    if not any(isinstance(one, SaV2) for one in payloads):
        return None, None, None
    try:
        picked = choose_entry(sa, payloads, connection.lines, with_group=False)
    except NegotiationError as refused:
        return (connection.lines[0] if connection.lines else None), None, refused
    try:
        made = answer(sa, picked, payloads, Nonces(*sa.nonces), 0, now, send=True)
    except NegotiationError as refused:
        sa.host.release(picked.spis)
        return picked.entry, None, refused
    return picked.entry, made, None
