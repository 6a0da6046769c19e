"""Benchmarks: the cost of single steps, and the load that a whole lab carries (docs/style.md, Tests)."""
