"""Game-theoretic interactions between the input variables of neural networks."""

from importlib.metadata import version

__version__ = version("interaction-train")
