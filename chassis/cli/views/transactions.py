"""Views of configuration mode: what its commands say."""

from __future__ import annotations

from typing import Final

from chassis.cli.views.layout import View

said: Final = View(lambda data, scope: list(data["lines"]))
"""What is said by the way, as lines."""
