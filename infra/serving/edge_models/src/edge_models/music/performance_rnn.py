"""Performance RNN: a network that plays the piano event by event, as ONNX, its reference, and its player.

Sources: Simon & Oore 2017 (Performance RNN: 240 events of note, velocity and time) and the published package's
PyTorch model (3 layers of 512 gated recurrent units, Cho et al. 2014). Each step is told the wanted density (one of
12) and the wanted pitch classes (12 shares), in that order. What is played is rough: free time, no bars, no phrases.
Making music of it is left to `edge_models.music.writing`, fetching the weights to `edge_models.build`.

The ONNX graph is one step for n players side by side:
    event INT64 [n] (the event before, 239 at the start), control FP32 [n, 24], hidden FP32 [3, n, 512],
    start FP32 [n, 32] (noise that a performance starts from; only read by first_hidden)
    -> logits FP32 [n, 240], next_hidden FP32 [3, n, 512], first_hidden FP32 [3, n, 512] = tanh(W start + b)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

EVENTS, CONTROL, LAYERS, UNITS, START = 240, 24, 3, 512, 32
NOTE_ON, NOTE_OFF, VELOCITY, TIME_SHIFT = 0, 88, 176, 208
"""First event of each kind: 88 keys from A0 (21), 88 releases, 32 velocities of 21..108, 32 time shifts."""
LOWEST_KEY = 21
SHIFTS = 1.15 ** np.arange(32) / 65
"""Seconds of the 32 time shifts: 15 ms to 1.17 s."""
PRIMARY_EVENT = 239
SLOPE = 0.1
"""Of the leaky rectifier after the input layer."""
DENSITIES = 12
"""Steps of density: step d stands for 3 d + 1 .. 3 d + 3 notes in two seconds."""

_MOST_AT_ONCE = 14
"""Events without a time shift after which one is forced, so that a performance always moves on."""


def read_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The published checkpoint's tensors by name (the file's entry "model"), read without torch.

    Raises:
        ValueError: the file holds no such network.
    """
    from edge_models import torch_file

    weights = torch_file.read(path, inside="model")
    wanted = {"output_fc.weight": (EVENTS, LAYERS * UNITS), "concat_input_fc.weight": (UNITS, EVENTS + 1 + CONTROL)}
    for name, shape in wanted.items():
        if name not in weights or weights[name].shape != shape:
            raise ValueError(f"{path} is not the checkpoint of Performance RNN: {name} of shape {shape} is missing")
    return weights


