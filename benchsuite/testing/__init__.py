"""Conformance checks for plugins."""
