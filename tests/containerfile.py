"""Reads the Containerfile for its tests."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTAINERFILE", "Step", "steps"]

CONTAINERFILE = Path(__file__).parent.parent / ".container" / "Containerfile"


@dataclass(frozen=True)
class Step:
    """One instruction of one stage, counted from 0."""

    stage: int
    word: str
    rest: str

    @property
    def words(self):
        """The words of the instruction, options such as `--from=build` among them."""
        listed = self.rest[self.rest.find("[") :] if self.word in {"CMD", "HEALTHCHECK"} else ""
        return json.loads(listed) if listed else shlex.split(self.rest)


def steps():
    text = re.sub(r"\\\n\s*", " ", CONTAINERFILE.read_text(encoding="utf-8"))
    found, stage = [], -1
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            stage += word == "FROM"
            found.append(Step(stage, word, rest))
    return found
