"""How the built-in word list is made."""
