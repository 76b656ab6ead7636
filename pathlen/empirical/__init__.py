"""How nonlinear each unit acts on data (`pathlen.activity`): one module for each stage.

A batch becomes arguments (`batches`), the model runs on them call by call beside its recording
(`follow`), what enters and leaves each activation (`sites`) is added to running sums (`moments`),
and these become activities (`result`). `run` reads as the list of the stages.
"""
