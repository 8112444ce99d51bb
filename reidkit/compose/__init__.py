"""Where the rooms meet; nothing below knows more than one of them."""

from reidkit.compose.averaging import mean_of_runs
from reidkit.compose.building import check, choose_device, load_benchmarks, preprocessing_of
from reidkit.compose.inference import draw_ranked, extract, extract_to, find_samples
from reidkit.compose.inspection import components, diagnose
from reidkit.compose.ranks import is_of_this_launch, main_alone, together
from reidkit.compose.reporting import evaluate_files, evaluate_run
from reidkit.compose.searching import search
from reidkit.compose.training import train

__all__ = [
    "check",
    "train",
    "extract",
    "extract_to",
    "find_samples",
    "evaluate_run",
    "evaluate_files",
    "draw_ranked",
    "mean_of_runs",
    "search",
    "choose_device",
    "load_benchmarks",
    "preprocessing_of",
    "together",
    "main_alone",
    "is_of_this_launch",
    "components",
    "diagnose",
]
