"""facellava: ask about a face, get an answer with reasons that can be checked.

The public door is :class:`facellava.predictor.FaceLlava`. This file imports nothing, so that the
command line and the light modules start fast.
"""

__version__ = "0.1.0"
