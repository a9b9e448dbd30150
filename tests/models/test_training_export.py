"""Export: a trained part in ONNX answers as in torch, is found where served models look, and a server loads it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import onnxruntime
import pytest
import torch
from full_models.weights import MissingWeights, find
from torch import nn

from networks.aligner import ImageAligner
from networks.checkpoints import read_checkpoint
from networks.mmva import MMVA, Sizes
from tests.models.tiny_training import one_thread  # noqa: F401
from training.__main__ import main
from training.export import SERVED, ExportError, difference, export_run, reload
from training.runs import save_weights
from training.settings import RunError


def aligner_run(folder: Path, seed: int = 0) -> Path:
    """A run's folder as far as export reads it."""
    torch.manual_seed(seed)
    aligner = ImageAligner(4, 24, token_size=16, staging_size=32, hidden_size=48)
    folder.mkdir(parents=True)
    metadata = {"kind": "aligner", "tokens": "4", "vector_size": "24", "token_size": "16", "space": "made-1"}
    save_weights(folder / "model.safetensors", aligner.state_dict(), metadata)
    return folder


def test_an_aligner_answers_in_onnx_as_in_torch(tmp_path: Path) -> None:
    made = export_run(aligner_run(tmp_path / "run"), tmp_path / "weights")
    assert made.difference < 1e-5
    aligner = ImageAligner.from_state(read_checkpoint(tmp_path / "run" / "model.safetensors"), token_size=16)
    session = onnxruntime.InferenceSession(str(made.folder / "model.onnx"))
    vectors = torch.randn(7, 24)
    (answer,) = session.run(["tokens"], {"vectors": vectors.numpy()})
    assert torch.allclose(torch.from_numpy(answer), aligner(vectors), atol=1e-5)
    check = json.loads((made.folder / "check.json").read_text())
    assert (check["kind"], check["space"], check["inputs"]) == ("aligner", "made-1", {"vectors": [24]})


def test_it_lies_where_the_served_composer_looks_and_earlier_ones_are_set_aside(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    with pytest.raises(MissingWeights):
        find("art2mus-aligner", needed_by="compose_music", setting="X", root=weights)
    first = export_run(aligner_run(tmp_path / "one"), weights)
    second = export_run(aligner_run(tmp_path / "two", seed=1), weights)
    assert first.installed is not None and second.set_aside == (first.installed.name,)
    found = find("art2mus-aligner", needed_by="compose_music", setting="X", root=weights)
    assert found.folder == second.installed
    # The composer takes the first file of weights that it finds: there is one.
    (only,) = found.folder.glob("*.safetensors")
    assert ImageAligner.from_state(read_checkpoint(only), token_size=16).tokens == 4
    # The earlier one can be taken again.
    assert export_run(tmp_path / "one", weights).installed == first.installed
    assert find("art2mus-aligner", needed_by="x", setting="X", root=weights).folder == first.installed


def test_mmva_answers_in_onnx_as_in_torch(tmp_path: Path) -> None:
    model = MMVA(Sizes(3, 8, 10, 12))
    metadata = {"kind": "mmva", "sigma": "0.34"}
    (tmp_path / "run").mkdir()
    save_weights(tmp_path / "run" / "model.safetensors", model.state_dict(), metadata)
    made = export_run(tmp_path / "run", tmp_path / "weights")
    session = onnxruntime.InferenceSession(str(made.folder / "model.onnx"))
    given = {"picture": torch.randn(5, 10), "sound": torch.randn(5, 3, 8), "text": torch.randn(5, 3, 8)}
    answers = session.run(None, {name: value.numpy() for name, value in given.items()})
    reading = model.eval()(**given)
    for answer, right in zip(
        answers, (reading.picture, reading.sound, reading.text, reading.similarity), strict=True
    ):
        assert torch.allclose(torch.from_numpy(answer), right, atol=1e-5)
    found = find("mmva", needed_by="mmva_sound", setting="X", root=tmp_path / "weights")
    assert MMVA.from_state(read_checkpoint(found.file("model.safetensors"))).sizes == model.sizes


def test_a_wrong_export_is_noticed(tmp_path: Path) -> None:
    made = export_run(aligner_run(tmp_path / "run"))
    assert made.installed is None
    torch.manual_seed(9)
    other = ImageAligner(4, 24, token_size=16, staging_size=32, hidden_size=48)
    assert difference(other, made.folder / "model.onnx", [{"vectors": torch.randn(3, 24)}]) > 0.1

    class Reordered(nn.Module):
        def forward(self, vectors: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(vectors), 16, 4)

    assert difference(Reordered(), made.folder / "model.onnx", [{"vectors": torch.randn(3, 24)}]) == float("inf")


def test_what_is_no_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="has not finished"):
        export_run(tmp_path)
    save_weights(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(ExportError, match="no run's model"):
        export_run(tmp_path)
    assert main(["export", str(tmp_path / "none")]) == 1
    assert "has not finished" in capsys.readouterr().err


def test_a_running_server_is_told_to_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    refusing = "mmva_sound"

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            if self.path.endswith("/index"):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'[{"name": "va_picture", "version": "1"}, {"name": "embed_text"}]')
                return
            self.rfile.read(int(self.headers["Content-Length"]))
            refused = refusing in self.path
            self.send_response(400 if refused else 200)
            self.end_headers()
            self.wfile.write(b"no such model" if refused else b"{}")

        def log_message(self, *_: object) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        run = aligner_run(tmp_path / "run")
        assert main(["export", str(run), "--weights", str(tmp_path / "weights"), "--server", address]) == 0
        assert "loaded by the server: compose_music" in capsys.readouterr().err
        assert asked == ["/v2/repository/models/compose_music/load"]
        with pytest.raises(ExportError, match="would not load mmva_sound: no such model"):
            reload(address, "mmva")
        refusing = "nothing"
        # The towers, then those that lean on them, as far as they are served.
        assert reload(address, "mmva") == [*SERVED["mmva"], "va_picture"]
        assert asked[-2:] == [f"/v2/repository/models/{name}/load" for name in ("mmva_similarity", "va_picture")]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    with pytest.raises(ExportError, match="does not answer"):
        reload(address, "aligner")
