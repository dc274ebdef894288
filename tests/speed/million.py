"""The memory of training on a million utterances beside that of ten thousand: `python -m tests.speed.million`.

Writes both corpora into a temporary folder (1.6 GB for the larger), trains one epoch on each by `mer-bench run`, and
prints the most that the process held of its own and of mapped files.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.large_corpus import Size, held_by_run, install, prepare


def main() -> None:
    """Prepare, train, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="latefusion")
    parser.add_argument("--width", type=int, default=384, help="Of the features.")
    parser.add_argument("--utterances", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--batch-size", type=int, default=256)
    given = parser.parse_args()
    sizes = [Size(count, given.width) for count in given.utterances]
    with tempfile.TemporaryDirectory() as name:
        folder = install(Path(name), sizes)
        for size in sizes:
            prepare(size, folder)
            held = held_by_run(given.model, size, folder, given.batch_size)
            print(  # noqa: T201
                f"{given.model} on {size.utterances:,} utterances ({size.megabytes:,.0f} MB of features): "
                f"{held.anonymous:,.0f} MB of its own, {held.mapped:,.0f} MB of mapped files, {held.seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
