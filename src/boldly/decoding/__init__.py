"""Decoders as folders that other people use: how one is made, loaded, and applied to new people."""
