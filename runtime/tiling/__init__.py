"""The tiler: cuts a picture into tiles, runs a network over them and stitches the outputs. The project has no other.

    geometry        cuts a picture's area into overlapping windows and groups them into bands of rows
    padding         grows a picture to a size that the network takes
    passes          maps the picture's channels to the network's, in one or more passes
    canvas          assembles the outputs of tiles
    tiled_picture   all of these for one picture: input rows, jobs for a scheduler, output rows
    inline          the same on the calling thread, from array to array, for build, evaluation and benchmarks

For requests, runtime/picture_work.py calls tiled_picture between reading and writing files.
"""
