"""The page to look at and listen to: one HTML file that shows an exhibition, without any network.

`gather` reads what the page shows from the records; `render` turns it into HTML. Where the file goes, and what a
person reads meanwhile in the terminal, is left to `promenade.report`.
"""

from gallery.report.gathering import Gathered, gather
from gallery.report.page import render

__all__ = ["Gathered", "gather", "render"]
