"""Benchmarks: what a step costs, and what the whole lab carries."""
