"""The model family `cyclegan`; `export/families` finds its files by their names."""
