"""The exporters, one a target. They import the core; the core never imports them."""
