"""Continuous batching over transformers' causal language models, on CUDA, ROCm and CPU."""
