"""Decoders of mental states: frozen encoders, read-outs of their states, linear classifiers in closed or convex form."""
