"""The coordinator as a machine without I/O: members, slots, and the term in which it may decide."""
