"""Self-Explore (arXiv 2404.10346): find the first wrong step, and prefer the step that goes on well.

Six stages: SFT (`SFT`), samples of solutions (`Sampler`), rejection sampling fine-tuning (`SFT` again), samples of that
model (`Sampler`), exploration of wrong solutions (`Explorer`), and preference learning on the pairs it finds (`DPO`).
"""
