"""CREATE_CHILD_SA for pairs: new ones and successors, with all that can meet on the way (RFC 7296 2.8, 2.25.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from chassis.ase.ike.connection import Line
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, GroupError, KeyPair
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import KeV2, NonceV2, NotifyV2
from chassis.ase.ike.v2.child_sa import ChildSaEvent, ChildSaState, ChildSaV2
from chassis.ase.ike.v2.children import MAX_CHILD_SAS_PER_ENTRY, install, remove, switch
from chassis.ase.ike.v2.create import ChildOffer, Nonces, accept, answer, choose_entry, make_offer
from chassis.ase.ike.v2.exchange import Task
from chassis.ase.ike.v2.ike_sa import ESTABLISHED_STATES, IkeSaState
from chassis.ase.ike.v2.informational import DeleteChildSpisTask, close_child
from chassis.ase.ike.v2.refused import Refused, name, refusal, syntax

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2

NONCE_OCTETS = 32
"""Octets of our nonces: at least half of any PRF's key (RFC 7296 2.10)."""

MAX_TEMPORARY_FAILURES = 8
"""How often a request is made again that meets a temporary failure, where there is no old pair to wait with."""


class CreateChildTask(Task):
    """Make a pair for `line`; `old` is the one that it succeeds. `rival` is what the peer made for the same line
    in the meantime, where there is no old one that knows it."""

    exchange: ClassVar[int] = ExchangeType.CREATE_CHILD_SA

    def __init__(self, line: Line, old: ChildSaV2 | None, tries: int = 0) -> None:
        self.line = line
        self.old = old
        self.rival: ChildSaV2 | None = None
        self._tries = tries
        self._offer: ChildOffer | None = None
        self._nonce = b""
        self._pair: KeyPair | None = None

    @property
    def seq(self) -> int:
        return self.line.seq

    def begin(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        line = None if session.connection is None else session.connection.line(self.line.seq)
        if line is None:
            return None
        if self.old is None:
            if session.children.served(line.seq):
                return None
        elif not self.old.may(ChildSaEvent.REKEY):
            return None
        self.line = line
        try:
            self._offer = offer = make_offer(session, line, with_group=True)
        except Refused as refused:
            self._failed(session, refused, now)
            return None
        session.deleted.clear()
        random = session.host.random
        self._nonce = random(NONCE_OCTETS)
        payloads: list[PayloadV2] = []
        if self.old is not None:
            self.old.take(ChildSaEvent.REKEY)
            protocol = self.old.protocols[0]
            payloads.append(NotifyV2(NotifyTypeV2.REKEY_SA, b"", protocol, self.old.inbound[protocol]))
        payloads += [*offer.notifications(), offer.sa(), NonceV2(self._nonce)]
        if offer.group is not None:
            group = GROUPS[offer.group]
            self._pair = group.private(random(group.random_octets))
            payloads.append(KeV2(offer.group, self._pair.public))
        return (*payloads, *offer.selectors())

    def answered(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
        offer = self._offer
        assert offer is not None
        error = refusal(payloads)
        if error is not None and not any(isinstance(one, NonceV2) for one in payloads):
            self.abandoned(session)
            self._refused(session, error.notify, now)
            return
        old = self.old
        try:
            replaces = 0 if old is None else old.serial
            made = accept(session, offer, payloads, self._nonces(payloads), replaces, now)
        except Refused as refused:
            self._reject(session, refused, now)
            return
        if session.sa.state not in ESTABLISHED_STATES:
            session.host.release(made.child.inbound)
            return
        child, rival = made.child, self.rival if old is None else old.rival
        if session.deleted & child.outbound.items():
            # The peer's delete overtook its answer: what we would install is gone there already.
            session.host.release(child.inbound)
            self._settle(session, now)
            return
        if rival is not None and rival.state is not ChildSaState.GONE and child.lowest < rival.lowest:
            # Ours has the lowest of the four nonces, so it is the redundant one, and ours to delete.
            session.host.count("collisions lost")
            session.host.release(child.inbound)
            session.put(DeleteChildSpisTask(child.inbound))
            self._settle(session, now)
            return
        install(session, child, made.install, now)
        if rival is not None and rival.may(ChildSaEvent.REPLACE):
            rival.take(ChildSaEvent.REPLACE)
            session.limit(rival, now)
        if old is not None and old.state is ChildSaState.REKEYING:
            old.take(ChildSaEvent.REPLACE)
            close_child(session, old, "rekeyed")

    def _nonces(self, payloads: tuple[PayloadV2, ...]) -> Nonces:
        nonce = next((one for one in payloads if isinstance(one, NonceV2)), None)
        if nonce is None:
            raise syntax("the peer answered without a nonce")
        if self._pair is None:
            return Nonces(self._nonce, nonce.value)
        ke = next((one for one in payloads if isinstance(one, KeV2)), None)
        if ke is None or ke.group != self._pair.group:
            raise syntax("the peer answered without a public value of our group")
        try:
            return Nonces(self._nonce, nonce.value, GROUPS[ke.group].shared(self._pair, ke.public))
        except GroupError as error:
            raise syntax(str(error)) from error

    def _reject(self, session: SessionV2, refused: Refused, now: float) -> None:
        """The peer believes in a pair that we cannot use."""
        assert self._offer is not None
        session.put(DeleteChildSpisTask(self._offer.spis))
        self.abandoned(session)
        self._failed(session, refused, now)

    def _refused(self, session: SessionV2, notify: int, now: float) -> None:
        old = self.old
        if notify == NotifyTypeV2.TEMPORARY_FAILURE:
            self._settle(session, now)
            if old is None and self._tries >= MAX_TEMPORARY_FAILURES:
                self._failed(session, Refused(notify, "the peer has no time for a CHILD SA"), now)
            elif old is None or old.may(ChildSaEvent.REKEY):
                session.later(CreateChildTask(self.line, old, self._tries + 1), now)
            return
        if notify == NotifyTypeV2.CHILD_SA_NOT_FOUND and old is not None:
            self._settle(session, now)
            if old.state is ChildSaState.ACTIVE:
                remove(session, old, "unknown to the peer", now)
                session.put(CreateChildTask(self.line, None))
            return
        self._failed(session, Refused(notify, f"the peer refuses a CHILD SA: {name(notify)}"), now)

    def _failed(self, session: SessionV2, refused: Refused, now: float) -> None:
        self._settle(session, now)
        old = self.old
        if old is not None and old.live:
            session.put_off(old, now)
        if old is None or old.state is not ChildSaState.GONE:
            session.line_failed(self.line, refused, now)

    def _settle(self, session: SessionV2, now: float) -> None:
        """Our attempt is over without a pair: the old one goes on, or the peer's successor does."""
        old = self.old
        if old is None or old.state is not ChildSaState.REKEYING:
            return
        if old.rival is not None and old.rival.live:
            old.take(ChildSaEvent.REPLACE)
            session.limit(old, now)
        else:
            old.take(ChildSaEvent.KEEP)

    def unreadable(self, session: SessionV2, reason: str, now: float) -> None:
        self._reject(session, syntax(reason), now)

    def abandoned(self, session: SessionV2) -> None:
        if self._offer is not None:
            session.host.release(self._offer.spis)


def respond(session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """The peer wants a pair."""
    wanted = next(
        (one for one in payloads if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.REKEY_SA), None
    )
    line: Line | None = None
    try:
        if session.sa.state is not IkeSaState.ESTABLISHED:
            raise Refused(NotifyTypeV2.TEMPORARY_FAILURE, "the IKE SA is being replaced or deleted")
        old = None if wanted is None else _old(session, wanted)
        line = None if old is None else old.line
        _create_child(session, payloads, old, now)
    except Refused as refused:
        data = refused.payload
        if refused.notify == NotifyTypeV2.CHILD_SA_NOT_FOUND and wanted is not None:
            data = NotifyV2(refused.notify, b"", wanted.protocol, wanted.spi)
        session.reply((data,), now)
        session.host.count(f"refused {refused.blame.cause}")
        if refused.notify in (NotifyTypeV2.NO_PROPOSAL_CHOSEN, NotifyTypeV2.TS_UNACCEPTABLE):
            lines = () if session.connection is None else session.connection.lines
            if line is not None or lines:
                session.line_failed(line or lines[0], refused, now)


def _old(session: SessionV2, wanted: NotifyV2) -> ChildSaV2:
    """The pair that a request replaces."""
    old = session.children.find(wanted.protocol, wanted.spi)
    if old is None:
        raise Refused(NotifyTypeV2.CHILD_SA_NOT_FOUND, "no such CHILD SA")
    if old.state is ChildSaState.STANDBY:
        switch(session, old)
    if old.state not in (ChildSaState.ACTIVE, ChildSaState.REKEYING) or old.rival is not None:
        raise Refused(NotifyTypeV2.TEMPORARY_FAILURE, "the CHILD SA is replaced already, or being deleted")
    return old


def _create_child(session: SessionV2, payloads: tuple[PayloadV2, ...], old: ChildSaV2 | None, now: float) -> None:
    connection = session.connection
    assert connection is not None
    nonce = next((one for one in payloads if isinstance(one, NonceV2)), None)
    if nonce is None:
        raise syntax("a CHILD SA is asked for without a nonce")
    lines = connection.lines
    if old is not None:
        lines = tuple(line for line in lines if line.seq == old.line.seq) or (old.line,)
    picked = choose_entry(session, payloads, lines, with_group=True)
    try:
        if len(session.children.of(picked.line.seq)) >= MAX_CHILD_SAS_PER_ENTRY:
            raise Refused(NotifyTypeV2.NO_ADDITIONAL_SAS, "the policy line has pairs enough")
        ours = session.host.random(NONCE_OCTETS)
        said: tuple[PayloadV2, ...] = (NonceV2(ours),)
        shared = b""
        if picked.choice.suite.group is not None:
            shared, ke = _exchange(session, picked.choice.suite.group, payloads)
            said = (NonceV2(ours), ke)
        replaces = 0 if old is None else old.serial
        nonces = Nonces(nonce.value, ours, shared)
        # Both ends may have asked at once: the pair that sends goes on until the peer shows that it has this one.
        send = old is None and not session.children.served(picked.line.seq)
        made = answer(session, picked, payloads, nonces, replaces, now, send=send)
    except Refused:
        session.host.release(picked.spis)
        raise
    position = 1 + next(at for at, one in enumerate(made.answer) if one is picked.choice.answer)
    reply = (*made.answer[:position], *said, *made.answer[position:])
    child = made.child
    if old is None:
        rival = session.exchanges.outstanding
        if rival is not None and isinstance(rival.task, CreateChildTask) and rival.task.seq == child.line.seq:
            rival.task.rival = child
        session.reply(reply, now)
        install(session, child, made.install, now)
        return
    install(session, child, made.install, now)
    if old.state is ChildSaState.REKEYING:
        old.rival = child
    else:
        old.take(ChildSaEvent.REPLACE)
        session.limit(old, now)
    session.reply(reply, now)


def _exchange(session: SessionV2, number: int, payloads: tuple[PayloadV2, ...]) -> tuple[bytes, KeV2]:
    """(shared secret, our public value) of a group of its own."""
    ke = next((one for one in payloads if isinstance(one, KeV2)), None)
    if ke is None:
        raise syntax("a CHILD SA with PFS is asked for without a public value")
    if ke.group != number:
        raise Refused(
            NotifyTypeV2.INVALID_KE_PAYLOAD, f"group {ke.group} for group {number}", number.to_bytes(2, "big")
        )
    group = GROUPS[number]
    pair = group.private(session.host.random(group.random_octets))
    try:
        return group.shared(pair, ke.public), KeV2(number, pair.public)
    except GroupError as error:
        raise syntax(str(error)) from error
