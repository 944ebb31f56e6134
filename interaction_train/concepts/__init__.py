"""Sparse AND-OR concepts: what a network's decision is made of, with a proof of how few."""
