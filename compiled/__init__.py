"""The compiled build: which modules mypyc compiles, how, and what its C compiler learns from a training run."""
