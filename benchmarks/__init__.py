"""Suites of layers, and the pytest-benchmark modules that time every backend on them."""
