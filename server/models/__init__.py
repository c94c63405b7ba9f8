"""The models of a server, which come and go while it serves. `Models` is the door."""
