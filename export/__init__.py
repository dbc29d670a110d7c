"""The exporters, one a target. They import the core; the core never imports them."""

from lcsb_mobile.export.collector import rarely_collected

with rarely_collected():
    import torch as torch
