"""Small networks as data, their spellings in torch, and the path graph that the definitions give.

A network is a `program.Program`: operations with a meaning of their own, not torch calls.
`constructs.py` draws such programs, `spellings*.py` write each operation in one of many equivalent
forms, and `oracle.py` derives the path graph element by element from the program alone. Nothing
here reads how pathlen does it. `python -m tests.spelling --networks 5000 --seed 0` compares the
two at scale.
"""
