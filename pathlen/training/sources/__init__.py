"""Where data sets are published, and how they get onto this machine when somebody asks for it.

`known.py` lists them, `download.py` brings a file, `unpack.py` takes it apart and `get.py` does
both, so that a data set is there as a whole or not at all. No task downloads anything by itself.
"""
