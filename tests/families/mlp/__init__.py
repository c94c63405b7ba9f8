"""The family `mlp`: its files are found by name, see `export/families`."""
