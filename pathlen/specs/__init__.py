"""Models named on the command line: files, modules, libraries, saved programs."""
