"""From captured graphs to one ExecuTorch program of many methods."""
