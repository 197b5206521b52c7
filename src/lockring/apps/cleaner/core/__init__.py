"""The decisions of the cleaner, without clock and I/O."""
