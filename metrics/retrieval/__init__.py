"""What rankings are worth, alone and with instructions, from judged documents to the report.

It does not know how documents were found.
"""
