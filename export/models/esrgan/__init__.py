"""The family `esrgan`: its files are found by name, see `export/families`."""
