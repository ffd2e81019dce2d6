"""Print the figures of quickstart runs as a Markdown table: python benchmarks/quickstart.py runs/quickstart-seed*

Runs that are not there yet are made first: python benchmarks/quickstart.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SYSTEMS = ("cold_start", "retool", "text_only", "retool_without_interpreter")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="make these runs in runs/ if need be")
    args = parser.parse_args()
    folders = list(args.runs)
    for seed in args.seeds:
        folder = Path("runs") / f"quickstart-seed{seed}"
        words = ["quickstart", "--seed", str(seed), "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "retool", *words], check=True)
        folders.append(folder)
    print(f"| seed | seconds | CPU seconds | {' | '.join(name.replace('_', ' ') for name in SYSTEMS)} |")
    print("|---|---|---|" + "---|" * len(SYSTEMS))
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        cells = [
            f"{summary[s]['accuracy']:.3f} [{summary[s]['ci95'][0]:.2f}, {summary[s]['ci95'][1]:.2f}]" for s in SYSTEMS
        ]
        print(f"| {summary['seed']} | {summary['seconds']:.0f} | {summary['cpu_seconds']:.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
