"""The gRPC front: makes the core callable over gRPC. `Server` in front.py is the door."""
