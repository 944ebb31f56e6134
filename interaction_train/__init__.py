"""Game-theoretic interactions between the input variables of neural networks.

``import interaction_train as it`` is cheap: what the stub beside this file lists is imported when
it is first used.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("interaction-train")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
