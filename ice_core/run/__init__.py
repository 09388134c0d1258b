"""The whole method on one picture, with its folder, settings and report."""
