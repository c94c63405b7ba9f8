"""The command `python -m protos.compile`: generates the Python modules beside `ganforge.proto`.

Run it after changing the proto. Needs grpcio-tools (the dev extra).
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = "protos/ganforge.proto"


def compile_protos(output: Path) -> None:
    """Write `protos/ganforge_pb2.py`, `.pyi` and `_pb2_grpc.py` under `output`. Raises RuntimeError if protoc fails."""
    from grpc_tools import protoc

    arguments = [
        f"-I{ROOT}",  # the repository's root, so that the generated modules import `protos.ganforge_pb2`
        f"--python_out={output}",
        f"--pyi_out={output}",
        f"--grpc_python_out={output}",
        PROTO,
    ]
    if protoc.main(["protoc", *arguments]) != 0:
        raise RuntimeError(f"protoc could not compile {PROTO}: see its messages above")


if __name__ == "__main__":
    compile_protos(ROOT)
    sys.stdout.write(f"compiled {PROTO}\n")
