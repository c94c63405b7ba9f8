"""The model family `style`; `export/families` finds its files by their names."""
