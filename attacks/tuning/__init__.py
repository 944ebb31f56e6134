"""Searching parts and settings of an attack."""
