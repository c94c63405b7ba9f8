"""The family `srresnet`: its files are found by name, see `export/families`."""