def to_onnx(weights: Weights) -> Any:
    """One step of the network as an onnx.ModelProto."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: Floats, kind: Any = np.float32) -> str:
        constants.append(numpy_helper.from_array(np.array(value, dtype=kind, order="C"), name))
        return name

    def node(operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{operator}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def dense(x: str, name: str, kernel: Floats, bias: Floats) -> str:
        return node("Gemm", [x, constant(f"{name}.kernel", kernel.T), constant(f"{name}.bias", bias)])

    def split(x: str, parts: int, axis: int, name: str) -> list[str]:
        names = [f"{name}.{number}" for number in range(parts)]
        nodes.append(helper.make_node("Split", [x], names, axis=axis, num_outputs=parts))
        return names

    # The published layer reads event, a mark for "no control" (always 0 here), control; the mark's column falls away.
    kernel = weights["concat_input_fc.weight"]
    event = node("Gather", [constant("embedding", weights["event_embedding.weight"]), "event"])
    from_event = dense(event, "input", kernel[:, :EVENTS], weights["concat_input_fc.bias"])
    from_control = node("MatMul", ["control", constant("control.kernel", kernel[:, EVENTS + 1 :].T)])
    x = node("LeakyRelu", [node("Add", [from_event, from_control])], alpha=SLOPE)
    first_axis = constant("first_axis", np.array([0]), np.int64)
    layers = []
    for layer, before in enumerate(split("hidden", LAYERS, 0, "hidden")):
        hidden = node("Squeeze", [before, first_axis])
        reset_x, update_x, new_x = split(
            dense(x, f"x{layer}", weights[f"gru.weight_ih_l{layer}"], weights[f"gru.bias_ih_l{layer}"]),
            3, 1, f"gates_x{layer}",
        )  # fmt: skip
        reset_h, update_h, new_h = split(
            dense(hidden, f"h{layer}", weights[f"gru.weight_hh_l{layer}"], weights[f"gru.bias_hh_l{layer}"]),
            3, 1, f"gates_h{layer}",
        )  # fmt: skip
        reset = node("Sigmoid", [node("Add", [reset_x, reset_h])])
        update = node("Sigmoid", [node("Add", [update_x, update_h])])
        new = node("Tanh", [node("Add", [new_x, node("Mul", [reset, new_h])])])
        # (1 - update) new + update hidden
        x = node("Add", [new, node("Mul", [update, node("Sub", [hidden, new])])])
        layers.append(x)
    logits = dense(node("Concat", layers, axis=1), "output", weights["output_fc.weight"], weights["output_fc.bias"])
    node("Identity", [logits], "logits")
    node("Concat", [node("Unsqueeze", [layer, first_axis]) for layer in layers], "next_hidden", axis=0)
    started = node("Tanh", [dense("start", "start", weights["inithid_fc.weight"], weights["inithid_fc.bias"])])
    shape = constant("start.shape", np.array([-1, LAYERS, UNITS]), np.int64)
    # torch's view(3, n, 512) of [n, 1536] is right for one player; each player's own is laid out here.
    node("Transpose", [node("Reshape", [started, shape])], "first_hidden", perm=[1, 0, 2])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "performance_rnn",
        [
            value("event", TensorProto.INT64, ["n"]),
            value("control", TensorProto.FLOAT, ["n", CONTROL]),
            value("hidden", TensorProto.FLOAT, [LAYERS, "n", UNITS]),
            value("start", TensorProto.FLOAT, ["n", START]),
        ],
        [
            value("logits", TensorProto.FLOAT, ["n", EVENTS]),
            value("next_hidden", TensorProto.FLOAT, [LAYERS, "n", UNITS]),
            value("first_hidden", TensorProto.FLOAT, [LAYERS, "n", UNITS]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return model


def forward(
    weights: Weights, event: Integers, control: Floats, hidden: Floats, start: Floats
) -> tuple[Floats, Floats, Floats]:
    """The same step in numpy (float64), as the definition states it: logits, next_hidden, first_hidden."""

    def linear(x: Floats, name: str, weight: str = "weight", bias: str = "bias") -> Floats:
        return np.asarray(x @ weights[f"{name}.{weight}"].T.astype(np.float64) + weights[f"{name}.{bias}"])

    def sigmoid(x: Floats) -> Floats:
        return np.asarray(1 / (1 + np.exp(-x)))

    no_control = np.zeros((len(event), 1))
    x = np.concatenate([weights["event_embedding.weight"][event], no_control, control], axis=1)
    x = linear(x, "concat_input_fc")
    x = np.where(x > 0, x, SLOPE * x)
    states = []
    for layer in range(LAYERS):
        before = hidden[layer].astype(np.float64)
        from_x = linear(x, "gru", f"weight_ih_l{layer}", f"bias_ih_l{layer}").reshape(-1, 3, UNITS)
        from_h = linear(before, "gru", f"weight_hh_l{layer}", f"bias_hh_l{layer}").reshape(-1, 3, UNITS)
        reset = sigmoid(from_x[:, 0] + from_h[:, 0])
        update = sigmoid(from_x[:, 1] + from_h[:, 1])
        new = np.tanh(from_x[:, 2] + reset * from_h[:, 2])
        x = (1 - update) * new + update * before
        states.append(x)
    logits = linear(np.concatenate(states, axis=1), "output_fc")
    first = np.tanh(linear(start.astype(np.float64), "inithid_fc"))
    return logits, np.stack(states), np.stack([row.reshape(LAYERS, UNITS) for row in first], axis=1)


class Step(Protocol):
    """Whoever computes one step: the served network, or a test's own."""

    def __call__(
        self, event: Integers, control: Floats, hidden: Floats, start: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """logits [n, 240], next_hidden [3, n, 512], first_hidden [3, n, 512]; see the graph above."""


def onnx_step(path: Path) -> Step:
    """The built network, on one thread: so that its answers repeat, and others keep their cores.

    Raises:
        FileNotFoundError: the file was not built yet.
    """
    import onnxruntime

    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; build the models: promenade models build")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = ["logits", "next_hidden", "first_hidden"]

    def step(event: Integers, control: Floats, hidden: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
        fed = {"event": event, "control": control, "hidden": hidden, "start": start}
        logits, next_hidden, first_hidden = session.run(names, fed)
        return logits, next_hidden, first_hidden

    return step


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a player is asked for until a time: `until` in seconds, `density` 0..11, `classes` 12 shares (C first)."""

    until: float
    density: int
    classes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """One note as it was played: seconds from the performance's start, MIDI pitch, velocity 21..108."""

    start: float
    seconds: float
    pitch: int
    velocity: int


def density_step(notes_a_second: float) -> int:
    """The control's step for so many notes a second (two seconds hold 3 d + 1 .. 3 d + 3 notes)."""
    return int(np.clip(round((2 * notes_a_second - 2) / 3), 0, DENSITIES - 1))


def control_vector(wanted: Wanted) -> npt.NDArray[np.float32]:
    """[24]: density one-hot, then the shares of the pitch classes (they sum to 1)."""
    vector = np.zeros(CONTROL, dtype=np.float32)
    vector[wanted.density] = 1
    shares = np.asarray(wanted.classes, dtype=np.float64)
    vector[DENSITIES:] = shares / shares.sum()
    return vector


def play(
    step: Step,
    rows: Sequence[Sequence[Wanted]],
    steps: int,
    random: np.random.Generator,
    temperature: float = 1.0,
) -> list[list[Played]]:
    """Let several players play side by side, each its own wishes over time.

    Args:
        step: the network.
        rows: for each player what it is asked for, in order of time; after the last `until` it is no longer heard.
        steps: events of each player at most; the cost is one run of the network each.
        random: decides every event; the same state gives the same notes.
        temperature: below 1 plainer, above 1 wilder.

    Returns:
        The notes of each player, by start, all inside its wishes' time, none sounding past it. Keys outside the
        wanted pitch classes are not struck.
    """
    count = len(rows)
    start = random.standard_normal((count, START)).astype(np.float32)
    event = np.full(count, PRIMARY_EVENT, dtype=np.int64)
    controls = [[control_vector(wanted) for wanted in row] for row in rows]
    # Keys that may be struck under each wish: -inf elsewhere, added to the logits.
    key_classes = (np.arange(88) + LOWEST_KEY) % 12
    masks = [
        [np.where(vector[DENSITIES:][key_classes] > 0, 0.0, -np.inf) for vector in row_controls]
        for row_controls in controls
    ]
    hidden = np.zeros((LAYERS, count, UNITS), dtype=np.float32)
    now = np.zeros(count)
    at = np.zeros(count, dtype=np.int64)
    idle = np.zeros(count, dtype=np.int64)
    velocity = np.full(count, 64, dtype=np.int64)
    held: list[dict[int, tuple[float, int]]] = [{} for _ in rows]
    notes: list[list[Played]] = [[] for _ in rows]

    def release(row: int, pitch: int, end: float) -> None:
        began, loud = held[row].pop(pitch)
        if end > began:
            notes[row].append(Played(began, end - began, pitch, loud))

    for number in range(steps):
        if all(at[row] >= len(rows[row]) for row in range(count)):
            break
        position = [min(int(at[row]), len(rows[row]) - 1) for row in range(count)]
        control = np.stack([controls[row][position[row]] for row in range(count)])
        if number == 0:
            hidden = step(event, control, hidden, start)[2]
        logits, hidden, _ = step(event, control, hidden, start)
        # Rounded, so that the last bits of a sum do not decide a note.
        scores = np.round(np.asarray(logits, dtype=np.float64), 3) / temperature
        draws = random.random(count)
        for row in range(count):
            scores[row, NOTE_ON:NOTE_OFF] += masks[row][position[row]]
            if idle[row] >= _MOST_AT_ONCE:
                scores[row, :TIME_SHIFT] = -np.inf
        chances = np.cumsum(np.exp(scores - scores.max(axis=1, keepdims=True)), axis=1)
        for row in range(count):
            chosen = int(np.searchsorted(chances[row], draws[row] * chances[row, -1], side="right"))
            chosen = min(chosen, EVENTS - 1)
            event[row] = chosen
            if at[row] >= len(rows[row]):
                continue
            idle[row] += 1
            if chosen < NOTE_OFF:
                pitch = chosen + LOWEST_KEY
                if pitch in held[row]:
                    release(row, pitch, float(now[row]))
                held[row][pitch] = (float(now[row]), int(velocity[row]))
            elif chosen < VELOCITY:
                if chosen - NOTE_OFF + LOWEST_KEY in held[row]:
                    release(row, chosen - NOTE_OFF + LOWEST_KEY, float(now[row]))
            elif chosen < TIME_SHIFT:
                velocity[row] = min(108, int(21 + (chosen - VELOCITY) * 88 / 31))
            else:
                idle[row] = 0
                now[row] += SHIFTS[chosen - TIME_SHIFT]
                while at[row] < len(rows[row]) and now[row] >= rows[row][int(at[row])].until:
                    at[row] += 1
    for row, wishes in enumerate(rows):
        end = min(float(now[row]), wishes[-1].until) if wishes else 0.0
        for pitch in list(held[row]):
            release(row, pitch, end)
        notes[row].sort(key=lambda note: (note.start, note.pitch))
    return notes
