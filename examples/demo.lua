-- The demo: a language model of bytes with experts, a few minutes on two cores.
-- ./bootstrap.sh demo makes the text (examples/demo.sh) and trains it. Every setting can be given on
-- the command line too: build/moec train examples/demo.lua lr=2e-3 steps=200 run=runs/other
return {
  -- The architecture of Qwen3-MoE, small: 7.2 M parameters, 2.4 M of them active for a token.
  model = {
    layers = 4, H = 256, heads = 8, kv = 4, dim = 32, V = 256, qk_norm = true, tied = true,
    E = 8, K = 2, F = 256, act = "swiglu", router = "softmax_topk", norm = 1, dtype = "bf16",
    theta = 10000, init_std = 0.04, names = "qwen3_moe",
  },
  data = { path = "build/demo/kjv.txt", format = "text", held_out = 0.02 },
  train = {
    run = "runs/demo",
    steps = 1000, seq = 256, batch = 8, seed = 1,
    lr = 1e-3, min_lr = 1e-4, warmup = 60, beta2 = 0.98, weight_decay = 0.1, clip = 1.0,
    aux = 0.01, z = 0.001, -- load balance, router z-loss
    eval_every = 200, eval_batches = 8, save_every = 250, keep = 2,
    sample = 400, temperature = 0.7, prompt = "And it came to pass",
  },
}
