"""Trains the bundled world's models from nothing: see `benchmarks/train_world.py`."""
