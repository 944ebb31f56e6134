"""The game v(S): masked copies of an input, evaluated by a network and reduced to numbers."""
