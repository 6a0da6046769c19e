"""What a forked process runs, by the kind of its card. Importing this imports everything: forks are warm."""

from __future__ import annotations

from collections.abc import Mapping

import chassis.ase.shell
import chassis.linecard.shell
import chassis.tester.shell
import chassis.xcrp.shell
from chassis.xcrp import inventory
from launch.processes import Room

ROOMS: Mapping[str, Room] = {
    inventory.CONTROLLER: chassis.xcrp.shell.run,
    inventory.LINE_CARD: chassis.linecard.shell.run,
    inventory.ASP: chassis.ase.shell.run,
    "tester": chassis.tester.shell.run,
}
