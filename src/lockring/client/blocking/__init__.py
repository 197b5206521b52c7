"""The blocking client: its public face is `lockring`."""
