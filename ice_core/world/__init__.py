"""The bundled rendered world: seeded scenes with ground truth, and the small model trained on them."""
