"""Style transfer by optimisation of the pixels (Gatys et al. 2015, arXiv 1508.06576). export/stylize.py is its command.

A picture gets the content of one picture and the style of another. No generator is trained; every picture takes minutes.
"""
