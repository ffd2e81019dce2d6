"""Reporting: runs and evaluations as a page, a picture and a table for people."""

from retool.reporting.html import write_report
from retool.reporting.picture import save_chart_png
from retool.reporting.printable import printable
from retool.reporting.record import CurveRow, Example, Report, System
from retool.reporting.terminal import terminal_table

__all__ = [
    "CurveRow",
    "Example",
    "Report",
    "System",
    "printable",
    "save_chart_png",
    "terminal_table",
    "write_report",
]
