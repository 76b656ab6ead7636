"""First stage: a model and its arguments become a torch.fx graph of ATen calls.

`ladder` tries one tracer after another: `eager` on tensors without data (`fake`, with `shapes` and
`windows`, and `meta_values`), `eager` with gradients, `export`, and `eager` on real tensors. What
they give is a `recording`. `control_flow` and `programs` run what is more than a list of calls;
`choices` tells what depends on the example, `draws` (by `generators`) what on random numbers.
`module_stack` tells in which module a call is. `state` leaves the model and the process as they
were, `own_numbers` the generators of the process.
"""

from pathlen.tracing.ladder import trace_model, trace_values
from pathlen.tracing.recording import Recording, module_path

__all__ = ["Recording", "module_path", "trace_model", "trace_values"]
