"""Parts of an attack, each a change to one place of its loop."""
