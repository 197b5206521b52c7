"""The lock node as a machine without I/O: its locks, sessions, copies and rights."""
