"""Decoders of mental states without gradient steps: frozen encoders, read-outs of their states, classifiers."""
