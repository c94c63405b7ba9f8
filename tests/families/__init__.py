"""Three model families that the project does not have. tests/export/test_new_families.py adds them to a copy of the tree.

Each folder is what a newcomer would write: nothing beside it is edited. Nothing in them imports a file of its own
family, so that they can also be checked and used from here.
"""
