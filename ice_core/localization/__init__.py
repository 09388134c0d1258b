"""Stage One: which things a picture shows, by name and mask."""
