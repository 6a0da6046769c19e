"""IKE_AUTH in both roles: AUTH made and verified, and the first CHILD SA (RFC 7296 1.2, 2.15, 2.21.2, RFC 7427).

Each end authenticates by the method of its own choice: preshared key or RSA signature (guide chapter 6).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.ase.ike.connections import Connection, PolicyEntry
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
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.ike_proposals import ChoiceV2, choose_v2
from chassis.ase.ike.payloads.chain import first_of_type
from chassis.ase.ike.payloads.numbers import AuthMethod, CertEncoding, ExchangeType, NotifyTypeV2, PayloadTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2, find_notify
from chassis.ase.ike.payloads.v2_payloads import Auth, CertReqV2, CertV2, ConfigPayload, IdV2, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.peer_questions import PeerRefusedError, instance_of, with_key
from chassis.ase.ike.v2.create_child_sa import ChildNegotiation, ChildOffer, CreateChildTask, NewChild, Nonces
from chassis.ase.ike.v2.ike_sa import IkeSa, IkeSaEvent, IkeSaState, Task
from chassis.ase.ike.v2.informational import DeleteChildSpisTask, DeleteIkeSaTask
from chassis.ase.ike.v2.inner_address import asks_for_address, check_address, config_reply
from chassis.bus.messages import PeerAnswer

MAX_CERTIFICATES = 8
"""Certificates that a peer may send (count)."""

HASH_PREFERENCE = (2, 3, 4, 1)
"""Hash algorithms of RFC 7427, best first: SHA2-256, SHA2-384, SHA2-512, SHA1."""


def hash_notify() -> NotifyV2:
    """Return SIGNATURE_HASH_ALGORITHMS: the hashes that we can verify."""
    return NotifyV2(
        NotifyTypeV2.SIGNATURE_HASH_ALGORITHMS, b"".join(number.to_bytes(2, "big") for number in HASH_PREFERENCE)
    )


def peer_hashes(payloads: Iterable[PayloadV2]) -> tuple[int, ...]:
    """Return the hashes of the peer's SIGNATURE_HASH_ALGORITHMS that we have too, in our order of preference."""
    found = find_notify(payloads, NotifyTypeV2.SIGNATURE_HASH_ALGORITHMS)
    if found is None:
        return ()
    numbers = {int.from_bytes(found.data[at : at + 2], "big") for at in range(0, len(found.data), 2)}
    return tuple(number for number in HASH_PREFERENCE if number in numbers and number in SIGNATURE_HASHES)


def cert_requests(connection: Connection) -> tuple[CertReqV2, ...]:
    """Return CERTREQ with the authorities that we trust; empty without any."""
    if connection.credentials is None or not connection.credentials.key_hashes:
        return ()
    return (CertReqV2(CertEncoding.X509_SIGNATURE, b"".join(connection.credentials.key_hashes)),)


def make_auth(
    connection: Connection, prf: PrfSpec, octets: bytes, hashes: tuple[int, ...], wall: float
) -> tuple[tuple[CertV2, ...], Auth]:
    """Return (our certificates, our AUTH payload) over the signed `octets`.

    `hashes` are those of RFC 7427 that the peer can verify, in our order. Without one the signature is PKCS #1
    with SHA-1 (RFC 7296 3.8). `wall` is the time of day (s since 1970).

    Raises:
        NegotiationError: there is no preshared key, or no certificate with a key.
    """
    if connection.policy.authentication == "pre-shared-key":
        if connection.psk is None:
            raise authentication_error_v2("the IKE policy has no preshared key")
        return (), Auth(AuthMethod.SHARED_KEY, psk_auth(prf, connection.psk, octets))
    own = None if connection.credentials is None else connection.credentials.select(connection.identity, wall)
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
    identity: IkeIdentity,
    wall: float,
) -> None:
    """Verify the peer's AUTH payload over the signed `octets`, by whatever method the peer chose.

    `wall` is the time of day (s since 1970) for the dates of certificates.

    Raises:
        NegotiationError: AUTH or a certificate is wrong, or we lack the key to verify it.
    """
    if auth.method == AuthMethod.SHARED_KEY:
        if connection.psk is None:
            raise authentication_error_v2(
                f"peer {identity} authenticates by preshared key, but the IKE policy has none"
            )
        if not psk_verify(prf, connection.psk, octets, auth.data):
            raise authentication_error_v2(f"AUTH of peer {identity} is wrong: the preshared keys differ")
        return
    if auth.method not in (AuthMethod.RSA_SIGNATURE, AuthMethod.DIGITAL_SIGNATURE):
        raise authentication_error_v2(
            f"peer {identity} authenticates by method {auth.method}, which is not supported"
        )
    key = _public_key(connection, certificates, identity, wall)
    check = rsa_verify if auth.method == AuthMethod.RSA_SIGNATURE else digital_verify
    if not check(key, octets, auth.data):
        raise authentication_error_v2(f"the signature of peer {identity} is wrong")


