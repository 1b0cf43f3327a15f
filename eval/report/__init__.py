"""`report.html`: one self-contained file that shows a run. No network, model text is always inert.

sections.py     what a report can be composed of (typed)
charts.py       geometry of line charts, interval plots and radars
transcripts.py  episodes as compressed blocks that the page opens one at a time
write.py        renders the page
from_run.py     the sections of an evaluation's run folder
templates/      markup, style and script of the page
"""

from eval.report.sections import (
    Chart,
    Comparisons,
    Curves,
    Evaluations,
    Facts,
    HumanLikeness,
    Prose,
    Section,
    Series,
    Stat,
    Summary,
    Table,
    TranscriptRun,
    Transcripts,
    curves_from_metrics,
)
from eval.report.transcripts import EpisodeRecord, TokenPieces, token_pieces
from eval.report.write import ReportStats, write_report

__all__ = [
    "Chart",
    "Comparisons",
    "Curves",
    "EpisodeRecord",
    "Evaluations",
    "Facts",
    "HumanLikeness",
    "Prose",
    "ReportStats",
    "Section",
    "Series",
    "Stat",
    "Summary",
    "Table",
    "TokenPieces",
    "TranscriptRun",
    "Transcripts",
    "curves_from_metrics",
    "token_pieces",
    "write_report",
]
