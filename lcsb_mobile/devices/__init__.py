"""Bringing bundles onto devices."""
