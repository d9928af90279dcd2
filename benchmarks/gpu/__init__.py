"""Checks and speeds of the training steps on a GPU. Needs torch, and nothing else of the project's
requirements; see `__main__`."""