def _public_key(
    connection: Connection, certificates: Iterable[CertV2], identity: IkeIdentity, wall: float
) -> rsa.RSAPublicKey:
    if connection.credentials is None:
        raise authentication_error_v2(f"peer {identity} authenticates by certificate, but the context trusts none")
    ders = tuple(one.data for one in certificates if one.encoding == CertEncoding.X509_SIGNATURE)
    if not ders:
        raise authentication_error_v2(f"peer {identity} authenticates by signature, but sent no X.509 certificate")
    if len(ders) > MAX_CERTIFICATES:
        raise authentication_error_v2(
            f"peer {identity} sent {len(ders)} certificates; expected at most {MAX_CERTIFICATES}"
        )
    try:
        verified = connection.credentials.verify(ders, wall)
    except CertificateError as error:
        raise authentication_error_v2(f"certificate of peer {identity}: {error}") from error
    if _must_carry_identity(connection) and not any(one.same(connection.expected) for one in verified.identities):
        raise authentication_error_v2(f"the certificate of the peer does not carry identity {connection.expected}")
    return verified.public_key


def _must_carry_identity(connection: Connection) -> bool:
    """Return whether the peer's certificate must contain the identity that the tunnel expects.

    Under `rsa-signature` the operator decides (guide 6.4.1). Under `pre-shared-key` it must: else every holder of
    a certificate of a trusted authority could authenticate without the key.
    """
    policy = connection.policy
    return policy.validate_certificate_identity or policy.authentication == "pre-shared-key"


