"""`lockring lock`: run a command under locks."""
