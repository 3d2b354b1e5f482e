"""The parity report, and what shows it: ``terminal``, ``markdown``, ``parity_table``, ``html``.

A report is a dict that JSON can hold (``model.Report`` names every key): the checklist as sections of boxes, the rows that were
measured, and which rows each box rests on. Every renderer checks it first (``model.check``) and raises ``ValueError`` naming the
place that does not fit. Arrays for the plots of ``html`` are no part of it; they come as ``model.Plots``.

- A **box** is one line of the checklist: its own words, a verdict, one sentence with the measured figures, and its rows. A box
  whose ``parent`` is a title stands below that title.
- A **row** is one comparison of two parties (``comparison``: reference, candidate) on one ``case``. ``mode`` is ``loaded``
  (settings and tensors, without computing), ``isolated`` (the stage was fed the reference's own input) or ``chained``. It
  holds either ``figures`` (``parity.metrics.Figures``) or ``values`` (a setting on both sides), or says what is ``missing``.
- Verdicts: ``ok``, ``FAIL``, ``missing`` (could not be measured) and ``note`` (a difference that is meant to be, and measured).
"""

from .html import html
from .markdown import markdown, parity_table
from .model import Plots, Report, check
from .terminal import terminal

__all__ = ["Plots", "Report", "check", "html", "markdown", "parity_table", "terminal"]
