"""Stores of the coordinators' state: in memory, in a directory, in etcd, and in PostgreSQL."""
