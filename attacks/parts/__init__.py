"""Parts of an attack: what a step does to inputs, gradients and the model."""
