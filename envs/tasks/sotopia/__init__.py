"""Sotopia: two people with private goals."""
