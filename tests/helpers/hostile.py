"""Texts that a catalog may hold to act on whoever reads them, for every writer to be tested with."""

TERMINAL = [
    "red\x1b[2Jshoe",
    "\x1b]0;owned\x07shoe",
    "a\rb",
    "\x9b2J",
    "left\u202etfel",
    "a\x00b",
    "a\u2028b",
    "\x08\x08x",
]
MARKDOWN = ["[x](javascript:alert(1))", "a | b | c", "![x](http://evil.example/x.png)", "`rm`", "**bold**"]
HTML = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "&lt;b&gt;"]
SHEETS = ["=cmd|' /C calc'!A0", "+1+1", "@SUM(1)", "-2+3", "\t=1", "\uff1d1+1"]
EVERYTHING = [*TERMINAL, *MARKDOWN, *HTML, *SHEETS]
