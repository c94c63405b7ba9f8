"""The family `restyle`: its files are found by name, see `export/families`."""
