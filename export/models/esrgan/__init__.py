"""The model family `esrgan`; `export/families` finds its files by their names."""
