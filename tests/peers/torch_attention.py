#!/usr/bin/env python3
"""Causal attention on a CUDA GPU: moec and PyTorch's scaled_dot_product_attention, in turn, in one process.

    tests/peers/torch_attention.py [--lib build/libmoec.so] [--runs 20] [T,SEQ,HEADS,KV,DIM ...]

bf16, T tokens in sequences of SEQ, random normal data. TFLOP/s of 2 (backward 5) T SEQ HEADS DIM operations: the half of
the square that causal attention needs. Medians; apart: norm of moec's results minus PyTorch's over the norm of PyTorch's.
"""
import argparse, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch_grouped import Moec

SHAPES = ["8192,4096,16,16,128", "8192,4096,16,4,128", "8192,4096,32,4,64", "8192,1024,16,16,128"]


def once(call):
    """Milliseconds of the card's work. It sleeps first, while the host prepares the launches."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(2000000)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def moec_calls(moec, T, seq, heads, kv, dim, q, k, v, dout):
    """Forward and backward as functions, and their results: out, dq, dk, dv."""
    out, dq, dk, dv = (torch.full_like(t, float("nan")) for t in (q, q, k, v))
    lse = torch.empty(T, heads, device="cuda")
    spec = f"heads={heads} kv={kv} dim={dim}"
    forward = moec.kernel("attention", spec, T, T, [q, k, v, out, lse, seq, T])
    backward = moec.kernel("attention_bwd", spec, T, T, [q, k, v, out, lse, dout, dq, dk, dv, seq, T])
    return forward, backward, (out, dq, dk, dv)


def torch_calls(backend, T, seq, heads, kv, q, k, v, dout):
    # views of the same [T][heads*dim] buffers as [sequences][heads][seq][dim]
    split = lambda t, n: t.view(T // seq, seq, n, -1).transpose(1, 2)
    args = [split(t, n).detach().requires_grad_() for t, n in ((q, heads), (k, kv), (v, kv))]
    kept = {}

    def forward():
        with sdpa_kernel(backend):
            kept["out"] = scaled_dot_product_attention(*args, is_causal=True, enable_gqa=heads != kv)

    def backward():
        kept["grads"] = torch.autograd.grad(kept["out"], args, split(dout, heads), retain_graph=True)

    def results():
        return [t.transpose(1, 2).reshape(T, -1) for t in (kept["out"], *kept["grads"])]

    return forward, backward, results


def one_shape(moec, shape, runs):
    T, seq, heads, kv, dim = (int(n) for n in shape.split(","))
    q, dout = (torch.randn(T, heads * dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    k, v = (torch.randn(T, kv * dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    forward, backward, ours = moec_calls(moec, T, seq, heads, kv, dim, q, k, v, dout)
    sides, theirs = {"moec": (forward, backward)}, None
    for name in ("CUDNN", "FLASH"):
        calls = torch_calls(getattr(SDPBackend, name + "_ATTENTION"), T, seq, heads, kv, q, k, v, dout)
        try:
            calls[0](), calls[1]()
            sides[name.lower()], theirs = calls[:2], calls[2]
        except RuntimeError as error:
            print(f"{shape}: {name}: {str(error).splitlines()[0]}")
    ms = {name: ([], []) for name in sides}
    for i in range(runs + 2):
        for name, calls in sides.items():
            for kept, call in zip(ms[name], calls):
                t = once(call)
                if i >= 2:
                    kept.append(t)
    words = []
    for name, times in ms.items():
        rates = [n * T * seq * heads * dim / sorted(t)[runs // 2] * 1e-9 for n, t in zip((2, 5), times)]
        words.append(f"{name} {rates[0]:.0f} / {rates[1]:.0f}")
    apart = [float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(ours, theirs())] if theirs else []
    print(f"{shape}: forward / backward TFLOP/s: {', '.join(words)}; apart " + " ".join(f"{x:.1e}" for x in apart), flush=True)


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--lib", default="build/libmoec.so")
    parse.add_argument("--runs", type=int, default=20)
    parse.add_argument("shapes", nargs="*", default=SHAPES)
    words = parse.parse_args()
    moec = Moec(words.lib)
    for shape in words.shapes:
        one_shape(moec, shape, words.runs)


if __name__ == "__main__":
    main()
