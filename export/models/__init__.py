"""The model families, one folder each. `export/families` finds them; there is no list of them."""
