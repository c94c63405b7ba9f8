"""Three model families that the project does not have. tests/export/test_new_families.py adds them to a copy of the tree.

Each folder is all that the author of a new family has to write. No file imports another file of its family, so that linters
and tests can also use them from here.
"""
