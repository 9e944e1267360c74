"""The network: a transformer over the days, a CNN over the chart, a fusion of both, one head per sector."""
