"""The model family `acgan`; `export/families` finds its files by their names."""
