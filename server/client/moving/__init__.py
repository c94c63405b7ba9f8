"""Moving pictures as the client reads and writes them: clips (with PyAV, the extra `video`) and animations (with Pillow).

server/client/moving_pictures.py takes a Source apart into frames, has them sent, and gives the answers to a Sink, which
keeps them in a folder of parts until all are there and the file can be put together. Nothing here calls a server.
"""
