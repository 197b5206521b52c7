"""The workloads, a module for each; `table` lists them.

Nothing is imported here: each client's process loads what it needs.
"""
