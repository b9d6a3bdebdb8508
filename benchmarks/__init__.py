"""What is measured, apart from the tests: ratios within one run, medians."""
