"""All the questions, in the order in which their answers are shown."""

from __future__ import annotations

from pathlib import Path

from mer_bench.doctor import holdings, installation, machine
from mer_bench.doctor.finding import Finding


def examine(root: Path, out: Path, thorough: bool = False) -> list[Finding]:
    """Examine the installation, the machine and the data; changes nothing.

    Args:
        root: The data folder. out: The folder of records.
        thorough: Compare all data by checksum, which reads them in full.
    """
    torch = machine.TorchProbe()
    asked = [
        *installation.versions(),
        *installation.extras(),
        *installation.plugins(root),
        *machine.threads(),
        *machine.memory(),
        *machine.folders({"data": root, "records": out}),
        *machine.clock(out),
        *holdings.data(root, thorough),
    ]
    devices = list(torch.findings())
    behind = sum(each.topic in ("versions", "extras", "plugins") for each in asked)
    return [*asked[:behind], *devices, *asked[behind:]]
