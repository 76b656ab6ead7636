"""First stage: a model and its arguments become a torch.fx graph of ATen calls."""

from pathlen.tracing.ladder import trace_model
from pathlen.tracing.recording import Recording, module_path

__all__ = ["Recording", "module_path", "trace_model"]
