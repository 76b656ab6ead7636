from .coordinator import run_study as run_study
from .results import read_results as read_results
from .settings import Study as Study
from .settings import load_study as load_study
from .settings import make_study as make_study
from .verdict import Verdict as Verdict
from .verdict import judge as judge
