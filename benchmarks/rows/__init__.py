"""One module per row, or per small group of rows: `measure(bench)` returns them."""
