"""`chassisctl`: look at a running lab and act on it. Importing the command modules adds them to the group."""

from __future__ import annotations

from launch.ctl import (
    bus_commands,
    capture_commands,
    card_commands,
    cli_commands,
    packet_commands,
    perf_command,
    tunnel_commands,
)
from launch.ctl.base import main

__all__ = [
    "bus_commands",
    "capture_commands",
    "card_commands",
    "cli_commands",
    "main",
    "packet_commands",
    "perf_command",
    "tunnel_commands",
]

if __name__ == "__main__":
    main()
