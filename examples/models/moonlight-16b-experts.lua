-- The experts of Moonlight 16B-A3B (config.json of moonshotai/Moonlight-16B-A3B): sigmoid routing with
-- a selection bias and a scaling factor, shared expert of 2 x 1408, first layer dense. Its latent
-- attention is replaced by plain attention of the same width, so parameters differ there.
return {
  layers = 27, dense = 1, dense_F = 11264, H = 2048, heads = 16, kv = 16, dim = 128, V = 163840,
  E = 64, K = 6, F = 1408, shared = 2816, act = "swiglu", router = "sigmoid_bias", norm = 1,
  scale = 2.446, dtype = "bf16", theta = 50000, norm_eps = 1e-5, tied = false, names = "deepseek",
}
