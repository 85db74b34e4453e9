"""Where something was measured: the machine, what else it did, and the versions of what took part."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["busy", "machine", "most_memory", "versions"]

PACKAGES = (
    "duckdb",
    "ibis-framework",
    "pyarrow",
    "numpy",
    "pandas",
    "polars",
    "lightgbm",
    "shap",
    "mlflow",
    "bentoml",
    "woodelf-explainer",
)


def machine() -> str:
    """Return the name of the processor, the number of cores, the memory, and the system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()} {platform.release()}"


def _processor() -> str:
    """Return the name that Linux gives; elsewhere, and where it gives none, the kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def most_memory() -> float:
    """Return the most memory that this process has held so far, in GiB.

    What `getrusage` says on Linux is at least what the process that started this one had held, so the kernel's own count comes first.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (kibibytes[0] if kibibytes else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20


def busy() -> str:
    """Return how many processes ran or waited for a core on average over the last minute, our own among them."""
    return f"{os.getloadavg()[0]:.1f} processes at work on {os.cpu_count()} cores"


def versions() -> str:
    """Return the versions of Python and of the libraries that take part, and which of them are not installed."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
