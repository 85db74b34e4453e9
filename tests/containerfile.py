"""Reads the Containerfile for its tests, and does its steps on this machine as far as they go without a container.

What differs: the folder of the image stands for the root of its file system; the Python is the one that runs the tests, or a copy of it
where the image's user may not look into its folder; packages come from uv's cache, as links and without bytecode; nothing is installed into
the system, and its user is a number.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTAINERFILE", "Image", "Step", "build", "steps"]

ROOT = Path(__file__).parent.parent
CONTAINERFILE = ROOT / ".container" / "Containerfile"


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


@dataclass(frozen=True)
class Image:
    """What the steps made.

    Parameters
    ----------
    root
        The folder that stands for the root of the image's file system.
    environ
        The variables that a container starts with.
    user
        The number of its user.
    where
        The folder that it starts in.
    """

    root: Path
    environ: dict[str, str]
    user: int
    where: Path

    def start(self, words, **options):
        """Start a command as in a container: as its user, where that is possible, and with nothing of this process's environment."""
        who = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        words = [shutil.which(words[0], path=self.environ["PATH"]), *words[1:]]
        return subprocess.Popen(words, cwd=self.where, env=self.environ, **who, **options)

    def run(self, words):
        """Run a command to its end, and return its status and what it said."""
        with self.start(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            said, _ = process.communicate(timeout=600)
        return process.returncode, said

    def give(self, folder):
        """Give a folder and all that is in it to the user."""
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.user, self.user)


def below(root, path):
    return root / path.lstrip("/")


def build(root):
    """Do the steps of both stages below a folder that others may look into."""
    _install(root, [step for step in steps() if step.stage == 0])
    last = [step for step in steps() if step.stage == 1]
    said = {step.word: step.rest for step in last}
    for step in last:
        if step.word == "COPY":
            option, source, target = step.words
            assert (option, source) == ("--from=build", target), "both stages stand below one root here, so nothing is to be copied"
    user = int(said["USER"])
    where = below(root, said["WORKDIR"])
    home = root / "home"
    for folder in (where, home, root / "tmp"):
        folder.mkdir()
    variables = dict(word.split("=", 1) for word in shlex.split(said["ENV"]))
    first, *others = variables["PATH"].split(":")
    variables["PATH"] = ":".join((str(below(root, first)), *others))
    # the user may not write bytecode beside the code, which an image brings along
    made_here = {"HOME": str(home), "TMPDIR": str(root / "tmp"), "PYTHONPYCACHEPREFIX": str(root / "tmp" / "bytecode")}
    if (root / "python").exists():
        made_here["LD_LIBRARY_PATH"] = str(root / "python" / "lib")
    image = Image(root, variables | made_here, user, where)
    for folder in (where, home, root / "tmp"):
        image.give(folder)
    return image


def _install(root, stage):
    """Do the steps of the stage that makes the environment."""
    where, environ = root, {}
    for step in stage:
        match step.word, step.words:
            case "FROM", _:
                pass
            case "WORKDIR", [folder]:
                where = below(root, folder)
                where.mkdir(parents=True)
            case "ENV", words:
                environ |= dict(word.split("=", 1) for word in words)
            case "COPY", [*names, target]:
                for name in names:
                    _copy(ROOT / name, where / target / Path(name).name if target == "./" else where / target)
            case "RUN", ["pip", "install", "--no-cache-dir", "uv"]:
                assert shutil.which("uv"), "it comes with this machine"
            case "RUN", ["uv", "sync", *options]:
                place = {"UV_PROJECT_ENVIRONMENT": str(below(root, environ["UV_PROJECT_ENVIRONMENT"])), "UV_COMPILE_BYTECODE": "0"}
                _sync([option for option in options if option != "--no-cache"], where, place, _python(root))
            case _:
                raise AssertionError(f"nobody has said how to do this here: {step}")


def _copy(source, target):
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _python(root):
    """Return a Python that the image's user can run."""
    base = Path(sys.base_prefix).resolve()
    if os.geteuid() != 0 or all(folder.stat().st_mode & 0o005 == 0o005 for folder in (base, *base.parents)):
        return sys.executable
    shutil.copytree(base, root / "python", symlinks=True, copy_function=_link, ignore=shutil.ignore_patterns("site-packages", "test"))
    return root / "python" / "bin" / Path(sys.executable).resolve().name


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _sync(options, where, place, python):
    """Run `uv sync` on what is in uv's cache; ask the registry only for what is missing there."""
    environ = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "UV_LINK_MODE", "PYTHONPATH"}} | place
    for network in (["--offline"], []):
        ran = subprocess.run(["uv", "sync", "--python", python, *network, *options], cwd=where, env=environ, capture_output=True, text=True)
        if ran.returncode == 0:
            return
    raise AssertionError(ran.stderr[-2000:])
