"""Stage One, step 1: which words explain a picture."""
