"""`ganforge doctor`: what this machine has, what each backend says, and whether a server would start here.

server/cli.py calls `command.main`. machine.py and software.py need only the base installation; the others are imported when
the serve extra is there.
"""
