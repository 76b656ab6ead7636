"""Second stage: the rules that turn a recorded program into a path graph.

`program` reads as the list of the steps. `interpreter` walks the recorded calls: every tensor gets
a value (`values`) whose labels say which unit each of its elements belongs to (`labels`). A call is
given to its rule (`rules`), which works with the `context` and adds nodes to the `builder`.

- Rules, by sort of operation: `elementwise`, `normalization`, `reduction` (by `reduced`),
  `movement`, `indexing`, `scattering`, `mixing`, `counting`, `layers`, `products` (by
  `contraction`, `matrix_layers`, `bilinear`), `attention`, `recurrent`, `complex_numbers` (by
  `complex_parts`), and those of users (`register`).
- Calls without a rule: written out in calls that have one (`decompose`), or run at random inputs
  (`probe`).
- What several calls compute together: `regions` are scalar functions of one tensor. `follow` finds
  the state of each tensor in them (`states`), by where its elements are (`places`, `tables`,
  `placing`) and what they went through: `statistics`, `stacks`, `masks`, `lookups`, `neighbours`,
  `contracted`, `softmax_parts`. `functions` and `variants` say how many units an activation has,
  `several` and `affine` how many functions of the same elements meet or are added up, `flat` what
  meets first, `zeros` where nothing meets. `commuting` divides before a matrix product,
  `taken_apart` takes parts before a layer, `chosen` (by `one_hot`) chooses before layers; `ranks`
  and `placed` know the largest elements at their places.
- In-place writes: `aliases`, `memory`, `views`.
- Blocks that repeat are lowered once and placed again: `again`, `repetitions`, `snapshot`.
- Features of the inputs: `inputs` follows them (`input_walk`, `input_memory`) by where elements
  come from (`origins`), to the layers that read them first (`input_layers`, `input_reads`).
- Which units are active: `activity`, from `constants`.
- Edges with weights: `layer_weights`, `gains`, `scales`, `magnitudes` and the `weighted_` modules.
- Sums of products: `factored_sums`, `multiplied`, `factoring`, `polynomials`, `inside`, `generic`.
- Sums side by side: `joined`, `one_sum`.
"""

from pathlen.lowering.program import lower

__all__ = ["lower"]
