"""`python -m tests.sim.stories`: write every story again, where it has changed."""

from __future__ import annotations

from tests.sim.stories.files import path_of, told
from tests.sim.stories.tales import TALES

if __name__ == "__main__":
    for name in TALES:
        path, text = path_of(name), told(name)
        is_new = not path.exists() or path.read_text(encoding="utf-8") != text
        if is_new:
            path.write_text(text, encoding="utf-8")
        print(f"{'written' if is_new else 'as it was':10} {path.name}")
