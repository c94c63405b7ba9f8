"""The model families, one folder each. `export/families` finds them; nothing is listed anywhere."""
