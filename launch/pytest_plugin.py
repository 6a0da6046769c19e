"""A pytest plugin: labs of real processes as fixtures, for this project's tests and for anybody else's."""

from __future__ import annotations
