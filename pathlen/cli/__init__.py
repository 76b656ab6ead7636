"""The command ``pathlen``."""
