"""Messages between the data engine and IKE that are not about SAs: records, heartbeats, operators' commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from chassis.ase.ike_messages import Configure, IkeHeartbeat, IkeReply, IkeRequest, MessageDropped
from chassis.ase.sa_builder import NEGOTIATED
from chassis.bus.counters import Counters
from chassis.bus.engine import Exit, Output, ToController, ToIke
from chassis.bus.messages import Attributes, LogRecord, PeerAnswer, PeerDropped, PeerQuestion, Reply, Request
from chassis.bus.records import (
    POLICY_KINDS,
    CertificateRecord,
    ContextRecord,
    Key,
    OnDemandRecord,
    PolicyRecord,
    Record,
    TunnelRecord,
    policy_key,
)
from chassis.bus.replication import RecordChange
from chassis.model.acl import Acl
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecPolicy, IpsecProposal

IKE_SILENCE_TIMEOUT = 5.0
"""Time (s) without a heartbeat of IKE after which it counts as hung."""

PIPE_DROP_LOG_INTERVAL = 1.0
"""Shortest time (s) between two log lines about dropped messages."""

MAX_RECORDS_PER_MESSAGE = 500
"""Largest number of records in one message (count)."""

_ORDER = (
    ContextRecord.TYPE,
    CertificateRecord.TYPE,
    *(POLICY_KINDS[kind] for kind in (IkeProposal, IpsecProposal, IkePolicy, IpsecPolicy, Acl)),
    OnDemandRecord.TYPE,
    TunnelRecord.TYPE,
)
"""Kinds of records that IKE needs, in order of sending: a tunnel follows the records that it names."""
_RANK: dict[str | int, int] = {kind: rank for rank, kind in enumerate(_ORDER)}


class IkeClient:
    """Makes the messages for IKE. None is sent before `connect` and the controller's first snapshot."""

    def __init__(self, card: str, counters: Counters) -> None:
        self.connected = False
        self._card = card
        self._counters = counters
        self._held: dict[Key, Record] = {}
        """The records that IKE has."""
        self._settings: Attributes | None = None
        """The settings that IKE has; None before it has anything."""
        self._needs: dict[int, frozenset[Key]] = {}
        self._users: dict[Key, int] = {}
        """How many tunnels use an access list."""
        self._last_heartbeat = inf
        self._next_drop_log = -inf
        """When a dropped message may be logged again (s)."""
        self._bases: dict[str, int] = {}
        self._requests: dict[int, int] = {}
        """Requests sent to IKE, with the number of manual tunnels for which the command was carried out here."""
        self._questions: dict[int, PeerQuestion] = {}
        """Questions of IKE about peers that the controller has not answered, by number. IKE limits how many."""

    def connect(
        self, settings: Attributes, records: Mapping[Key, Record], ready: bool, now: float
    ) -> list[Output]:
        """Return the first messages for a started IKE process; none unless the records are `ready`."""
        self.connected = True
        self._questions.clear()
        self._last_heartbeat = now
        return self._configure_all(settings, records) if ready else []

    def on_records(
        self, change: RecordChange, settings: Attributes, records: Mapping[Key, Record]
    ) -> list[Output]:
        """Return the messages for IKE about a change of records."""
        if not self.connected:
            return []
        if self._settings != settings:
            return self._configure_all(settings, records)
        touched: dict[Key, None] = {}
        for record in (*change.deleted, *change.put):
            if record.key[0] in _RANK:
                touched[record.key] = None
            if isinstance(record, TunnelRecord):
                touched.update(dict.fromkeys(self._use(record.number, records.get(record.key))))
        put: list[Record] = []
        delete: list[Key] = []
        for key in touched:
            wanted = records.get(key)
            if wanted is not None and self._needs_record(wanted):
                if self._held.get(key) != wanted:
                    self._held[key] = wanted
                    put.append(wanted)
            elif self._held.pop(key, None) is not None:
                delete.append(key)
        return _configure(put, delete)

    @property
    def has_peers(self) -> bool:
        """Whether IKE runs and has peers that it knows, or an on-demand tunnel."""
        return self.connected and any(key[0] in (TunnelRecord.TYPE, OnDemandRecord.TYPE) for key in self._held)

    def on_stall(self, seconds: float) -> None:
        """Allow for a stall (s) of this process: it has not read heartbeats that IKE sent meanwhile."""
        self._last_heartbeat += seconds

    def on_heartbeat(self, message: IkeHeartbeat, now: float) -> None:
        """Handle a heartbeat. Its counts start at 0 with each IKE process; the counters add them up."""
        self._last_heartbeat = now
        counters = self._counters
        for name, count in message.counts.items():
            if not isinstance(count, int) or count < 0:
                continue
            slot = counters.slot(f"ike {name}")
            base = self._bases.get(name)
            if base is None:
                base = self._bases[name] = counters.values[slot]
            counters.values[slot] = base + count

    def on_timer(self, now: float) -> list[Output]:
        if now < self.next_timer():
            return []
        self._last_heartbeat = inf
        return [Exit("IKE hangs")]

    def next_timer(self) -> float:
        return self._last_heartbeat + IKE_SILENCE_TIMEOUT

    def request(self, request: Request, name: str, done: int) -> list[Output]:
        """Send a command of an operator to IKE. It was carried out for `done` manual tunnels (count) here."""
        if not self.connected:
            return [ToController(Reply(request.number, {}, f"IKE is not running on {self._card}"))]
        self._requests[request.number] = done
        return [ToIke(IkeRequest(request.number, name, request.arguments))]

    def pass_question(self, message: PeerQuestion) -> list[Output]:
        """Pass on a question of IKE about a peer."""
        self._questions[message.number] = message
        return [ToController(message)]

    def ask_again(self) -> list[Output]:
        """Return the questions without an answer, for a controller that may not have had them. It has one answer,
        however often it is asked."""
        return [ToController(message) for message in self._questions.values()]

    def pass_dropped(self, message: PeerDropped) -> list[Output]:
        """Pass on that a peer is gone, with its question."""
        self._questions.pop(message.question, None)
        return [ToController(message)]

    def pass_answer(self, message: PeerAnswer) -> list[Output]:
        """Pass on the controller's answer to a question of IKE; a process that has ended asks again itself."""
        self._questions.pop(message.number, None)
        return [ToIke(message)] if self.connected else []

    def on_reply(self, message: IkeReply) -> list[Output]:
        """Return the reply for the controller."""
        done = self._requests.pop(message.number, None)
        if done is None:
            return []
        result = {**message.result, "manual": done} if done else message.result
        return [ToController(Reply(message.number, result, message.error))]

    def on_message_dropped(self, message: MessageDropped, now: float) -> list[Output]:
        """Count and log a dropped message to or from IKE; if it belongs to a command, reply with an error."""
        self._counters.add("ike pipe messages dropped")
        outputs: list[Output] = []
        text = f"A message between {self._card} and its IKE was dropped: {message.text}"
        if now >= self._next_drop_log:
            self._next_drop_log = now + PIPE_DROP_LOG_INTERVAL
            outputs.append(ToController(LogRecord(now, "error", "ike", "", text, {"asp": self._card})))
        if message.number:
            outputs += self.on_reply(IkeReply(message.number, {}, text))
        return outputs

    def on_disconnected(self) -> None:
        """Forget the requests in progress: the controller that sent them is disconnected."""
        self._requests.clear()

    # inside

    def _configure_all(self, settings: Attributes, records: Mapping[Key, Record]) -> list[Output]:
        self._needs.clear()
        self._users.clear()
        for record in records.values():
            if isinstance(record, TunnelRecord):
                self._use(record.number, record)
        self._settings = settings
        self._held = {key: record for key, record in records.items() if self._needs_record(record)}
        return _configure(self._held.values(), (), full=True, settings=settings)

    def _needs_record(self, record: Record) -> bool:
        if isinstance(record, TunnelRecord):
            return record.asp == self._card and record.config.kind in NEGOTIATED
        if isinstance(record, OnDemandRecord):
            return record.asp == self._card
        if isinstance(record, PolicyRecord) and isinstance(record.value, Acl):
            return record.key in self._users
        return record.key[0] in _RANK

    def _use(self, number: int, record: Record | None) -> frozenset[Key]:
        """Remember the access lists that a tunnel uses; return those added or removed."""
        needs: frozenset[Key] = frozenset()
        if isinstance(record, TunnelRecord) and self._needs_record(record):
            lists = [policy_key(Acl, entry.acl, record.context) for entry in record.config.entries if entry.acl]
            needs = frozenset[Key](lists)
        before = self._needs.pop(number, frozenset())
        if needs:
            self._needs[number] = needs
        for key in needs - before:
            self._users[key] = self._users.get(key, 0) + 1
        for key in before - needs:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
        return needs ^ before


def _configure(
    put: Iterable[Record], delete: Iterable[Key], *, full: bool = False, settings: Attributes | None = None
) -> list[Output]:
    """Return `Configure` messages of limited size. Records come before tunnels that name them; deletions after."""
    records = sorted(put, key=lambda record: _RANK[record.key[0]])
    keys = tuple(sorted(delete, key=lambda key: -_RANK[key[0]]))
    outputs: list[Output] = []
    if full or keys or records:
        count = len(records)
        first = Configure(
            tuple(records[:MAX_RECORDS_PER_MESSAGE]),
            keys,
            full,
            settings or {},
            more=count > MAX_RECORDS_PER_MESSAGE,
        )
        rest = [
            Configure(tuple(records[at : at + MAX_RECORDS_PER_MESSAGE]), more=at + MAX_RECORDS_PER_MESSAGE < count)
            for at in range(MAX_RECORDS_PER_MESSAGE, count, MAX_RECORDS_PER_MESSAGE)
        ]
        outputs += [ToIke(message) for message in (first, *rest)]
    return outputs
