"""Everything between a bundle and an answer: bundles, backends, tiles, scheduling, pictures. Never imports torch.

Server, build, evaluation and benchmarks call it; it imports none of our other packages.
"""
