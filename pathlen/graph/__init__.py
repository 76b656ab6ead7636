"""The path graph: arrays, how they are built, checked, cut, converted and kept in files."""
