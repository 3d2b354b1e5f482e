"use strict";
// The one-file comparison: its sounds are inside.
new ComparisonView().show(JSON.parse($("#cases").textContent));
