"""SuRe (arXiv 2404.13081): propose answers, have the passages summarised for each, and choose the better supported one.

What is asked when is in course.py, what verdicts decide in selection.py, the module in sure.py.
"""
