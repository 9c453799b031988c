#!/usr/bin/env python3
"""Records PyTorch's LSTM and GRU: outputs and gradients, in `recurrent.txt` next to this script.

Needs: python3, torch, numpy (the versions used are written into the file).
Run:   python3 goldens/torch/make.py

Every case is a line `case CELL inputs size steps columns`, then lines `name: numbers`. Numbers are f64, printed with
the fewest digits that give the same bits back. Matrices are written row after row; a batch has a column for every
(step, sequence), sequence fastest. `fresh` is 1 where a sequence forgets its state before a step: there PyTorch is
started again from zeros. Gradients are those of sum(d_out * out). Biases are what one bias vector needs to be where
PyTorch has two.
"""

import pathlib

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
torch.set_default_dtype(torch.float64)


def text(array):
    return " ".join(repr(float(x)) for x in np.asarray(array).reshape(-1))


def columns(x):
    """[steps, columns, features] to [features x steps*columns]."""
    return x.detach().permute(2, 0, 1).reshape(x.shape[2], -1)


def case(cell, inputs, size, steps, cols, chance, seed):
    torch.manual_seed(seed)
    net = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](inputs, size)
    for p in net.parameters():
        torch.nn.init.normal_(p, 0.0, 0.7)
    x = torch.randn(steps, cols, inputs, requires_grad=True)
    first = [torch.randn(cols, size) for _ in range(2 if cell == "lstm" else 1)]
    fresh = torch.rand(steps, cols) < chance
    d_out = torch.randn(steps, cols, size)

    if chance == 0.0:
        # All steps at once.
        state = tuple(s[None] for s in first)
        out, last = net(x, state if cell == "lstm" else state[0])
        last = last if cell == "lstm" else (last,)
    else:
        state, outs = first, []
        for t in range(steps):
            keep = (~fresh[t]).to(x.dtype)[:, None]
            state = [(s * keep)[None] for s in state]
            y, state = net(x[t : t + 1], tuple(state) if cell == "lstm" else state[0])
            state = [s[0] for s in (state if cell == "lstm" else (state,))]
            outs.append(y)
        out, last = torch.cat(outs), [s[None] for s in state]
    (d_out * out).sum().backward()

    b_ih, b_hh = net.bias_ih_l0.detach(), net.bias_hh_l0.detach()
    if cell == "lstm":
        bias, candidate = b_ih + b_hh, torch.zeros(0)
        d_bias, d_candidate = net.bias_ih_l0.grad, torch.zeros(0)
    else:
        own = torch.cat([torch.ones(2 * size), torch.zeros(size)])
        bias, candidate = b_ih + own * b_hh, b_hh[2 * size :]
        d_bias, d_candidate = net.bias_ih_l0.grad, net.bias_hh_l0.grad[2 * size :]
    yield f"case {cell} {inputs} {size} {steps} {cols}"
    for name, value in [
        ("theta", torch.cat([net.weight_ih_l0.flatten(), net.weight_hh_l0.flatten(), bias, candidate]).detach()),
        ("x", columns(x)),
        ("state", torch.cat([s.T for s in first])),
        ("fresh", fresh.to(x.dtype)),
        ("d_out", columns(d_out)),
        ("out", columns(out)),
        ("last", torch.cat([s[0].detach().T for s in last])),
        ("d_theta", torch.cat([net.weight_ih_l0.grad.flatten(), net.weight_hh_l0.grad.flatten(), d_bias, d_candidate])),
        ("d_x", columns(x.grad)),
    ]:
        yield f"{name}: {text(value)}"


def main():
    lines = [f"# torch {torch.__version__.split('+')[0]}, numpy {np.__version__}"]
    for seed, cell in enumerate(["lstm", "gru"]):
        lines += case(cell, 3, 4, 1, 2, 0.0, 10 + seed)
        lines += case(cell, 3, 4, 6, 2, 0.0, 20 + seed)
        lines += case(cell, 2, 3, 9, 3, 0.3, 30 + seed)
    (HERE / "recurrent.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
