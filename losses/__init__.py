"""Interaction losses, one per file."""
