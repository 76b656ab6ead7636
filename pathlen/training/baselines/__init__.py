"""Other ways to choose the units that become linear, to compare the sparsity prior with.

Each is written from its paper (docs/baselines.md says what differs), and each is a
:class:`pathlen.training.linearizer.Linearizer`: the same models, phases, targets and figures.

`base` has what all share and `gradual` the schedule of those that are an order of units: `chance`,
`magnitude`, `greedy` and `entropy`, for which `signs` counts. `snl` and `layer_folding` train
slopes under a penalty and choose once. `settings` are what a recipe says of each.
"""
