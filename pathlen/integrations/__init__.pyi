from .lightning_callback import DepthCallback as DepthCallback
from .logger import DepthLogger as DepthLogger
from .scalars import DepthScalars as DepthScalars
from .trainer_callback import DepthTrainerCallback as DepthTrainerCallback
