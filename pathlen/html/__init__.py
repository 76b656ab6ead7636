"""The HTML report: one file that opens offline, to explore a measurement in.

`page.py` puts the file together, `data.py` says what of a report goes into it, `strips.py` what the
channels of each layer look like. The page itself is written in `page.html`, `style.css` and the
scripts of `SCRIPTS`, which the browser runs in that order.
"""
