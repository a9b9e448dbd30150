"""Make TensorRT plans of the exported networks, in a model repository of their own.

    docker run --rm --gpus all -v "$PWD":/clone -w /clone nvcr.io/nvidia/tensorrt:24.12-py3 \\
        python3 infra/serving/tensorrt/build.py --repository model_repository/full --out plans/full

A plan fits one kind of GPU and one version of TensorRT, so it is built where it will run, in the container of the
same release as the server's (infra/docker/Dockerfile.triton). The new repository holds a plan for each exported
network, in the place of its ONNX file, and copies of all other models: mount it instead of the first one. It cannot
be served without a GPU; the ONNX repository can. Names, shapes and types of tensors stay the same.

Standard library only: the container has no package of ours.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRTEXEC = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec", "trtexec")
"""Where NVIDIA's containers keep the program."""
SHORTEST, USUAL, LONGEST = 2, 64, 512
"""Lengths of a tensor's varying axis (tokens) that a plan is made for: smallest, best, largest."""


class PlanError(Exception):
    """A plan cannot be made; the text says why."""


@dataclass(frozen=True)
class Network:
    """One exported network as its config.pbtxt describes it.

    Attributes:
        name: its folder.
        inputs: name -> sizes without the batch, -1 where they vary.
        largest: rows in a call at most.
    """

    name: str
    inputs: dict[str, tuple[int, ...]]
    largest: int


def read(config: str) -> Network | None:
    """The network that a config.pbtxt describes; None for a model that is no exported network.

    Raises:
        PlanError: it is one, and its name, inputs or batch cannot be read.
    """
    text = re.sub(r"#.*", "", config)
    if not re.search(r'^backend:\s*"onnxruntime"', text, re.MULTILINE):
        return None
    name = re.search(r'^name:\s*"([^"]+)"', text, re.MULTILINE)
    largest = re.search(r"^max_batch_size:\s*(\d+)", text, re.MULTILINE)
    block = re.search(r"^input\s*\[(.*?)\]\s*^output", text, re.MULTILINE | re.DOTALL)
    found = {
        tensor: tuple(int(size) for size in sizes.split(","))
        for tensor, sizes in re.findall(r'name:\s*"([^"]+)"[^{}]*?dims:\s*\[([^\]]*)\]', block[1] if block else "")
    }
    if not (name and largest and found):
        raise PlanError("a config.pbtxt without a name, max_batch_size or inputs that can be read")
    return Network(name[1], found, int(largest[1]))


def command(program: str, network: Network, onnx: Path, plan: Path, precision: str) -> list[str]:
    """The call of trtexec that makes a network's plan, for 1 to `largest` rows."""

    def shapes(rows: int, length: int) -> str:
        spelled = (
            f"{name}:{'x'.join(str(length if size < 0 else size) for size in (rows, *sizes))}"
            for name, sizes in network.inputs.items()
        )
        return ",".join(spelled)

    return [
        program,
        f"--onnx={onnx}",
        f"--saveEngine={plan}",
        f"--minShapes={shapes(1, SHORTEST)}",
        f"--optShapes={shapes(min(8, network.largest), USUAL)}",
        f"--maxShapes={shapes(network.largest, LONGEST)}",
        "--skipInference",
        *(["--fp16"] if precision == "fp16" else []),
    ]


def planned(config: str) -> str:
    """The network's config.pbtxt for a plan: another backend, always on a GPU, the rest as it was."""
    text = re.sub(r'^backend:\s*"onnxruntime"', 'platform: "tensorrt_plan"', config, flags=re.MULTILINE)
    return re.sub(r"^instance_group\s*\[.*?\]\s*$", _ON_GPU, text, flags=re.MULTILINE | re.DOTALL)


_ON_GPU = "instance_group [ { kind: KIND_GPU count: 1 } ]"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="build.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repository", type=Path, required=True, help="the repository with exported networks")
    parser.add_argument("--out", type=Path, required=True, help="the repository to make")
    parser.add_argument("--precision", choices=("fp16", "fp32"), default="fp16", help="of the plans (default: fp16)")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="plans of these networks; the others stay ONNX")
    parser.add_argument("--trtexec", help="the program, where it is not in its usual place")
    parser.add_argument("--show", action="store_true", help="print the calls and make nothing")
    given = parser.parse_args(arguments)
    try:
        return _build(given)
    except PlanError as error:
        print(f"not made: {error}", file=sys.stderr)
        return 1


def _build(given: argparse.Namespace) -> int:
    models = sorted(path.parent for path in given.repository.glob("*/config.pbtxt"))
    if not models:
        raise PlanError(f"{given.repository} holds no models")
    program = given.trtexec or next((each for each in TRTEXEC if shutil.which(each)), None)
    if program is None and not given.show:
        raise PlanError(
            "trtexec was not found: run this in NVIDIA's tensorrt container of the server's release, "
            "or name the program by --trtexec"
        )
    made = 0
    for model in models:
        config = (model / "config.pbtxt").read_text(encoding="utf-8")
        network = read(config)
        target = given.out / model.name
        if network is None or (given.only and model.name not in given.only):
            if not given.show:
                shutil.copytree(model, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            continue
        onnx, plan = model / "1" / "model.onnx", target / "1" / "model.plan"
        call = command(program or TRTEXEC[0], network, onnx, plan, given.precision)
        if given.show:
            print(shlex.join(call))
            made += 1
            continue
        if not onnx.exists():
            raise PlanError(
                f"{onnx} is not there; first: python -m full_models.export --repository {given.repository}"
            )
        plan.parent.mkdir(parents=True, exist_ok=True)
        if subprocess.run(call, check=False).returncode:  # noqa: S603 - NVIDIA's program on our own files
            raise PlanError(f"trtexec could not make the plan of {model.name}; its words are above")
        (target / "config.pbtxt").write_text(planned(config), encoding="utf-8")
        made += 1
    if not made:
        raise PlanError("none of these models is an exported network")
    return 0


if __name__ == "__main__":
    sys.exit(main())
