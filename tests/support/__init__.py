"""What tests share: engines with fakes around them, whole labs, peers and generators.

Tests import from here and never from one another.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The clone."""
CONFIGS = ROOT / "configs"
"""The labs that are shipped."""
REAL = Path(__file__).parent / "real"
"""Configurations in the style of real routers."""
