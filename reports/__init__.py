"""Reports on saved benchmark results: one tidy DataFrame, tables, figures, and an HTML page."""

from reports.loading import Results, Run, load, load_results
from reports.page import write
from reports.summarizing import noise_warning, summary

__all__ = ["Results", "Run", "load", "load_results", "noise_warning", "summary", "write"]
