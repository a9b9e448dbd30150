"""A stand-in for the composer: the same tensors and manners over a plain tone, so that the way of a piece is tested
without the real one. How music sounds is left to the composer's own tests.

`STANDIN` is the model file that a real model server runs; `MadeComposer` answers inside the tests' own process.
Wishes steer it: "pace" (seconds of sound for each second, 0: at once), "fail_after" (chunks, then an error),
"die_after" (chunks, then its process ends), "hang_after" (chunks, then silence).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from infra.serving import triton
from tests.serving_fixtures import ENVIRONMENT, REPOSITORY, Served, free_ports

CONFIGURATION = """
name: "compose_music"
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: True }
input [
  { name: "RGB" data_type: TYPE_FP32 dims: [ 5, 3 ] },
  { name: "VA" data_type: TYPE_FP32 dims: [ 5, 2 ] },
  { name: "MEASUREMENTS" data_type: TYPE_STRING dims: [ 5 ] },
  { name: "TEXTS" data_type: TYPE_STRING dims: [ 5 ] },
  { name: "VECTOR" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "SECONDS" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "SEED" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "WISHES" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "LIVE" data_type: TYPE_BOOL dims: [ 1 ] }
]
output [
  { name: "SAMPLES" data_type: TYPE_FP32 dims: [ -1, 2 ] },
  { name: "REPORT" data_type: TYPE_STRING dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "version" value: { string_value: "1" } }
"""

STANDIN = '''
import json, os, threading, time
import numpy as np
import triton_python_backend_utils as pb

RATE = 48000

class TritonPythonModel:
    def initialize(self, args):
        self.live = 0
        self.lock = threading.Condition()

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.compose, args=(request, request.get_response_sender()), daemon=True).start()
        return None

    def compose(self, request, sender):
        flags = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        read = lambda name: pb.get_input_tensor_by_name(request, name).as_numpy()
        seconds, seed, live = float(read("SECONDS")[0]), int(read("SEED")[0]), bool(read("LIVE")[0])
        wishes = json.loads(read("WISHES")[0])
        def answer(samples, report):
            sender.send(pb.InferenceResponse([
                pb.Tensor("SAMPLES", samples), pb.Tensor("REPORT", np.array([report], dtype=object))]))
        def fail(text):
            sender.send(pb.InferenceResponse(error=pb.TritonError(text)), flags=flags)
        unknown = set(wishes) - {"instruments", "key", "tempo", "pace", "fail_after", "die_after", "hang_after"}
        if not 5 <= seconds <= 180:
            return fail("invalid: SECONDS is %g; 5 to 180 are composed" % seconds)
        if unknown:
            return fail("invalid: WISHES: nobody knows %s" % sorted(unknown)[0])
        begun = time.monotonic()
        with self.lock:
            self.live += live
        try:
            total, made, number, first = int(seconds * RATE), 0, 0, 0.0
            pitch = 200 + float(read("VA")[4][1]) * 400 + seed % 50
            while made < total:
                with self.lock:
                    while not live and self.live and not sender.is_cancelled():
                        self.lock.wait(0.05)
                if sender.is_cancelled():
                    return sender.send(flags=flags)
                if number == wishes.get("fail_after"):
                    return fail("the strings broke")
                if number == wishes.get("die_after"):
                    os._exit(3)
                if number == wishes.get("hang_after"):
                    time.sleep(3600)
                count = min(RATE if number else RATE // 2, total - made)
                moments = (made + np.arange(count)) / RATE
                tone = 0.3 * np.sin(2 * np.pi * pitch * moments) * np.minimum(1, (total - made) / RATE)
                answer(np.stack([tone, 0.8 * tone], axis=1).astype(np.float32), b"")
                first = first or time.monotonic() - begun
                made, number = made + count, number + 1
                if wishes.get("pace"):
                    time.sleep(count / RATE / wishes["pace"])
            report = {"version": "1", "model": "stand-in", "seed": seed, "seconds": total / RATE, "key": "D",
                      "mode": "minor", "tempo": 90.0, "sections": [], "instruments": [], "loudness": -16.0,
                      "true_peak": -2.0, "notes": 1, "voices": 1, "made_seconds": time.monotonic() - begun,
                      "first_chunk_seconds": first}
            answer(np.zeros((0, 2), np.float32), json.dumps(report).encode())
            sender.send(flags=flags)
        finally:
            with self.lock:
                self.live -= live
                self.lock.notify_all()
'''


def repository(folder: Path, others: bool = True) -> Path:
    """A model repository with the stand-in, and the real models beside it unless told otherwise."""
    folder.mkdir(parents=True)
    if others:
        for path in REPOSITORY.glob("*/config.pbtxt"):
            if path.parent.name != "compose_music":
                (folder / path.parent.name).symlink_to(path.parent)
    version = folder / "compose_music" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIGURATION)
    (version / "model.py").write_text(STANDIN)
    return folder


def profile(folder: Path) -> Path:
    """The edge profile with the stand-in composer, beside a repository of the same name, as the stack wants them."""
    repository(folder / "edge")
    text = (REPOSITORY.parent / "edge.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("compose_music")]
    place = lines.index("[models]") + 1
    lines.insert(place, 'compose_music = { version = "stand-in 1", reads = ["measurements"] }')
    (folder / "edge.toml").write_text("\n".join(lines) + "\n")
    for built in REPOSITORY.parent.glob("edge.built.json"):
        shutil.copy(built, folder / built.name)
    return folder / "edge.toml"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A model server with nothing but the stand-in; stopped at the end."""
    from tritonclient import grpc

    installation = triton.prepare(ENVIRONMENT, folder / "serving")
    ports = free_ports()
    start = triton.launch(installation, repository(folder / "repository", others=False), ports)
    log = folder / "triton.log"
    with log.open("w") as output:
        process = subprocess.Popen(start.arguments, env=start.environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 120
        while not triton.ready(ports):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the model server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield Served(ports, process.pid, ["compose_music"], grpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}"))
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        triton.clean_after(start.region_prefix)


def report_of(text: bytes) -> dict[str, object]:
    """A report as plain values."""
    return dict(json.loads(text))
