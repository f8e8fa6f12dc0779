"""`python -m experiments.bench NAME [arguments]` runs `main` of the module NAME beside this file."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    names = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        said = f"there is no measurement {sys.argv[1]!r}; " if len(sys.argv) > 1 else ""
        print(f"{said}usage: python -m experiments.bench {{{','.join(names)}}} [arguments]", file=sys.stderr)
        raise SystemExit(2)
    import_module(f"experiments.bench.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