class _Authentication:
    """What both roles do: our authentication payloads, and the check of the peer's."""

    def __init__(self, sa: IkeSa) -> None:
        self._sa = sa

    def _signed_octets(self, identity: IdV2, *, ours: bool) -> bytes:
        """Return what one end signs: its first message, the other end's nonce, its ID payload (RFC 7296 2.15)."""
        sa, keymat = self._sa, self._sa.ike_keymat
        by_initiator = ours == sa.initiator
        message = sa.first_message_sent if ours else sa.first_message_received
        nonce = sa.nonces[1] if by_initiator else sa.nonces[0]
        key = keymat.keys.pi if by_initiator else keymat.keys.pr
        return signed_octets(keymat.choice.prf, key, message, nonce, identity.emit())

    def payloads(self, connection: Connection) -> tuple[IdV2, tuple[CertV2, ...], Auth]:
        """Return our ID, certificates and AUTH.

        Raises:
            NegotiationError: there is no preshared key, or no certificate with a key.
        """
        sa = self._sa
        identity = connection.identity.v2(PayloadTypeV2.ID_I if sa.initiator else PayloadTypeV2.ID_R)
        octets = self._signed_octets(identity, ours=True)
        prf, wall = sa.ike_keymat.choice.prf, sa.host.wall_clock
        return identity, *make_auth(connection, prf, octets, sa.signature_hashes, wall)

    def verify_peer(self, connection: Connection, identity: IdV2, payloads: tuple[PayloadV2, ...]) -> None:
        """Verify the peer's AUTH.

        Raises:
            NegotiationError: the peer is not authenticated.
        """
        received = IkeIdentity.received(identity)
        auth = first_of_type(payloads, Auth)
        if auth is None:
            raise authentication_error_v2(f"peer {received} wants EAP, which is not supported")
        certificates = [one for one in payloads if isinstance(one, CertV2)]
        octets = self._signed_octets(identity, ours=False)
        prf, wall = self._sa.ike_keymat.choice.prf, self._sa.host.wall_clock
        verify_auth(connection, prf, octets, auth, certificates, received, wall)

    def initial_contact(self, connection: Connection) -> tuple[NotifyV2, ...]:
        """Return INITIAL_CONTACT for the first IKE SA with this peer since the start of the process."""
        return (
            (NotifyV2(NotifyTypeV2.INITIAL_CONTACT),) if self._sa.host.may_send_initial_contact(connection) else ()
        )

    def establish(self, first_child_entry: int, now: float) -> None:
        """Establish the IKE SA, and queue CHILD SAs for the entries that need one but `first_child_entry`."""
        sa = self._sa
        sa.first_child_entry = first_child_entry
        sa.transition(IkeSaEvent.AUTHENTICATED)
        sa.deadline = math.inf
        sa.start_lifetime(now)
        sa.first_message_sent = sa.first_message_received = b""
        sa.ike_keymat.settle()
        sa.host.count("IKE SAs established")
        sa.host.on_established(sa, now)
        if sa.closed or sa.connection is None:
            return
        seqs = [entry.seq for entry in sa.connection.entries] if sa.initiator else list(sa.pending_entries)
        sa.pending_entries.clear()
        for seq in seqs:
            entry = sa.connection.entry(seq)
            if entry is not None and not sa.is_negotiating(seq) and not sa.child_sas.has_child(seq):
                sa.enqueue_task(CreateChildTask(entry, None))

    def finish(self, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Call it after the first CHILD SA is installed or failed: act on the peer's INITIAL_CONTACT."""
        sa = self._sa
        sa.first_child_entry = 0
        sa.nonces, sa.signature_hashes = (b"", b""), ()
        if find_notify(payloads, NotifyTypeV2.INITIAL_CONTACT) is not None and not sa.closed:
            sa.host.on_initial_contact(sa, now)


def _identity(payloads: tuple[PayloadV2, ...], payload_type: int) -> IdV2 | None:
    return next((one for one in payloads if isinstance(one, IdV2) and one.type == payload_type), None)


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
        connection, authentication = sa.connection, _Authentication(sa)
        assert connection is not None
        try:
            identity, certificates, auth = authentication.payloads(connection)
            self._offer = offer = self._first_offer(sa, connection)
        except NegotiationError as failed:
            sa.abort(failed, now)
            return None
        return (
            identity,
            *certificates,
            *authentication.initial_contact(connection),
            *cert_requests(connection),
            connection.expected.v2(PayloadTypeV2.ID_R),
            auth,
            *offer.notify_payloads(),
            offer.sa_payload(),
            *offer.ts_payloads(),
        )

    def _first_offer(self, sa: IkeSa, connection: Connection) -> ChildOffer:
        """Return an offer for the first policy entry that has one; entries that were requested come first.

        Raises:
            NegotiationError: no entry can be offered.
        """
        requested = [connection.entry(seq) for seq in sa.pending_entries]
        first: NegotiationError | None = None
        for entry in [entry for entry in requested if entry is not None] or connection.entries:
            try:
                return ChildNegotiation(sa).offer(entry, with_group=False)
            except NegotiationError as error:
                first = first or error
        raise first or error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, "the tunnel has no IPsec policy")

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        connection, authentication = sa.connection, _Authentication(sa)
        assert connection is not None
        identity = _identity(payloads, PayloadTypeV2.ID_R)
        if sa.state is not IkeSaState.AUTH_SENT:
            # The IKE SA was closed meanwhile. A peer that established it gets the Delete that waits in the queue.
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
        received = IkeIdentity.received(identity)
        try:
            if not received.same(connection.expected):
                text = f"the peer calls itself {received}, expected is {connection.expected}"
                raise authentication_error_v2(text)
            authentication.verify_peer(connection, identity, payloads)
        except NegotiationError as failed:
            self._fail(sa, failed, now, tell=True)
            return
        sa.peer_identity = received
        authentication.establish(self.seq, now)
        if not sa.closed:
            self._install_child(sa, payloads, now)
        authentication.finish(payloads, now)

    def _install_child(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        """Install the CHILD SA of the response, or report why there is none."""
        offer, has_sa = self._offer, first_of_type(payloads, SaV2) is not None
        assert offer is not None
        try:
            error = find_error_notify(payloads)
            if error is not None and not has_sa:
                text = f"the peer refuses a CHILD SA: {notify_name_v2(error.notify)}"
                raise error_v2(error.notify, text, error.data)
            created = ChildNegotiation(sa).accept(offer, payloads, Nonces(*sa.nonces), 0, now)
        except NegotiationError as failed:
            if has_sa:
                sa.enqueue_task(DeleteChildSpisTask(offer.spis))
            self.cancel(sa)
            sa.report_entry_failure(offer.entry, failed, now)
            return
        sa.install_child(created.child, created.install, now)

    def _fail(self, sa: IkeSa, error: NegotiationError, now: float, *, tell: bool) -> None:
        """End the IKE SA. `tell` deletes it by an exchange: the peer established it (RFC 7296 2.21.2)."""
        self.cancel(sa)
        sa.report_failure(error, now)
        if not tell:
            sa.terminate(error.text, now)
            return
        if sa.state is IkeSaState.DELETING:
            return
        sa.transition(IkeSaEvent.DELETE_STARTED)
        sa.delete_reason = error.text
        sa.deadline = now + sa.host.settings.half_open_timeout
        sa.enqueue_task(DeleteIkeSaTask(error.text, NotifyTypeV2.AUTHENTICATION_FAILED))

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        self._fail(sa, syntax_error_v2(reason), now, tell=True)

    def cancel(self, sa: IkeSa) -> None:
        if self._offer is not None:
            sa.host.release_spis(self._offer.spis)


OwnAuth = tuple[IdV2, tuple[CertV2, ...], Auth]
"""Our ID, certificates and AUTH."""


class _IkeAuthResponder(_Authentication):
    """The responder's side. It lasts until the response is sent, which waits for the controller if the peer is one
    of an on-demand tunnel."""

    def __init__(self, sa: IkeSa, payloads: tuple[PayloadV2, ...]) -> None:
        super().__init__(sa)
        self._payloads = payloads
        self._key_question = 0
        """Number of the question about the peer's key; 0 if it was not asked."""

    def respond(self, now: float) -> None:
        sa = self._sa
        try:
            connection, identity = self._identify()
            if connection.is_candidate and self._needs_key(connection):
                self._ask_key(connection, identity)
                return
            ours = self._authenticate(connection, identity)
        except NegotiationError as refused:
            self._refuse(refused, now)
            return
        if connection.is_candidate:
            self._ask_admission(connection, ours)
        else:
            sa.peer_identity = IkeIdentity.received(identity)
            self._finish(connection, ours, now)

    def _refuse(self, refused: NegotiationError, now: float) -> None:
        self._sa.reply((notify_payload_v2(refused),), now)
        self._sa.abort(refused, now)

    # --- who the peer is ---

    def _identify(self) -> tuple[Connection, IdV2]:
        """Return the connection of the identity that the peer claims, and its ID payload.

        Raises:
            NegotiationError: no connection expects the identity, or it cannot be used with the chosen proposal.
        """
        sa = self._sa
        identity = _identity(self._payloads, PayloadTypeV2.ID_I)
        if identity is None:
            raise syntax_error_v2("IKE_AUTH without an identity")
        path, received = sa.path, IkeIdentity.received(identity)
        group = sa.host.group(path.context, path.local, path.remote, 2)
        connection = None if group is None else group.identified(received)
        if connection is None:
            connection = self._on_demand(received)
        if connection is None:
            raise authentication_error_v2(f"no tunnel expects a peer that calls itself {received}")
        sa.connection = connection
        if not connection.enabled or not connection.may_respond or connection.config_error:
            reason = connection.config_error or ("only initiates" if connection.enabled else "is not configured")
            raise authentication_error_v2(f"tunnel {connection.name}: {reason}")
        if not self._has_proposal(connection):
            text = f"the IKE proposal is not one of tunnel {connection.name}"
            raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, text)
        return connection, identity

    def _on_demand(self, identity: IkeIdentity) -> Connection | None:
        """Return the on-demand tunnel that matches an identity best; of equals, one with the chosen proposal."""
        path = self._sa.path
        group = self._sa.host.on_demand(path.context, path.local, 2)
        found = () if group is None else group.matching(identity)
        return next((one for one in found if self._has_proposal(one)), found[0] if found else None)

    def _has_proposal(self, connection: Connection) -> bool:
        return isinstance(choose_v2(self._sa.ike_keymat.choice.answer, connection.proposals), ChoiceV2)

    def _authenticate(self, connection: Connection, identity: IdV2) -> OwnAuth:
        """Return what authenticates us, once the peer is authenticated.

        Raises:
            NegotiationError: the peer or we fail to authenticate.
        """
        self.verify_peer(connection, identity, self._payloads)
        return self.payloads(connection)

    # --- peers of on-demand tunnels ---

    def _needs_key(self, connection: Connection) -> bool:
        """Return whether AAA has the preshared key by which the peer or we authenticate."""
        auth = first_of_type(self._payloads, Auth)
        if auth is None or not connection.key_from_aaa:
            return False
        return auth.method == AuthMethod.SHARED_KEY or connection.policy.authentication == "pre-shared-key"

    def _ask_key(self, candidate: Connection, identity: IdV2) -> None:
        """Ask for the preshared key of the peer. If too many wait for theirs, its request is ignored: it comes
        again."""
        sa = self._sa
        self._key_question = sa.host.ask_key(sa, candidate)
        if not self._key_question:
            sa.host.count("messages dropped")
            return
        sa.suspend(lambda answer, now: self._on_key(candidate, identity, answer, now))

    def _on_key(self, candidate: Connection, identity: IdV2, answer: PeerAnswer, now: float) -> None:
        try:
            candidate = with_key(candidate, answer)
            ours = self._authenticate(candidate, identity)
        except PeerRefusedError as refused:
            self._refuse(authentication_error_v2(str(refused)), now)
        except NegotiationError as failed:
            self._refuse(failed, now)
        else:
            self._ask_admission(candidate, ours)

    def _ask_admission(self, candidate: Connection, ours: OwnAuth) -> None:
        sa = self._sa
        wants_address = candidate.policy.address_allocation and asks_for_address(self._payloads)
        sa.host.ask_admission(sa, candidate, self._key_question, wants_address=wants_address)
        sa.suspend(lambda answer, now: self._on_admission(candidate, ours, answer, now))

    def _on_admission(self, candidate: Connection, ours: OwnAuth, answer: PeerAnswer, now: float) -> None:
        """The controller named the instance of the peer, or refuses it.

        A refusal is an AUTHENTICATION_FAILED, whatever its reason: no other notification says that there is no
        IKE SA (RFC 7296 2.21.2).
        """
        sa = self._sa
        try:
            connection = instance_of(sa.host, candidate, answer)
        except PeerRefusedError as refused:
            text = str(refused)
            self._refuse(NegotiationError("not admitted", text, notify=NotifyTypeV2.AUTHENTICATION_FAILED), now)
            return
        sa.connection, sa.peer_identity = connection, candidate.expected
        self._finish(connection, ours, now, config_reply(answer))

    # --- the response ---

    def _finish(
        self, connection: Connection, ours: OwnAuth, now: float, configuration: tuple[ConfigPayload, ...] = ()
    ) -> None:
        """Send the response, and install the first CHILD SA."""
        sa, payloads = self._sa, self._payloads
        identity, certificates, auth = ours
        entry, created, error = self._create_child(connection, payloads, now)
        contact = self.initial_contact(connection)
        child = created.response if created is not None else () if error is None else (notify_payload_v2(error),)
        sa.reply((identity, *certificates, *contact, auth, *configuration, *child), now)
        self.establish(0 if entry is None else entry.seq, now)
        if not sa.closed:
            if created is not None:
                sa.install_child(created.child, created.install, now)
            elif error is not None and entry is not None:
                sa.report_entry_failure(entry, error, now)
        elif created is not None:
            sa.host.release_spis(created.child.spis_in)
        self.finish(payloads, now)

    def _create_child(
        self, connection: Connection, payloads: tuple[PayloadV2, ...], now: float
    ) -> tuple[PolicyEntry | None, NewChild | None, NegotiationError | None]:
        """Return (entry, CHILD SA, why there is none); all None if the peer asks for an IKE SA alone."""
        sa, negotiation = self._sa, ChildNegotiation(self._sa)
        if first_of_type(payloads, SaV2) is None:
            return None, None, None
        try:
            check_address(connection, asked=asks_for_address(payloads))
            chosen = negotiation.choose_entry(payloads, connection.entries, with_group=False)
        except NegotiationError as refused:
            return (connection.entries[0] if connection.entries else None), None, refused
        try:
            created = negotiation.answer(chosen, payloads, Nonces(*sa.nonces), 0, now, send=True)
        except NegotiationError as refused:
            sa.host.release_spis(chosen.spis)
            return chosen.entry, None, refused
        return chosen.entry, created, None


def respond(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """Respond to the peer's IKE_AUTH request."""
    _IkeAuthResponder(sa, payloads).respond(now)
