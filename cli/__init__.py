"""What the doors share: parser, errors and help on one screen, config files, run folders.

It does not know methods. Help pages are read without torch: nothing is imported here.
"""
