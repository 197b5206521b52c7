"""The client as a machine without I/O: what it holds and waits for, and the nodes it talks to."""
