"""Stateless draws of coalitions, groups and pairs."""
