"""Generates the stubs in `src/lockring/grpc_api/v1` from the `.proto` files here: `make proto`.

The stubs are committed, so that installing lockring needs no compiler. A test generates them again and compares.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PROTO: Final = ROOT / "proto"
TARGET: Final = ROOT / "src" / "lockring" / "grpc_api" / "v1"


def generate(target: Path) -> None:
    """Write the stubs of all `.proto` files to the directory `target`."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as scratch:
        plugin = Path(sys.executable).parent
        arguments = [
            "protoc",
            f"--proto_path={PROTO}",
            f"--plugin=protoc-gen-mypy={plugin / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugin / 'protoc-gen-mypy_grpc'}",
            f"--python_out={scratch}",
            f"--grpc_python_out={scratch}",
            f"--mypy_out=quiet:{scratch}",
            f"--mypy_grpc_out=quiet:{scratch}",
            *(str(path.relative_to(PROTO)) for path in sorted(PROTO.rglob("*.proto"))),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc has failed, see above")
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(scratch, "lockring", "v1").iterdir()):
            # The compiler derives the package from the path of the .proto file; ours lies within lockring.grpc_api.
            text = path.read_text(encoding="utf-8")
            text = text.replace("from lockring.v1 import", "from lockring.grpc_api.v1 import")
            text = text.replace("import lockring.v1.lockring_pb2", "import lockring.grpc_api.v1.lockring_pb2")
            text = text.replace("lockring.v1.lockring_pb2.", "lockring.grpc_api.v1.lockring_pb2.")
            (target / path.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    generate(TARGET)
