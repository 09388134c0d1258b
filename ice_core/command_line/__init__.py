"""`ice`: arguments, commands, and progress for people."""
