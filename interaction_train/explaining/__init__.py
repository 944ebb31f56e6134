"""Explaining single predictions: what each part of an input, and each pair of parts, adds."""
