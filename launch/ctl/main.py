"""`chassisctl`: look at a running lab and act on it."""

from __future__ import annotations

from launch.ctl.base import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
