"""Compares many networks with the oracle: `python -m tests.spelling --networks 5000 --seed 0`."""

import argparse
import math
import sys

import torch

from tests.spelling.survey import survey


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.spelling", description=__doc__)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--alone", type=int, default=1, help="networks of each construct alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spellings", type=int, default=3, help="of each network")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which it ends")
    parser.add_argument("--examples", type=int, default=40, help="shown of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = survey(
        arguments.networks, arguments.seed, arguments.spellings, arguments.alone, arguments.seconds
    )
    print(*found.lines(arguments.examples), sep="\n")
    return int(found.agreeing < found.networks)


if __name__ == "__main__":
    sys.exit(main())
