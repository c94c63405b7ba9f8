"""The one tiler: what cuts a picture, runs a network over the pieces and puts them together again.

    geometry        which windows a picture is cut into, and which of them make a band of rows
    passes          which of the picture's channels the network is shown, one run after the other
    canvas          where the outputs are put together, as levels or as floats
    tiled_picture   all of it for one picture: planes in, jobs for a scheduler, rows of pixels out
    inline          the same on the calling thread, for arrays: build, evaluation and benchmarks

The server reads and writes files around it: `runtime/picture_work.py`.
"""
