"""Damaged and hostile files: whole ones of each kind with their readers, and ways to spoil them."""
