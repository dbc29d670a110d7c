"""One block's programs as captured ATen graphs."""
