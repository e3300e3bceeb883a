-- Mixtral 8x22B: config.json of mistralai/Mixtral-8x22B-v0.1
return {
  layers = 56, H = 6144, heads = 48, kv = 8, dim = 128, V = 32000,
  E = 8, K = 2, F = 16384, act = "swiglu", router = "topk_softmax", norm = 0, dtype = "bf16",
  theta = 1000000, norm_eps = 1e-5, tied = false, names = "mixtral",
}
