"""A person's concepts, many pictures: kept in one folder, found again, gathered from whole folders."""
