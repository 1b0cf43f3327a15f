"""Suites, statistics, comparison and reports. Engines are passed in; no torch."""
