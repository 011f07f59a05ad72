"""SELF-JUDGE (arXiv 2402.11253): one model answers and judges.

It learns both (`JSFT`), learns on its own answers as its frozen copy judges them (`SelfJudge`), and chooses among its
answers by a tournament (`SelfRejection`).
"""
