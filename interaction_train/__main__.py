"""``python -m interaction_train`` is the command ``interaction-train``."""

from interaction_train.cli.main import main

if __name__ == "__main__":
    main()
