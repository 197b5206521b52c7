"""How much a large cluster sends and computes: the real cores, hundreds of nodes, and every byte counted."""
