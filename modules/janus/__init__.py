"""Janus (arXiv 2405.17977): preferences stated in system messages, judged on Multifaceted Bench.

Its training is SFT, DPO, ORPO, KTO and reward modelling: `modules.SFT`, `DPO`, `KTO` and `RewardModel` with
configs/janus.
"""
