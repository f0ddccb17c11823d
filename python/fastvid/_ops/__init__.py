"""The public ops by family; `fastvid.ops` gathers them."""
