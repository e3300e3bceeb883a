-- OLMoE 1B-7B: config.json of allenai/OLMoE-1B-7B-0924. QK-norm spans the whole row; weights are the
-- plain softmax of the chosen (norm_topk_prob false).
return {
  layers = 16, H = 2048, heads = 16, kv = 16, dim = 128, V = 50304,
  E = 64, K = 8, F = 1024, act = "swiglu", router = "softmax_topk", norm = 0, dtype = "bf16",
  qk_row = true, theta = 10000, norm_eps = 1e-5, tied = false, names = "olmoe",
}
