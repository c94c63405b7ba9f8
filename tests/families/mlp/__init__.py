"""The model family `mlp`; `export/families` finds its files by their names."""
