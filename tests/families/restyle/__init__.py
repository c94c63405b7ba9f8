"""The model family `restyle`; `export/families` finds its files by their names."""
