"""The state tables of both versions: every state can end, and nothing leads on from there."""

from __future__ import annotations

from chassis.ase.ike.v1 import isakmp_sa
from chassis.ase.ike.v2 import child_sas, ike_sa


def test_every_state_can_end() -> None:
    event, closed = isakmp_sa.Phase1Event.CLOSE, isakmp_sa.Phase1State.CLOSED
    for phase_1 in set(isakmp_sa.Phase1State) - {closed}:
        assert isakmp_sa.PHASE_1.transition(phase_1, event)[0] is closed
    for machine, last in (
        (ike_sa.IKE_SA, ike_sa.IkeSaState.CLOSED),
        (child_sas.CHILD_SA, child_sas.ChildSaState.DELETED),
    ):
        assert machine.table[last] == {}
        for state, row in machine.table.items():
            assert state is last or last in {after for after, _ in row.values()}, state
