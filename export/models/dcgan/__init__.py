"""The model family `dcgan`; `export/families` finds its files by their names."""
