"""Reports and graphs as text: tables, terminals, files for other programs."""
