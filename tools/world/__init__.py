"""Trains the bundled world's models from nothing: see `tools/train_world.py`."""
