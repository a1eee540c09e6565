"""Home, overviews, the monthly report: selectors and views only."""
