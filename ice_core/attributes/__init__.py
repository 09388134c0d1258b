"""What an object is like: axes with their values, and reading them off a picture."""
