"""The family `acgan`: its files are found by name, see `export/families`."""
