"""Reports: what others read of a run."""
