"""Adapters to and from PEFT's layout."""
