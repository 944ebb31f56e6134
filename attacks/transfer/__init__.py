"""How well adversarial examples transfer to other models."""
