"""The door to merging: models of one architecture become one. ``python merge.py --help``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from cli.disk_errors import reason_of
from cli.notices import quiet

DESCRIPTION = """\
Merge Hugging Face folders, or hub ids, by their weights: theta_i are the models, theta_0 is --base, tau_i = theta_i -
theta_0. Tensors are merged one at a time, so that memory does not grow with the models (docs/merging.md).

  linear           sum w_i theta_i, w summing to 1
  slerp            along the arc between two models
  task_arithmetic  theta_0 + scale sum w_i tau_i
  ties             the largest entries of each tau (--density), where most of them agree in sign, averaged
  dare_linear      as task_arithmetic, after entries of tau were dropped at random (--drop_rate) and the rest scaled up
  dare_ties        as ties, with entries dropped at random
  dare_sequential  dropped at random, one model folded in after the other (Prometheus 2 8x7B)

  python merge.py direct pairwise --out judge
  python merge.py direct pairwise --out judge --method dare_linear --base mistralai/Mistral-7B-Instruct-v0.2

A run is exported first (export.py). LoRA adapters of one base, merged linearly, become one adapter.
"""


def main(args: list[str] | None = None) -> None:
    """Read the command line; what its user can mend is said without a traceback."""
    parser = ArgumentParser("merge.py", None, DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="the models, two or more")
    parser.add_argument("--out", required=True, help="where to write: a new or an empty folder")
    parser.add_argument("--method", default="linear", help="see above (default: linear)")
    parser.add_argument("--base", help="what the models were trained from")
    parser.add_argument("--alpha", type=float, help="weights of two models: alpha and 1 - alpha")
    parser.add_argument("--weights", type=float, nargs="+", help="one per model (default: equal where they sum, or 1)")
    parser.add_argument("--scale", type=float, help="lambda (default: 1)")
    parser.add_argument("--density", type=float, help="share of entries that ties keeps (default: 0.2)")
    parser.add_argument("--drop_rate", type=float, help="chance that DARE drops an entry (default: 0.1)")
    parser.add_argument("--rescale", type=float, help="factor of what is left (default: 1 / (1 - drop_rate))")
    parser.add_argument("--seed", type=int, help="of what is dropped (default: 0)")
    parser.add_argument("--average", nargs="+", help="dare_sequential: parts of names of tensors that are averaged")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has files in it")
    given = {key: value for key, value in vars(parser.parse_args(args)).items() if value is not None}
    quiet()
    try:
        from lm.merging.folders import merge  # with torch, which --help does not wait for

        print(f"{' + '.join(given['folders'])} -> {merge(**given)}")
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        sys.exit(f"error: {reason}")


if __name__ == "__main__":
    main()
