"""Perturbation crafting and transfer evaluation."""
