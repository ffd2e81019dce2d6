"""Reporting: runs and evaluations as a page, a picture and a table for people."""

from retool.reporting.archive import PAGE_BYTES, Archive
from retool.reporting.entry import CallSeconds, Correction, Entry, LearnerTokens, Origin
from retool.reporting.html import write_report
from retool.reporting.picture import save_chart_png
from retool.reporting.printable import printable
from retool.reporting.record import Alarm, Comparison, CurveRow, Purposes, Report, System
from retool.reporting.step_times import StepTimes, Work
from retool.reporting.terminal import terminal_table

__all__ = [
    "PAGE_BYTES",
    "Alarm",
    "Archive",
    "CallSeconds",
    "Comparison",
    "Correction",
    "CurveRow",
    "Entry",
    "LearnerTokens",
    "Origin",
    "Purposes",
    "Report",
    "StepTimes",
    "System",
    "Work",
    "printable",
    "save_chart_png",
    "terminal_table",
    "write_report",
]
