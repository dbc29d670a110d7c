"""The runtimes that a bundle's steps run on, each in a module of its own that is imported only when asked for."""
