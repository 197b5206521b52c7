"""Two versions of lockring next to each other: the previous one, from the repository's history, and this one."""
