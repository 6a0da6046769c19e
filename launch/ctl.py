"""`chassisctl`: looks at a running lab, and acts on it."""

from __future__ import annotations

from launch import ctl_bus, ctl_capture, ctl_cards, ctl_packets, ctl_tunnels
from launch.ctl_base import main

__all__ = ["ctl_bus", "ctl_capture", "ctl_cards", "ctl_packets", "ctl_tunnels", "main"]

if __name__ == "__main__":
    main()
