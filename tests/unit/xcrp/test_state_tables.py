"""The two state machines: every state has an answer to every event, and the answers that matter are these."""

from __future__ import annotations

from itertools import product

import pytest

from chassis.xcrp import cards, tunnels
from chassis.xcrp.cards import AdmissionAction, AdmissionEvent, AdmissionState, CardEntry


@pytest.mark.parametrize(("state", "event"), list(product(AdmissionState, AdmissionEvent)))
def test_card_table_has_every_pair(state: AdmissionState, event: AdmissionEvent) -> None:
    entry = CardEntry("asp 1/1", "asp", state)
    action = entry.transition(event)
    assert isinstance(action, AdmissionAction)
    # Whoever was listened to and no longer is has lost its epoch; nobody else has.
    listening = (AdmissionState.SYNCHRONISING, AdmissionState.USABLE)
    fenced = action in (AdmissionAction.FENCE, AdmissionAction.FENCE_AND_UNSUBSCRIBE)
    if state in listening:
        assert fenced == (entry.state not in listening)
    # A card becomes usable in two ways only: it reported its snapshot, or it outlived its controller.
    if entry.state is AdmissionState.USABLE and state is not AdmissionState.USABLE:
        assert (state, event) in {
            (AdmissionState.SYNCHRONISING, AdmissionEvent.SYNCHRONISED),
            (AdmissionState.RESTORED, AdmissionEvent.HELLO_RESUMED),
        }
    # A new start of a process never goes on under the epoch of the one before.
    if event is AdmissionEvent.HELLO_NEW:
        assert (entry.state, action) == (AdmissionState.SYNCHRONISING, AdmissionAction.ADMIT)
    if event is AdmissionEvent.DIED:
        assert entry.state is AdmissionState.ABSENT
    if action is AdmissionAction.IGNORE:
        assert entry.state is state


@pytest.mark.parametrize(("state", "event"), list(product(tunnels.TunnelStatus, tunnels.TunnelStatusEvent)))
def test_tunnel_table_is_the_product_of_two_flags(
    state: tunnels.TunnelStatus, event: tunnels.TunnelStatusEvent
) -> None:
    flags = {
        tunnels.TunnelStatus.DOWN: (False, False),
        tunnels.TunnelStatus.PREPARED: (False, True),
        tunnels.TunnelStatus.WAITING: (True, False),
        tunnels.TunnelStatus.UP: (True, True),
    }
    met, installed = flags[state]
    if event in (tunnels.TunnelStatusEvent.MET, tunnels.TunnelStatusEvent.UNMET):
        met = event is tunnels.TunnelStatusEvent.MET
    else:
        installed = event is tunnels.TunnelStatusEvent.INSTALLED
    made = tunnels.ControllerTunnel(state)
    flipped = made.take(event, 5.0)
    assert flags[made.state] == (met, installed)
    assert flipped == ((state is tunnels.TunnelStatus.UP) != made.up)
    assert made.since == (5.0 if flipped else 0.0)


def test_allowance_for_a_late_watcher() -> None:
    watch = cards.HeartbeatMonitor(0.5, 1.0)
    entry = watch.cards["lc 3"] = CardEntry("lc 3", "linecard", AdmissionState.USABLE, last_heartbeat=10.0)
    assert watch.next_timer() == 10.5
    watch.extend_deadlines(3.0, 13.2)
    assert watch.pop_expired(13.2) == []
    assert watch.next_timer() == 13.5
    assert watch.pop_expired(13.5) == [(entry, AdmissionEvent.SILENCE)]
    # It never counts a card as heard later than now.
    watch.extend_deadlines(60.0, 14.0)
    assert entry.last_heartbeat == 14.0
