"""An IKE SA of version 2 as the engine sees it: messages dispatched, timers run, commands carried out.

Each exchange of RFC 7296 has a module: `ike_sa_init`, `ike_auth`, `create_child_sa`, `rekey_ike_sa` and
`informational`. `IkeSa` is what they work on, and `RESPONDERS` says which of them responds to the peer's request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from chassis.ase.ike.connections import Connection, PolicyEntry
from chassis.ase.ike.crypto.ikev2 import IntegrityError
from chassis.ase.ike.errors import error_v2
from chassis.ase.ike.host import SOFT_LIFETIME_REACHED, IkeHost, NetworkPath
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2, parse_payloads, without_cookie
from chassis.ase.ike.payloads.v2_payloads import Encrypted, EncryptedFragment, NotifyV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.v2 import create_child_sa, ike_auth, ike_sa_init, informational, rekey_ike_sa
from chassis.ase.ike.v2.child_sas import ChildSaEvent, ChildSaState, ChildSaV2
from chassis.ase.ike.v2.ike_sa import (
    ESTABLISHED_STATES,
    HALF_OPEN_STATES,
    CurrentRequest,
    IkeSa,
    IkeSaEvent,
    IkeSaState,
)
from chassis.ase.ike.v2.keymat import Assembly
from chassis.ase.ike_messages import SaExpire
from chassis.bus.messages import PeerAnswer
from chassis.net.address import format_address

Responder = Callable[[IkeSa, tuple[PayloadV2, ...], float], None]
"""Responds to a request of the peer: authentic, decrypted and decoded. The last argument is the time."""


def _respond_to_create_child_sa(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """Respond to CREATE_CHILD_SA, by the protocol of its first proposal: IKE rekeys the IKE SA (RFC 7296 1.3)."""
    offered = next((one for one in payloads if isinstance(one, SaV2)), None)
    if offered is not None and offered.proposals[0].protocol == Protocol.IKE:
        rekey_ike_sa.respond(sa, payloads, now)
    else:
        create_child_sa.respond(sa, payloads, now)


RESPONDERS: Final[Mapping[int, Responder]] = MappingProxyType(
    {
        ExchangeType.IKE_AUTH: ike_auth.respond,
        ExchangeType.CREATE_CHILD_SA: _respond_to_create_child_sa,
        ExchangeType.INFORMATIONAL: informational.respond,
    }
)
"""Responders of encrypted exchanges; IKE_SA_INIT, in clear, has one of its own signature."""


class SessionV2(IkeSa):
    """An IKE SA with what the engine calls; see `chassis.ase.ike.host.Session`."""

    __slots__ = ()

    @classmethod
    def initiate(cls, host: IkeHost, connection: Connection, path: NetworkPath) -> SessionV2:
        """Return a session that initiates with `start`."""
        return cls(host, path, connection, True, host.new_ike_spi(), bytes(8))

    @classmethod
    def respond(cls, host: IkeHost, path: NetworkPath, header: Header) -> SessionV2:
        """Return the responder's session; `header` is of the IKE_SA_INIT request to give to `receive` next."""
        return cls(host, path, None, False, host.new_ike_spi(), header.spi_i)

    # --- commands of the engine ---

    def start(self, now: float) -> None:
        self.created_at = now
        self.deadline = now + self.host.settings.half_open_timeout
        self.host.count("negotiations initiated")
        self.transition(IkeSaEvent.START)
        self.enqueue_task(ike_sa_init.IkeSaInitTask())
        self.send_next_request(now)

    def negotiate(self, entry: PolicyEntry, replaces: int, now: float) -> None:
        if self.closed:
            return
        if self.state in HALF_OPEN_STATES:
            self.pending_entries[entry.seq] = None
            return
        old = self.child_sas.by_serial.get(replaces)
        if self.is_negotiating(entry.seq) or (old is None and self.child_sas.has_child(entry.seq)):
            return
        self.enqueue_task(create_child_sa.CreateChildTask(entry, old))
        self.send_next_request(now)

    def rekey(self, now: float) -> None:
        if self.state is IkeSaState.ESTABLISHED and not self.is_rekeying:
            self.enqueue_task(rekey_ike_sa.RekeyIkeSaTask())
            self.send_next_request(now)

    def delete_child(self, serial: int, reason: str, now: float) -> None:
        child = self.child_sas.by_serial.get(serial)
        if child is not None and not self.closed:
            informational.close_child(self, child, reason)
            self.send_next_request(now)

    def close(self, reason: str, now: float, *, tell: bool = True, keep: bool = False) -> None:
        if tell:
            informational.close(self, reason, now)
        else:
            self.close_silently(reason, now)

    def on_child_expiring(self, serial: int, hard: bool, reason: str, now: float) -> None:
        child = self.child_sas.by_serial.get(serial)
        if child is None or self.closed:
            return
        if hard:
            informational.expire_child(self, child, reason, now)
        else:
            create_child_sa.rekey_child(self, child)
        self.send_next_request(now)

    def on_peer_uses_sa(self, serial: int, now: float) -> None:
        child = self.child_sas.by_serial.get(serial)
        if child is not None and child.state is ChildSaState.INBOUND_INSTALLED:
            self.activate_outbound(child)
        self.on_inbound_traffic(now)

    def on_inbound_traffic(self, now: float) -> None:
        self.last_received = max(self.last_received, now)

    def on_peer_answer(self, answer: PeerAnswer, now: float) -> None:
        handler, self.suspended = self.suspended, None
        if handler is not None:
            handler(answer, now)
        self.send_next_request(now)

    def on_configuration(self, connection: Connection, now: float) -> None:
        self.connection = connection

    def secrets(self) -> list[dict[str, str]]:
        return [] if self.keymat is None else self.keymat.wireshark_rows(self.spi_i, self.spi_r)

    # --- messages received (RFC 7296 2.1 to 2.3, 2.5, 2.21; RFC 7383) ---

    def receive(self, data: bytes, header: Header, path: NetworkPath, now: float) -> None:
        if self.closed:
            return
        self._receive(data, path, now)
        if self.state is IkeSaState.CREATED:
            # Not an IKE_SA_INIT request after all: nothing is kept for its sender.
            self.terminate("not an IKE_SA_INIT request", now)
        self.send_next_request(now)

    def _receive(self, data: bytes, path: NetworkPath, now: float) -> None:
        try:
            message = MessageV2.parse(data)
        except PayloadError as error:
            self.host.count("messages malformed")
            self.log_payload_error(error, now)
            if self.state is IkeSaState.CREATED:
                self.current_request = CurrentRequest(path, ExchangeType.IKE_SA_INIT, data)
                ike_sa_init.IkeSaInitResponder(self, path, now).refuse_malformed(error)
            return
        header = message.header
        if header.exchange == ExchangeType.IKE_SA_INIT:
            self._on_ike_sa_init(message, data, path, now)
        elif (
            self.keymat is None
            or (header.spi_i, header.spi_r) != (self.spi_i, self.spi_r)
            or header.from_initiator == self.initiator
        ):
            self.host.count("messages dropped")
        elif header.is_response and all(isinstance(one, NotifyV2) for one in message.payloads):
            self._on_cleartext_error(now)
        elif header.is_response:
            self._on_response(message, data, path, now)
        else:
            self._on_request(message, data, path, now)

    def _on_cleartext_error(self, now: float) -> None:
        """Ignore an unprotected error (RFC 7296 2.21.4). If DPD is on, send the next probe now, at most once per
        `dpd_interval`."""
        self.host.count("cleartext errors")
        interval = self.host.settings.dpd_interval
        if now - self.last_cleartext_error >= interval:
            self.last_cleartext_error = now
            self.last_received = min(self.last_received, now - interval)

    def on_invalid_spi(self, spi: bytes, now: float) -> None:
        if any(spi in child.spis_out.values() for child in self.child_sas.by_serial.values()):
            self._on_cleartext_error(now)

    def _on_ike_sa_init(self, message: MessageV2, data: bytes, path: NetworkPath, now: float) -> None:
        """Handle an IKE_SA_INIT message. A repeated request gets the stored response; anything else is dropped
        once keys exist."""
        header, pending = message.header, self.task_manager.pending_request
        if header.is_response:
            ours = header.spi_i == self.spi and self.initiator and header.message_id == 0
            task = None if pending is None else pending.task
            if ours and isinstance(task, ike_sa_init.IkeSaInitTask):
                task.on_init_response(self, message, data, path, now)
            else:
                self.host.count("messages dropped")
            return
        if self.initiator or header.message_id or not header.from_initiator or header.spi_i != self.peer_spi:
            self.host.count("messages dropped")
            return
        self._take_cookie(data)
        if self._is_retransmission(message, data, path, now):
            return
        if self.state is not IkeSaState.CREATED:
            self.host.count("messages dropped")
            return
        self.created_at = now
        self.deadline = now + self.host.settings.half_open_timeout
        self.host.count("negotiations responded")
        self.current_request = CurrentRequest(path, header.exchange, data)
        ike_sa_init.IkeSaInitResponder(self, path, now).respond(message, data)

    def _take_cookie(self, data: bytes) -> None:
        """Take a request that differs from the one that was answered by its cookie alone in place of that one.

        The initiator was asked for a cookie, and its first request was answered later all the same: it signs the
        newest one (RFC 7296 2.6, 2.15).
        """
        last = self.task_manager.last_response
        if (
            last is not None
            and self.first_message_received
            and last.clear == self.first_message_received != data
            and without_cookie(data) == without_cookie(last.clear)
        ):
            self.first_message_received = data
            last.clear = data

    def _is_retransmission(self, message: MessageV2, data: bytes, path: NetworkPath, now: float) -> bool:
        """Return whether the request was answered before; if it was, resend the response to an authentic one."""
        last = self.task_manager.last_response
        if last is None or message.header.message_id != last.message_id:
            return False
        if data == last.clear or (not last.clear and self._is_authentic(message, data)):
            self.host.count("responses resent")
            self.send_datagrams(last.datagrams, path, now)
        else:
            self.host.count("messages dropped")
        return True

    def _is_authentic(self, message: MessageV2, data: bytes) -> bool:
        """Return whether the peer sent this message: whole, or its first fragment.

        The peer may fragment a retransmission differently, so the other fragments are ignored (RFC 7383 2.6.1).
        """
        payload = message.payloads[-1] if message.payloads else None
        if isinstance(payload, EncryptedFragment):
            if payload.number != 1 or not self.fragmentation:
                return False
        elif not isinstance(payload, Encrypted):
            return False
        try:
            self.ike_keymat.receiving.decrypt_payload(data, payload)
        except IntegrityError:
            self.host.count("integrity failures")
            return False
        except PayloadError:
            pass  # Authentic, and answered as what it is.
        return True

    def _decrypt(self, message: MessageV2, data: bytes) -> tuple[int, bytes] | None:
        """Return (type of the first payload, plaintext) of a message; None while fragments are missing.

        Raises:
            IntegrityError: the message is not the peer's.
            PayloadError: the message is authentic, but its padding is wrong.
        """
        header = message.header
        payload = message.payloads[-1] if message.payloads else None
        if isinstance(payload, Encrypted):
            return payload.first, self.ike_keymat.receiving.decrypt_payload(data, payload)
        if not isinstance(payload, EncryptedFragment) or not self.fragmentation:
            raise IntegrityError("payload", "missing")
        known = self.assemblies.get(header.is_response)
        assembly = Assembly() if known is None else known
        if not assembly.needs(header.message_id, payload):
            return None
        plain = self.ike_keymat.receiving.decrypt_payload(data, payload)
        self.assemblies[header.is_response] = assembly
        whole = assembly.add(header.message_id, payload, plain)
        if not assembly.parts:
            del self.assemblies[header.is_response]
        return whole

    def _read(self, message: MessageV2, data: bytes, now: float) -> tuple[PayloadV2, ...] | PayloadError | None:
        """Return the payloads of an authentic message, or its error; None for a message to ignore."""
        try:
            decrypted = self._decrypt(message, data)
            if decrypted is None:
                return None
            payloads = parse_payloads(decrypted[0], memoryview(decrypted[1]), decrypted=True)
            self.check_payloads(payloads, now)
        except IntegrityError:
            self.host.count("integrity failures")
            return None
        except PayloadError as error:
            self.host.count("messages malformed")
            self.last_received = now
            self.log_payload_error(error, now)
            return error
        self.last_received = now
        return payloads

    def _on_response(self, message: MessageV2, data: bytes, path: NetworkPath, now: float) -> None:
        """Hand the response to the pending request to its task."""
        header, pending = message.header, self.task_manager.pending_request
        if (
            pending is None
            or header.message_id != pending.message_id
            or header.exchange != pending.task.exchange_type
        ):
            self.host.count("messages dropped")
            return
        payloads = self._read(message, data, now)
        if payloads is None:
            return
        self._update_path(path, half_open=False)
        task = self.task_manager.complete()
        if isinstance(payloads, PayloadError):
            task.on_malformed_response(self, str(payloads), now)
        else:
            task.on_response(self, payloads, now)

    def _on_request(self, message: MessageV2, data: bytes, path: NetworkPath, now: float) -> None:
        """Respond to an encrypted request of the peer, or resend the stored response."""
        header = message.header
        if self._is_retransmission(message, data, path, now):
            return
        half_open = self.state is IkeSaState.INIT_RECEIVED
        early = self.state in HALF_OPEN_STATES and not half_open
        if (
            header.message_id != self.task_manager.expected_message_id
            or early
            or (half_open and header.exchange != ExchangeType.IKE_AUTH)
        ):
            self.host.count("messages dropped")
            return
        payloads = self._read(message, data, now)
        if payloads is None:
            return
        self.current_request = CurrentRequest(self.path if path == self.path else path, header.exchange)
        self._update_path(path, half_open=half_open)
        if isinstance(payloads, PayloadError):
            notify = payloads.notify or NotifyTypeV2.INVALID_SYNTAX
            self.reply((NotifyV2(notify, payloads.data),), now)
            if half_open:
                self.abort(error_v2(notify, str(payloads)), now)
            return
        responder = RESPONDERS.get(header.exchange)
        if responder is None or (header.exchange == ExchangeType.IKE_AUTH and not half_open):
            self.reply((NotifyV2(NotifyTypeV2.INVALID_SYNTAX),), now)
        else:
            responder(self, payloads, now)

    def _update_path(self, path: NetworkPath, *, half_open: bool) -> None:
        """Follow the peer to another address or port: to port 4500 with IKE_AUTH, and at any time if the peer
        alone is behind a NAT, for an authentic message shows where it is (RFC 7296 2.23)."""
        behind_nat = self.nat.peer_behind_nat and not self.nat.local_behind_nat
        if path != self.path and (half_open or behind_nat):
            self.change_path(path)

    # --- timers (RFC 7296 2.4, 2.8; RFC 3948 4) ---

    def next_timer(self) -> float:
        if self.closed:
            return math.inf
        at = self.deadline
        if self.task_manager.pending_request is not None:
            at = min(at, self.task_manager.pending_request.retransmission.due)
        if self.state in ESTABLISHED_STATES:
            at = min(at, self.hard, self._next_probe(), self._next_nat_keepalive())
            if self.state is IkeSaState.ESTABLISHED:
                at = min(at, self.soft)
            for due, _ in self.postponed_tasks:
                at = min(at, due)
            for child in self.child_sas.by_serial.values():
                at = min(at, child.hard)
                if child.allows(ChildSaEvent.REKEY):
                    at = min(at, child.soft)
        return at

    def on_timer(self, now: float) -> None:
        self._run_timers(now)
        self.send_next_request(now)

    def _run_timers(self, now: float) -> None:
        if self.closed:
            return
        if now >= self.deadline:
            self._on_deadline(now)
            return
        pending = self.task_manager.pending_request
        if pending is not None and now >= pending.retransmission.due and not self._retransmit(now):
            return
        if self.state not in ESTABLISHED_STATES:
            return
        if now >= self.hard:
            self.close("the lifetime of the IKE SA is over", now)
            return
        self._run_lifetimes(now)
        if now >= self._next_probe():
            self.enqueue_task(informational.DpdTask())
        if now >= self._next_nat_keepalive():
            self.send_datagrams((b"",), self.path, now)

    def _next_probe(self) -> float:
        """Return when to probe a peer that was silent for `dpd_interval`; any pending request is a probe too."""
        connection = self.connection
        if connection is None or not connection.keepalive or self.task_manager.pending_request is not None:
            return math.inf
        return self.host.settings.probe_due(self.spi, self.last_received, self.host.probe_phase)

    def _next_nat_keepalive(self) -> float:
        return (
            self.last_sent + self.host.settings.nat_keepalive_interval if self.nat.local_behind_nat else math.inf
        )

    def _on_deadline(self, now: float) -> None:
        """End an IKE SA that was in a transient state for too long."""
        if self.state in HALF_OPEN_STATES or self.state is IkeSaState.DELETING:
            self.on_no_response(now)
        else:
            self.close(self.delete_reason or "the peer did not delete it in time", now)

    def _retransmit(self, now: float) -> bool:
        """Send the pending request again. Return False if that ended the IKE SA."""
        pending = self.task_manager.pending_request
        assert pending is not None
        retransmission, settings = pending.retransmission, self.host.settings
        if not retransmission.advance(now):
            probing = settings.dpd_interval * settings.dpd_retries
            if not pending.task.liveness_check or self.last_received < retransmission.due - probing:
                self.on_no_response(now)
                return False
            # The peer sent packets meanwhile: it was alive then. Try on until it is silent for as long.
            retransmission.set_fixed_interval(settings.dpd_interval, 1, now)
        self.host.count("retransmissions")
        self.send_datagrams(retransmission.datagrams, self.path, now)
        return True

    def _run_lifetimes(self, now: float) -> None:
        """Enqueue postponed requests, rekey or expire CHILD SAs, rekey the IKE SA, as they are due."""
        due = [task for at, task in self.postponed_tasks if at <= now]
        self.postponed_tasks = [(at, task) for at, task in self.postponed_tasks if at > now]
        for task in due:
            self.enqueue_task(task)
        for child in list(self.child_sas.by_serial.values()):
            if now >= child.hard:
                informational.expire_child(self, child, child.reason or "its lifetime is over", now)
            elif now >= child.soft and child.allows(ChildSaEvent.REKEY):
                self.host.send_to_dataplane(SaExpire(self.tunnel, child.serial, False, SOFT_LIFETIME_REACHED))
                create_child_sa.rekey_child(self, child)
        if self.task_manager.message_ids_low:
            self.soft = min(self.soft, now)
        if now >= self.soft and self.state is IkeSaState.ESTABLISHED:
            self.soft = math.inf
            if not self.is_rekeying:
                self.enqueue_task(rekey_ike_sa.RekeyIkeSaTask())

    # --- for operators ---

    def describe(self) -> dict[str, Any]:
        """Return the IKE SA for `show` and `--json`, without keys; times are of the monotonic clock."""
        path, keymat = self.path, self.keymat
        algorithms: dict[str, Any] = {}
        if keymat is not None:
            choice = keymat.choice
            algorithms = {
                "cipher": choice.cipher.name,
                "integrity": None if choice.integrity is None else choice.integrity.name,
                "prf": choice.prf.name,
                "group": choice.group,
            }
        return {
            "version": 2,
            "state": self.state.value,
            "initiator": self.initiator,
            "spi_i": self.spi_i.hex(),
            "spi_r": self.spi_r.hex(),
            "tunnel": self.tunnel,
            "local": format_address(path.local),
            "local_port": path.local_port,
            "remote": format_address(path.remote),
            "remote_port": path.remote_port,
            "identity": str(self.connection.identity) if self.connection is not None else "",
            "peer_identity": "" if self.peer_identity is None else str(self.peer_identity),
            "nat_here": self.nat.local_behind_nat,
            "nat_there": self.nat.peer_behind_nat,
            "fragmentation": self.fragmentation,
            "algorithms": algorithms,
            "since": self.created_at,
            "rekey": _time(self.soft),
            "expires": _time(self.hard),
            "children": [_describe_child(child) for child in self.child_sas.by_serial.values()],
        }


def _time(at: float) -> float | None:
    return None if math.isinf(at) else at


def _describe_child(child: ChildSaV2) -> dict[str, Any]:
    suite = child.suite
    return {
        "serial": child.serial,
        "entry": child.entry.seq,
        "state": child.state.value,
        "initiator": child.initiator,
        "ah": suite.ah,
        "cipher": suite.cipher,
        "integrity": suite.esp_integrity,
        "esn": suite.esn,
        "group": suite.group,
        "ipcomp": child.cpi_out != 0,
        "inbound": {Protocol(number).name: spi.hex() for number, spi in child.spis_in.items()},
        "outbound": {Protocol(number).name: spi.hex() for number, spi in child.spis_out.items()},
        "since": child.created_at,
        "rekey": _time(child.soft),
        "expires": _time(child.hard),
    }
