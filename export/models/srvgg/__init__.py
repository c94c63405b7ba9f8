"""The model family `srvgg`; `export/families` finds its files by their names."""
