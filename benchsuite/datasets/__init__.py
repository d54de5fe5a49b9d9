"""Readers of real formats and generators of their embedded twins."""
