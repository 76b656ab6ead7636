"""Other ways to choose the units that become linear, to compare the sparsity prior with.

Each is written from its paper (docs/baselines.md says what differs), and each is a
:class:`pathlen.training.linearizer.Linearizer`: the same models, phases, targets and figures.
"""
