"""Why is it stuck: records of a run, verdicts, curvature, the range test."""
