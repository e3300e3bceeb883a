#!/usr/bin/env python3
"""A checkpoint of moec, loaded by Hugging Face's transformers: the same held-out loss.

    pip install torch transformers
    tests/peers/transformers_loss.py runs/demo/checkpoints/step-000001000 build/demo/kjv.txt --held-out 0.02 \\
        --seq 256 --windows 64 --expect 1.718

Proves that names, shapes, rotary convention, QK-norm, routing and normalisation are the architecture's.
Prints bits per token of the first windows of the held-out part.
"""
import argparse, math, sys

import torch
from transformers import AutoModelForCausalLM


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("text")
    ap.add_argument("--held-out", type=float, default=0.02)
    ap.add_argument("--seq", type=int, default=256)
    ap.add_argument("--windows", type=int, default=64)
    ap.add_argument("--expect", type=float, help="bits that moec printed; more than 0.01 off is a failure")
    args = ap.parse_args()
    model, info = AutoModelForCausalLM.from_pretrained(args.checkpoint, torch_dtype=torch.float32,
                                                       output_loading_info=True)
    print("missing", info["missing_keys"], "unexpected", info["unexpected_keys"])
    data = open(args.text, "rb").read()
    begin = len(data) - int(len(data) * args.held_out)
    total = 0.0
    with torch.no_grad():
        for n in range(args.windows):
            at = begin + n * args.seq
            window = torch.tensor(list(data[at:at + args.seq + 1]))
            logits = model(window[None, :-1]).logits[0]
            total += torch.nn.functional.cross_entropy(logits.float(), window[1:]).item()
    bits = total / args.windows / math.log(2)
    print(f"{bits:.4f} bits per token over {args.windows} windows of {args.seq}")
    sys.exit(args.expect is not None and abs(bits - args.expect) > 0.01)


if __name__ == "__main__":
    main()
