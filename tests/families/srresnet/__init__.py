"""The model family `srresnet`; `export/families` finds its files by their names."""
