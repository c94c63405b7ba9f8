"""The family `dcgan`: its files are found by name, see `export/families`."""
