"""The Lightning module and its objective."""
