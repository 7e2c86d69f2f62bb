"""What one GPU does: a BERT-base teacher and its 4-layer student, alone and side by side.

    python benchmarks/gpu.py                       # some minutes on one GPU
    python benchmarks/gpu.py --quick --device cpu  # tiny: shows that it runs, says nothing about speed

Needs of stkd only `stkd.trainers`, neither Ray nor MLflow, and beside its libraries `rich` for the table. Reads no data
and asks no hub: weights are random, texts are as long as MRPC's.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from measuring import ON_CPU, RESULTS

NO_GPU = 2


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models and sizes")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=(16, 32, 128))
    parser.add_argument("--side-by-side", type=int, nargs="+", default=(1, 2, 4, 8))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="for how long students run side by side")
    parser.add_argument("--out", type=Path, help=f"where the table is filed; {RESULTS}, or for --quick nowhere")
    asked = parser.parse_args()
    if asked.device == "cpu":
        os.environ.update(ON_CPU)
    elif not torch.cuda.is_available():
        print("gpu.py: PyTorch finds no GPU here; --quick --device cpu shows that the bench runs", file=sys.stderr)
        sys.exit(NO_GPU)
    from device_rates import Plan, run  # loads DeepSpeed, which looks for its device at once

    plan = Plan(asked.quick, tuple(asked.batch_sizes), tuple(asked.side_by_side), asked.repeats, asked.seconds)
    run(plan.at_most_tiny() if asked.quick else plan, asked.out or (None if asked.quick else RESULTS))


if __name__ == "__main__":
    main()
