"""The model family `srgan`; `export/families` finds its files by their names."""
