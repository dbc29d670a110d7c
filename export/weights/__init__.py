"""From float matrices to int4 and int8, and the tables of what is stored."""
